#!/bin/sh
# Starts the agent in an image that is not its own. The binary arrives on standard
# input; it is executed only if its SHA-256 is the one in the arguments.
#
# arguments: ARCH:SIZE:SHA256[,ARCH:SIZE:SHA256…] AGENT-ARGUMENTS…
#
# What it prints is read by the client (targetimage.go). It needs a POSIX shell, seven
# programs that busybox and coreutils have, and a directory to write to and execute from.
fail() { echo "borrownet: refused $*"; exit 3; }
# As process 1 a shell would ignore the signal and hold up the pod's deletion.
trap 'exit 143' TERM
umask 077

for tool in uname mkdir head chmod sleep; do
  command -v $tool >/dev/null 2>&1 || fail "tool $tool"
done
if command -v sha256sum >/dev/null 2>&1; then digest() { sha256sum; }
elif command -v shasum >/dev/null 2>&1; then digest() { shasum -a 256; }
elif command -v openssl >/dev/null 2>&1; then digest() { openssl dgst -sha256 -r; }
else fail checker; fi

arch=`uname -m`
case $arch in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; esac
case ",$1" in *",$arch:"*) want=${1#*"$arch:"} ;; *) fail "arch $arch" ;; esac
shift
want=${want%%,*} size=${want%%:*} want=${want#*:}

# An empty program shows whether what is written here can be executed too.
agent='' noexec=''
for dir in "$TMPDIR" /tmp /var/tmp /run "$HOME" "$PWD"; do
  [ -n "$dir" ] && mkdir "$dir/.borrownet" 2>/dev/null || continue
  echo '#!/bin/sh' >"$dir/.borrownet/agent" && chmod 700 "$dir/.borrownet/agent" || continue
  if "$dir/.borrownet/agent" 2>/dev/null; then agent=$dir/.borrownet/agent && break; fi
  noexec=$dir
done
[ -n "$agent" ] || fail "dir $noexec"

echo "borrownet: send $arch"
# In the background, so that signals and the time limit are heeded. What a shell puts
# there has no standard input, hence the other descriptor.
exec 3<&0
head -c "$size" <&3 >"$agent" &
head=$!
# A shell that has just been forked loses a signal that its parent traps: hence no trap
# meanwhile, and -9 for the sleep. The first child is one that may be killed before it.
trap - TERM
( : & trap 'kill -9 $!; wait; exit' TERM; sleep 120 & wait $!; kill $head ) 2>/dev/null &
limit=$!
trap 'exit 143' TERM
wait $head
kill $limit && wait $limit
exec <&3 3<&-

got=`digest <"$agent"`
got=${got%% *}
[ "$got" = "$want" ] || fail "digest $got"
exec "$agent" "$@"
