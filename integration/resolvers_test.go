package integration

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// A lookup is a way to resolve names that programs have: a shell script that gets names as its arguments and prints a line
// for each: the name, then its addresses or "none". $BIN has the programs of integration/apps/resolve.
type lookup struct {
	name   string
	need   string // a command, or a program in $BIN
	script string
	// exact is true of what sends the name as it is, without the search list: only complete names mean the same to it in a
	// pod.
	exact bool
}

var lookups = []lookup{
	{name: "glibc", need: "getent", script: `for n; do a=$(getent ahosts $n | cut -d' ' -f1); echo $n ${a:-none}; done`},
	{name: "musl", need: "resolve-musl", script: `exec "$BIN/resolve-musl" "$@"`},
	{name: "go", need: "resolve-go", script: `exec "$BIN/resolve-go" "$@"`},
	{name: "go-cgo", need: "resolve-cgo", script: `GODEBUG=netdns=cgo exec "$BIN/resolve-cgo" "$@"`},
	{name: "python", need: "/usr/bin/python3", script: `exec /usr/bin/python3 -c '
import socket, sys
for n in sys.argv[1:]:
    try:
        print(n, *{a[4][0] for a in socket.getaddrinfo(n, 80, type=socket.SOCK_STREAM)})
    except socket.gaierror as e:
        print(n, "none" if e.errno in (socket.EAI_NONAME, socket.EAI_NODATA) else e.errno)
' "$@"`},
	{name: "node-lookup", need: "node", script: `exec node -e '
(async () => {
  for (const n of process.argv.slice(1)) {
    try { console.log(n, ...(await require("dns").promises.lookup(n, {all: true})).map(a => a.address)) }
    catch (e) { console.log(n, e.code === "ENOTFOUND" ? "none" : e.code) }
  }
})()' -- "$@"`},
	{name: "node-c-ares", need: "node", exact: true, script: `exec node -e '
(async () => {
  const dns = require("dns").promises;
  for (const n of process.argv.slice(1)) {
    const found = [];
    for (const ask of [dns.resolve4, dns.resolve6])
      try { found.push(...await ask(n)) } catch (e) { if (!["ENOTFOUND", "ENODATA"].includes(e.code)) found.push(e.code) }
    console.log(n, ...(found.length ? found : ["none"]));
  }
})()' -- "$@"`},
	{name: "java", need: "javac", script: java("")},
	{name: "java-prefers-ipv6", need: "javac", script: java("-Djava.net.preferIPv6Addresses=true")},
	{name: "java-jndi", need: "javac", exact: true, script: java("-Djndi=true")},
	{name: "dig", need: "dig", exact: true, script: `for n; do a=$(dig +short $n A $n AAAA | grep -v '\.$'); echo $n ${a:-none}; done`},
	{name: "dig-search", need: "dig", script: `for n; do a=$(dig +search +short $n A $n AAAA | grep -v '\.$'); echo $n ${a:-none}; done`},
	{name: "host", need: "host", script: `for n; do echo $n $(host $n | sed -n 's/.* has \(IPv6 \)\{0,1\}address //p; s/.*NXDOMAIN.*/none/p; s/.*SERVFAIL.*/SERVFAIL/p'); done`},
	{name: "nslookup", need: "nslookup", script: `for n; do echo $n $(nslookup $n | sed -n '1,/^$/d; s/^Address: //p; s/.*NXDOMAIN.*/none/p; s/.*SERVFAIL.*/SERVFAIL/p'); done`},
}

// services are the ways that programs have to SRV records; they print the target and port of each record of a name, or
// "none".
var services = []lookup{
	{name: "glibc", need: "resolve-glibc", script: `exec "$BIN/resolve-glibc" -srv "$@"`},
	{name: "musl", need: "resolve-musl", exact: true, script: `exec "$BIN/resolve-musl" -srv "$@"`},
	{name: "go", need: "resolve-go", script: `exec "$BIN/resolve-go" -srv "$@"`},
	{name: "go-cgo", need: "resolve-cgo", script: `GODEBUG=netdns=cgo exec "$BIN/resolve-cgo" -srv "$@"`},
	{name: "node-c-ares", need: "node", exact: true, script: `exec node -e '
(async () => {
  for (const n of process.argv.slice(1)) {
    try { console.log(n, ...(await require("dns").promises.resolveSrv(n)).map(r => r.name + ":" + r.port)) }
    catch (e) { console.log(n, ["ENOTFOUND", "ENODATA"].includes(e.code) ? "none" : e.code) }
  }
})()' -- "$@"`},
	{name: "java-jndi", need: "javac", exact: true, script: java("-Djndi=true -Dtypes=SRV")},
	{name: "dig", need: "dig", exact: true, script: `for n; do a=$(dig +short $n SRV | sed 's/^[0-9]* [0-9]* \([0-9]*\) \(.*\)\.$/\2:\1/'); echo $n ${a:-none}; done`},
	{name: "dig-search", need: "dig", script: `for n; do a=$(dig +search +short $n SRV | sed -n 's/^[0-9]* [0-9]* \([0-9]*\) \(.*\)\.$/\2:\1/p'); echo $n ${a:-none}; done`},
	{name: "host", need: "host", script: `for n; do echo $n $(host -t SRV $n | sed -n 's/.* has SRV record [0-9]* [0-9]* \([0-9]*\) \(.*\)\.$/\2:\1/p; s/.*NXDOMAIN.*/none/p; s/.*SERVFAIL.*/SERVFAIL/p'); done`},
	{name: "nslookup", need: "nslookup", script: `for n; do echo $n $(nslookup -type=SRV $n | sed -n 's/.*service = [0-9]* [0-9]* \([0-9]*\) \(.*\)\.$/\2:\1/p; s/.*NXDOMAIN.*/none/p; s/.*SERVFAIL.*/SERVFAIL/p'); done`},
}

// java returns the script of a Java program that looks names up by InetAddress, or with -Djndi=true by JNDI, there with
// -Dtypes=SRV their services.
func java(flags string) string {
	return `dir=$(mktemp -d) && cat >"$dir/Resolve.java" <<'END'
import java.net.*;
import java.util.*;
import javax.naming.*;
import javax.naming.directory.*;

class Resolve {
	public static void main(String[] names) throws Exception {
		for (String n : names) {
			StringBuilder b = new StringBuilder(n);
			try {
				if (Boolean.getBoolean("jndi")) jndi(n, b);
				else for (InetAddress a : InetAddress.getAllByName(n)) b.append(" ").append(a.getHostAddress());
			} catch (UnknownHostException | NameNotFoundException e) {
				b.append(" none");
			} catch (Exception e) {
				b.append(" ").append(e.getClass().getName());
			}
			System.out.println(b);
		}
	}

	static void jndi(String name, StringBuilder b) throws NamingException {
		Hashtable<String, String> env = new Hashtable<>();
		env.put("java.naming.factory.initial", "com.sun.jndi.dns.DnsContextFactory");
		env.put("java.naming.provider.url", "dns:");
		int found = 0;
		for (String type : System.getProperty("types", "A,AAAA").split(",")) { // both at once would be a query for ANY
			Attribute a = new InitialDirContext(env).getAttributes(name, new String[] {type}).get(type);
			for (int i = 0; a != null && i < a.size(); i++, found++)
				b.append(" ").append(a.get(i).toString().replaceFirst("^\\d+ \\d+ (\\d+) (.*)\\.$", "$2:$1"));
		}
		if (found == 0) b.append(" none");
	}
}
END
java -Xshare:auto -XX:TieredStopAtLevel=1 ` + flags + ` "$dir/Resolve.java" "$@"; code=$?; rm -r "$dir"; exit $code`
}

// found reads what a lookup printed: per name its addresses in order, or whatever was said instead.
func found(t *testing.T, said string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	for line := range strings.Lines(said) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		var answer []string
		for _, w := range words[1:] {
			if a, err := netip.ParseAddr(w); err == nil {
				w = a.String()
			}
			answer = append(answer, w)
		}
		slices.Sort(answer)
		out[words[0]] = strings.Join(slices.Compact(answer), " ")
	}
	return out
}
