//go:build linux && !race

package demo

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/borrownet/borrownet/hook/hooktest"
)

// A program is a real program, as people use it, in a session of the world's pod api.
// Its scripts run in a directory of its own with PORT, a free one of the laptop, and
// SAID, the file of what was printed in the session so far.
type program struct {
	name        string
	needs       []string // commands
	needsModule string   // of Debian's Python
	port        uint16   // of the server that ledger has for it, or 0
	// self is set if it runs as the user who tests: it needs Go's build cache, or an account.
	self, account bool
	files         map[string]string
	// script is what `borrownet run` runs, by bash.
	script string
	// laptop runs beside it, from before to after, without borrownet.
	laptop string
	// near is what a person does on the laptop, without borrownet, while script runs:
	// again and again until it succeeds, which ends script.
	near string
	want string // a regular expression in what script and near print
}

// asPod is in the answer of orders to a program of the session.
const asPod = `"remote": "192\.0\.2\.10:`

var programs = []program{
	{name: "curl", needs: []string{"curl"}, script: `curl -sS http://orders/curl`, want: asPod},
	{name: "git-clone", needs: []string{"git"}, port: 80,
		script: `git clone -q http://ledger/app.git copy; git -C copy log --format=%s; git -C copy ls-remote -q`,
		want:   `^the first commit\n[0-9a-f]{40}\s+HEAD\n`},
	{name: "psql", needs: []string{"psql"}, port: 5432,
		script: `psql -h ledger -U app -d postgres -AqtX -c 'create table t (n int); insert into t select generate_series(1, 1000)' -c 'select sum(n) from t'`,
		want:   `^500500\n$`},
	{name: "redis-cli", needs: []string{"redis-cli"}, port: 6379,
		script: `redis-cli -h ledger set greeting hello; redis-cli -h ledger get greeting; redis-cli -h ledger -r 100 incr n | tail -n 1`,
		want:   `^OK\nhello\n100\n$`},
	{name: "go-run", needs: []string{"go"}, self: true, files: goProgram, script: `CGO_ENABLED=0 go run . run`, want: asPod},
	{name: "go-test", needs: []string{"go"}, self: true, files: map[string]string{"go.mod": goMod, "app_test.go": goTest},
		script: `go test -v -count=1 .`, want: `(?s)` + asPod + `.*\nok `},
	// Not to compile all that they are made of without optimization, these two are given flags.
	{name: "dlv-debug", needs: []string{"dlv", "go"}, self: true, files: goProgram,
		script: `CGO_ENABLED=0 dlv debug --build-flags=-gcflags=all= --allow-non-terminal-interactive=true --init steps . -- debugged </dev/null`,
		want:   `(?s)> \[Breakpoint 1\] main\.call.*` + asPod},
	{name: "dlv-listen", needs: []string{"dlv", "go"}, self: true, files: goProgram,
		script: `CGO_ENABLED=0 dlv debug --build-flags=-gcflags=all= --headless --listen 127.0.0.1:$PORT . -- debugged`,
		near:   `grep -q 'listening at' "$SAID"; dlv connect --allow-non-terminal-interactive=true --init steps 127.0.0.1:$PORT </dev/null`,
		want:   `(?s)` + asPod + `.*> \[Breakpoint 1\] main\.call`},
	{name: "gdb", needs: []string{"gdb", "curl"},
		script: `gdb -q -nx -batch -ex 'set breakpoint pending on' -ex 'break connect' -ex run -ex delete -ex continue --args curl -sS http://orders/gdb </dev/null`,
		want:   `(?s)Breakpoint 1, .*connect.*` + asPod},
	{name: "node-inspect", needs: []string{"node"}, files: map[string]string{"app.js": nodeApp},
		script: `node --inspect=127.0.0.1:$PORT app.js`,
		near: `grep -q 'listening on' "$SAID"
			{ until grep -q remote "$SAID"; do echo 'exec("ask()")'; sleep 0.1; done; echo .exit; } | timeout 60 node inspect 127.0.0.1:$PORT`,
		want: asPod},
	{name: "jdb", needs: []string{"java", "javac", "jdb"}, files: map[string]string{"Debugged.java": javaCall},
		script: `javac Debugged.java; java -XX:TieredStopAtLevel=1 -agentlib:jdwp=transport=dt_socket,server=y,suspend=y,address=127.0.0.1:$PORT Debugged`,
		near: `grep -q 'Listening for transport' "$SAID"
			{ echo 'stop in Debugged.call'; until grep -q remote "$SAID"; do echo cont; sleep 0.1; done; } | timeout 60 jdb -attach 127.0.0.1:$PORT || grep remote "$SAID"`,
		want: `(?s)` + asPod + `.*Breakpoint hit: .*Debugged\.call`},
	{name: "debugpy", needsModule: "debugpy", files: map[string]string{"app.py": pythonCall, "attach.py": debugAdapterClient},
		script: `/usr/bin/python3 -Xfrozen_modules=off -m debugpy --listen 127.0.0.1:$PORT --wait-for-client app.py`,
		near:   `/usr/bin/python3 attach.py $PORT; until grep -q remote "$SAID"; do sleep 0.1; done`,
		want:   `(?s)` + asPod + `.*stopped at app.py:2`},
	{name: "uvicorn-reload", needs: []string{"uvicorn", "curl"}, files: map[string]string{"app.py": asgiApp},
		script: `uvicorn --reload --port $PORT app:app`,
		near:   `curl -fsS http://127.0.0.1:$PORT/ | tee seen; grep -q ^two seen || { if grep -q ^one seen; then sed -i s/one/two/ app.py; fi; false; }`,
		want:   `two .*\n(.*\n)+?.*` + asPod},
	{name: "gunicorn-prefork", needs: []string{"gunicorn", "curl"}, files: map[string]string{"app.py": wsgiApp},
		script: `gunicorn -w 2 -b 0.0.0.0:$PORT app:app`,
		near:   `curl -fsS http://127.0.0.1:$PORT/ | tee -a seen; [ $(grep ^worker seen | sort -u | wc -l) = 2 ]`,
		want:   asPod},
	{name: "java-httpserver", needs: []string{"java", "javac", "curl"}, files: map[string]string{"Main.java": javaServer},
		script: `java -Xshare:auto -XX:TieredStopAtLevel=1 Main.java $PORT`, near: `curl -fsS http://127.0.0.1:$PORT/java`, want: asPod},
	{name: "nginx-as-a-child", needs: []string{"nginx", "curl"}, files: map[string]string{"nginx.conf": nginxConf},
		script: `sed -i s/PORT/$PORT/ nginx.conf; nginx -e stderr -p "$PWD" -c nginx.conf & trap 'kill %1; wait' EXIT
			until curl -fsS http://127.0.0.1:$PORT/child 2>errors; do sleep 0.1; done`,
		want: asPod},
	{name: "make-j", needs: []string{"make", "curl"}, files: map[string]string{"Makefile": makefile}, script: `make -s -j4`, want: `(?s)(` + asPod + `.*){8}`},
	{name: "bash-jobs", needs: []string{"curl"},
		script: `for n in 1 2 3 4; do (exec 3<>/dev/tcp/orders/80; printf 'GET /%s HTTP/1.0\r\nHost: orders\r\n\r\n' $n >&3; cat <&3) >$n & done
			wait; cat 1 2 3 4 | grep -c '` + asPod + `'
			coproc curl -sS http://orders/coproc; cat <&${COPROC[0]}`,
		want: `(?s)^4\n.*"path": "/coproc"`},
	{name: "ssh-to-a-local-sshd", needs: []string{"ssh", "ssh-keygen", "sshd", "curl"}, self: true, account: true,
		laptop: `ssh-keygen -q -t ed25519 -N '' -f host; ssh-keygen -q -t ed25519 -N '' -f key
			[ "$(id -u)" != 0 ] || mkdir -p /run/sshd
			exec "$(command -v sshd)" -D -e -f /dev/null -h "$PWD/host" -o AuthorizedKeysFile="$PWD/key.pub" -o StrictModes=no -o UsePAM=no \
				-o ListenAddress=127.0.0.1 -o Port=$PORT -o PidFile=none`,
		script: `until ssh -F none -i key -p $PORT -o StrictHostKeyChecking=no -o UserKnownHostsFile=known -o BatchMode=yes 127.0.0.1 \
				'echo over ssh; curl -sS --max-time 2 http://orders/ 2>&1; true' | grep . ; do sleep 0.1; done`,
		want: `(?m)^over ssh\ncurl: `},
}

// TestPrograms runs real programs, unmodified, in sessions of an ordinary user and,
// where they need what only the user who tests has, of that one.
func TestPrograms(t *testing.T) {
	if os.Getuid() == 0 && !mayBecome(ordinaryUser) {
		hooktest.Unavailable(t, "setuid", "root may not become an ordinary user here")
	}
	base, err := os.MkdirTemp("", "bn") // paths of sockets are bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(base, "borrownet")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", bin, "../../borrownet")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	far := newFarSide(t, filepath.Join(base, "far"))
	self := newHome(t, base, bin, os.Getuid(), far)
	self.env = append(self.env, goEnvironment(t)...)
	user := self
	if os.Getuid() == 0 {
		user = newHome(t, base, bin, ordinaryUser, far)
	}
	for _, prog := range programs {
		t.Run(prog.name, func(t *testing.T) {
			for _, need := range prog.needs {
				if _, err := findProgram(need); err != nil {
					hooktest.Unavailable(t, "programs", err)
				}
			}
			if err := findModule(prog.needsModule); err != nil {
				hooktest.Unavailable(t, "programs", err)
			}
			if _, err := osuser.LookupId(strconv.Itoa(os.Getuid())); prog.account && err != nil {
				hooktest.Unavailable(t, "programs", err)
			}
			if err := far.lacks[prog.port]; err != nil {
				hooktest.Unavailable(t, "programs", err)
			}
			h := user
			if prog.self {
				h = self
			}
			h.try(t, prog)
		})
	}
}

// ordinaryUser is who programs run as when root tests.
const ordinaryUser = 1001

func mayBecome(uid int) bool {
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	return cmd.Run() == nil
}

// goEnvironment lets a Go command of another HOME use the caches of this one.
func goEnvironment(t *testing.T) []string {
	t.Helper()
	names := []string{"GOCACHE", "GOMODCACHE", "GOFLAGS"}
	out, err := exec.Command("go", append([]string{"env"}, names...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"GOTOOLCHAIN=local", "GOPROXY=off"}
	for i, value := range strings.Split(strings.TrimSuffix(string(out), "\n"), "\n") {
		env = append(env, names[i]+"="+value)
	}
	return env
}

// programPatience bounds a program: some compile first, on a machine that is busy.
const programPatience = 3 * time.Minute

// try runs a program and looks at what was said.
func (h *home) try(t *testing.T, prog program) {
	dir := filepath.Join(h.dir, prog.name)
	h.furnish(t, dir, prog.files)
	saidPath := filepath.Join(h.dir, prog.name+".said")
	said, err := os.Create(saidPath)
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	if err := said.Chmod(0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), programPatience)
	defer cancel()
	port := freePort(t)
	script := func(words ...string) *exec.Cmd {
		cmd := h.command(ctx, words[0], words[1:]...)
		cmd.Dir = dir
		cmd.Env = append(cmd.Env, "PORT="+strconv.Itoa(port), "SAID="+saidPath)
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		return cmd
	}
	bash := []string{"bash", "-euo", "pipefail", "-c"}
	if prog.laptop != "" {
		var out bytes.Buffer
		laptop := script(append(bash, prog.laptop)...)
		laptop.Stdout, laptop.Stderr = &out, &out
		if err := laptop.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			syscall.Kill(-laptop.Process.Pid, syscall.SIGKILL)
			laptop.Wait()
			if t.Failed() {
				t.Logf("on the laptop: %s", &out)
			}
		}()
	}
	wrapped := script(append(append([]string{h.bin, "run", "--"}, bash...), prog.script)...)
	wrapped.Stdout, wrapped.Stderr = said, said
	if err := wrapped.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- wrapped.Wait() }()
	var seen []byte
	if prog.near == "" {
		err = <-ended
	} else {
		seen, err = approach(ctx, ended, func() *exec.Cmd { return script(append(bash, prog.near)...) })
		syscall.Kill(-wrapped.Process.Pid, syscall.SIGTERM)
		if err == nil {
			<-ended // with the code of a program that was told to end
		}
	}
	text, _ := os.ReadFile(saidPath)
	text = append(text, seen...)
	if err != nil || !regexp.MustCompile(prog.want).Match(text) {
		t.Errorf("%v, want %s in:\n%s", err, prog.want, text)
	}
}

// approach runs what a person does until it succeeds.
func approach(ctx context.Context, ended <-chan error, near func() *exec.Cmd) ([]byte, error) {
	for {
		cmd := near()
		out, err := cmd.CombinedOutput()
		if err == nil {
			return out, nil
		}
		select {
		case early := <-ended:
			return out, fmt.Errorf("the program has ended (%v) before the laptop met it: %w", early, err)
		case <-ctx.Done():
			return out, err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// furnish makes a directory of the user with files.
func (h *home) furnish(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, h.uid, -1); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir, h.uid, -1); err != nil {
		t.Fatal(err)
	}
}

// freePort finds a port that nobody listens on and that the kernel gives to nobody.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 20000 + rand.IntN(10000)
		ln, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err == nil {
			ln.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}
