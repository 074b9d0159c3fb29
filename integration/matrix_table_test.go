//go:build !lab

package integration

import (
	"slices"
	"strings"
)

// matrixRungs are the ways into a session, best first.
var matrixRungs = []string{"seccomp", "preload", "netns", "relay", "preload-relay"}

// matrixRuntime is a column of the matrix: a way to make programs, and one that uses
// sockets in every manner it has.
type matrixRuntime struct {
	name, about string
	needs       []string // commands
	try         string   // what has to succeed besides, or ""
	// source is the program itself, or, of a slow build, all that it is made of; of the
	// others it is in build. Both are about conformApps, and $BIN is where programs are.
	source, build string
	slow          bool // the result is kept
	argv          []string
	// closed is true of programs that the preload library cannot be in.
	closed bool
}

const conformApps = "integration/apps/conform"

var matrixRuntimes = []*matrixRuntime{
	{
		name: "go", about: "Go, static", closed: true, needs: []string{"go"},
		build: `CGO_ENABLED=0 go build -o $BIN/conform-go ./go`, argv: []string{"$BIN/conform-go"},
	},
	{
		name: "go-cgo", about: "Go, cgo", closed: true, needs: []string{"go", "cc"},
		build: `CGO_ENABLED=1 go build -o $BIN/conform-cgo ./go`, argv: []string{"/usr/bin/env", "GODEBUG=netdns=cgo", "$BIN/conform-cgo"},
	},
	{name: "node", about: "Node", needs: []string{"node"}, source: "node/conform.js", argv: []string{"node", "$BIN/conform.js"}},
	{
		name: "jvm", about: "JVM, NIO", needs: []string{"javac"}, build: `javac -d $BIN java/Conform.java`,
		argv: []string{"java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-cp", "$BIN", "Conform"},
	},
	{
		name: "netty", about: "Netty, native epoll", needs: []string{"javac", "mvn"}, source: "java", slow: true,
		build: `mvn -q -B -f java/pom.xml org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies -DoutputDirectory=$BIN/netty
			javac -cp "$BIN/netty/*" -d $BIN/netty java/Netty.java`,
		argv: []string{"java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-cp", "$BIN/netty:$BIN/netty/*", "Netty"},
	},
	{
		name: "cpython", about: "CPython, asyncio, requests", needs: []string{"/usr/bin/python3"}, try: "/usr/bin/python3 -c 'import requests'",
		source: "python/conform.py", argv: []string{"/usr/bin/python3", "$BIN/conform.py"},
	},
	{
		name: "glibc", about: "C, glibc", needs: []string{"cc"}, build: `cc -O1 -Wall -o $BIN/conform-glibc c/*.c -lresolv`,
		argv: []string{"$BIN/conform-glibc"},
	},
	{
		name: "musl", about: "C, musl, static", closed: true, needs: []string{"musl-gcc"},
		build: `musl-gcc -O1 -Wall -static -o $BIN/conform-musl c/*.c`, argv: []string{"$BIN/conform-musl"},
	},
	{
		name: "asio", about: "C++, Boost.Asio", needs: []string{"g++"}, try: "test -e /usr/include/boost/asio.hpp", source: "asio", slow: true,
		build: `g++ -std=c++17 -o $BIN/conform-asio asio/conform.cc -pthread`, argv: []string{"$BIN/conform-asio"},
	},
	{
		name: "tokio", about: "Rust, tokio", needs: []string{"cargo"}, source: "tokio", slow: true,
		build: `cargo build -q --locked --manifest-path tokio/Cargo.toml --target-dir $BIN/target
			mv $BIN/target/debug/conform-tokio $BIN && rm -r $BIN/target`,
		argv: []string{"$BIN/conform-tokio"},
	},
	{name: "curl", about: "curl", needs: []string{"curl"}, source: "curl.sh", argv: []string{"/bin/sh", "$BIN/curl.sh"}},
}

// rung is the one by which the runtime's programs get in where rung is asked for, or
// "" if they do not.
func (r *matrixRuntime) rung(rung string) string {
	switch {
	case r.closed && rung == "preload":
		return "netns"
	case r.closed && rung == "preload-relay":
		return ""
	}
	return rung
}

// matrixRows are the capabilities, by the first part of their checks' names.
var matrixRows = []struct{ name, about string }{
	{"tcp", "TCP to a name of the cluster, 50 at once"},
	{"names", "names by each resolver that the runtime has: libc, its own over UDP and TCP, c-ares, JNDI"},
	{"epoll", "epoll before `connect()` and before `listen()`, changes and removal after"},
	{"udp", "UDP connected; cluster and laptop on one socket; `sendmmsg()`"},
	{"local", "the laptop at 127.0.0.1, localhost, ::1, ::ffff:127.0.0.1"},
	{"listen", "listeners on 127.0.0.1, all addresses, `::`, IPv6 only, never bound, which the laptop reaches; on the pod's address and below port 1024"},
	{"errors", "EADDRINUSE, ECONNREFUSED from cluster and laptop, EHOSTUNREACH, ETIMEDOUT, EMFILE"},
	{"children", "fork, vfork and spawn, workers that share a listener, orphans"},
	{"sockets", "`dup()` before `listen()`, SO_REUSEPORT, sockets passed on, half-close, sendfile, TCP Fast Open, SO_LINGER"},
	{"source", "the pod's address: in the interface list, as the socket's own, as the cluster sees it"},
	{"io_uring", "io_uring is refused"},
}

// matrixCheck is one thing that programs of some runtimes find.
type matrixCheck struct{ name, want, runtimes string }

// Most programs make a check: matrixAll of those with all calls at hand, and matrixLoops
// of libraries for asynchronous ones. curl only connects.
const (
	matrixAll   = "go go-cgo node jvm cpython glibc musl"
	matrixLoops = matrixAll + " netty asio tokio"
	matrixCalls = "go go-cgo cpython glibc musl" // with each system call
)

var matrixChecks = []matrixCheck{
	{"tcp/50", "50 of 50", matrixLoops + " curl"},
	{"tcp/http", "/path", "go go-cgo node jvm"},
	{"tcp/requests", "/path", "cpython"},
	{"names/libc", "198.51.100.21", "go-cgo node jvm cpython glibc musl asio tokio curl"},
	{"names/go", "198.51.100.21", "go"},
	{"names/udp", "198.51.100.21", "cpython glibc musl"},
	{"names/tcp", "198.51.100.21", matrixCalls},
	{"names/res_query", "198.51.100.21", "glibc musl"},
	{"names/c-ares", "198.51.100.21", "node"},
	{"names/jndi", "198.51.100.21", "jvm"},
	{"epoll/connect", "ok", "netty asio glibc musl"},
	{"epoll/change", "ok", "glibc musl"},
	{"epoll/listen", "ok", "netty asio glibc musl"},
	{"udp/connected", "hi", matrixLoops},
	{"udp/both", "far, near", matrixLoops},
	{"udp/sendmmsg", "2 sent, 6 bytes back", "glibc musl"},
	{"local/127.0.0.1", "local", matrixLoops + " curl"},
	{"local/localhost", "local", matrixLoops + " curl"},
	{"local/::1", "local", matrixLoops + " curl"},
	{"local/mapped", "local", "go go-cgo node cpython glibc musl asio tokio curl"}, // Java makes it IPv4 itself
	{"listen/127.0.0.1", "hello", matrixLoops},
	{"listen/0.0.0.0", "hello", matrixLoops},
	{"listen/::", "hello", matrixLoops},
	{"listen/v6only", "hello", "go go-cgo node cpython glibc musl asio"},
	{"listen/unbound", "hello", "cpython glibc musl"},
	{"listen/pod", "hello", matrixLoops},
	{"listen/low", "hello", matrixLoops},
	{"errors/in use", "EADDRINUSE", matrixLoops},
	{"errors/refused", "ECONNREFUSED", matrixLoops + " curl"},
	{"errors/refused here", "ECONNREFUSED", matrixLoops + " curl"},
	{"errors/unreachable", "EHOSTUNREACH", matrixLoops + " curl"},
	{"errors/descriptors", "EMFILE", matrixAll},
	{"errors/timed out", "ETIMEDOUT", matrixCalls},
	{"children/fork", "192.0.2.10", "cpython glibc musl"},
	{"children/vfork", "192.0.2.10", "glibc musl"},
	{"children/spawn", "192.0.2.10", "node cpython glibc musl"},
	{"children/prefork", "2 served", "node cpython glibc musl"},
	{"children/orphan", "192.0.2.10", "cpython glibc musl"},
	{"sockets/dup", "hello", matrixCalls},
	{"sockets/reuseport", "ok", matrixCalls},
	{"sockets/passed on", "192.0.2.10", matrixCalls},
	{"sockets/half-close", `{"bytes":5`, matrixCalls},
	{"sockets/sendfile", `1000 sent, {"bytes":1000`, matrixCalls},
	{"sockets/fast open", `{"bytes":3`, matrixCalls},
	{"sockets/linger", "ok", matrixCalls},
	{"source/interfaces", "192.0.2.10", matrixAll},
	{"source/own", "192.0.2.10", matrixAll + " asio tokio"},
	{"source/seen", "192.0.2.10", matrixLoops},
	{"io_uring/setup", "EPERM", "glibc musl"},
}

// of reports whether programs of the runtime make the check.
func (c matrixCheck) of(r *matrixRuntime) bool {
	return slices.Contains(strings.Fields(c.runtimes), r.name)
}

// matrixLimit is what does not work, with the reason, as README.md's limits have it.
type matrixLimit struct {
	rungs, checks string // words; a check may be a whole row
	why           string
	runtimes      string // words; "" is all
	or            string // what is found if not what is wanted, "" is anything
}

var matrixLimits = []matrixLimit{
	{rungs: "netns", checks: "local/::1", why: "the namespace has a `::1` of its own"},
	{rungs: "netns preload preload-relay", checks: "io_uring", why: "no filter is installed; on `preload` and `preload-relay` sockets that io_uring makes leave the session"},
	{rungs: "preload", checks: "sockets/dup", why: "the library gives the laptop's listener the number that listens, and no other that the program has for it"},
	{rungs: "preload", checks: "source/interfaces", runtimes: "node cpython glibc", why: "the C library asks the kernel past the preload library"},
	{rungs: "relay preload-relay", checks: "source/interfaces, source/own", why: "the sockets are this machine's; the cluster sees the pod's address"},
	{rungs: "relay preload-relay", checks: "errors/unreachable", or: "ETIMEDOUT", why: "a non-blocking `connect()` hears EHOSTUNREACH within 100 ms, later ETIMEDOUT"},
	{rungs: "relay preload-relay", checks: "listen/pod, listen/low", why: "the pod's address and ports below 1024 are not an ordinary user's to listen on here"},
}

// limitOf returns the limit that a check meets on a rung, or nil.
func limitOf(rung, runtime, check string) *matrixLimit {
	row, _, _ := strings.Cut(check, "/")
	for i, l := range matrixLimits {
		checks := strings.Split(l.checks, ", ")
		if slices.Contains(strings.Fields(l.rungs), rung) && (slices.Contains(checks, check) || slices.Contains(checks, row)) &&
			(l.runtimes == "" || slices.Contains(strings.Fields(l.runtimes), runtime)) {
			return &matrixLimits[i]
		}
	}
	return nil
}
