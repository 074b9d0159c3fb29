package session

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/hook"
	"github.com/borrownet/borrownet/hook/hooktest"
	"github.com/borrownet/borrownet/hook/supervisor"
)

// localLines are what testdata/conform.c prints without a session too.
var localLines = []string{
	"local: local", "mapped: local", "local v6: local", "local refused: ECONNREFUSED",
	"lowest: 0", "flags: 0 0, 1 1", "no room: EMFILE", "errno is kept: EBADF", "family: EAFNOSUPPORT", "bad descriptor: EBADF",
	"not connected: ENOTCONN",
	"listen on 127.0.0.1: 1 event, 77, non-blocking 1", "listen again: EADDRINUSE",
	"listen on 0.0.0.0: 1 event, 77, non-blocking 1", "listen again: EADDRINUSE",
}

// sessionLines are what it prints in a session besides.
var sessionLines = []string{
	"tcp: " + page, "refused: ECONNREFUSED", "unreachable: EHOSTUNREACH", "multicast: ENETUNREACH",
	"peer: " + web.String(), "again: EISCONN",
	"epoll first: 1 ours ok", "epoll first then: " + page,
	"udp connected: 3 sent, re: one from " + echoing.String(), "udp connected: 3 sent, re: two from " + other.String(),
	"udp sendto: 3 sent, re: one from " + echoing.String(), "udp sendto: 3 sent, re: two from " + other.String(),
	"udp sendmsg: 3 sent, re: one from " + echoing.String(), "udp sendmsg: 3 sent, re: two from " + other.String(),
	"udp sendmmsg: 3 sent, re: one from " + echoing.String(), "udp sendmmsg: 3 sent, re: two from " + other.String(),
	"getaddrinfo web v4: " + web.String(),
	"getaddrinfo web.shop.svc.cluster.local any: " + web.String() + " called web.shop.svc.cluster.local",
	"getaddrinfo web v6: [::ffff:198.51.100.80]:80",
	"getaddrinfo no-such-host any: none", "getaddrinfo 192.0.2.9 any: 192.0.2.9:80", "getaddrinfo localhost v4: 127.0.0.1:80",
	"gethostbyname: 198.51.100.80", "gethostbyname_r: 0 198.51.100.80", "gethostbyname_r, no room: ERANGE",
	"getnameinfo: 0 127.0.0.1 80", "getnameinfo, no name: none", "res_query: one record",
	"under signals: 0 wrong", "child: " + page,
}

// compilers are the C libraries that programs are linked with dynamically.
var compilers = []struct{ libc, cc, need string }{{"glibc", "cc", "cc"}, {"musl", "musl-gcc", "musl"}}

// buildConform compiles testdata/conform.c.
func buildConform(t *testing.T, cc, need string) string {
	t.Helper()
	path, err := exec.LookPath(cc)
	if err != nil {
		hooktest.Unavailable(t, need, err)
	}
	prog := filepath.Join(t.TempDir(), "conform")
	if out, err := exec.Command(path, "-O1", "-o", prog, "testdata/conform.c", "-lresolv").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return prog
}

// sanitizedLibrary builds the preload library so that undefined behaviour stops the
// program.
func sanitizedLibrary(t *testing.T) string {
	t.Helper()
	mk, err := exec.LookPath("make")
	if err != nil {
		hooktest.Unavailable(t, "make", err)
	}
	dir := t.TempDir()
	if out, err := exec.Command(mk, "-s", "-C", "../../../hook/preload", "UBSAN=1", "OUT="+dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return filepath.Join(dir, "libborrownet.so")
}

// greet listens on the laptop's loopback, both families, and answers "local".
func greet(t *testing.T) (port string) {
	t.Helper()
	v4, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := v4.Addr().(*net.TCPAddr).Port
	listeners := []net.Listener{v4}
	if v6, err := net.Listen("tcp", fmt.Sprintf("[::1]:%d", n)); err == nil {
		listeners = append(listeners, v6)
	}
	for _, ln := range listeners {
		t.Cleanup(func() { ln.Close() })
		go func() { // ends with ln
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				io.WriteString(c, "local")
				c.Close()
			}
		}()
	}
	return strconv.Itoa(n)
}

// conform runs the program and compares its lines. It connects to its listener.
func conform(t *testing.T, cmd *exec.Cmd, want []string) {
	t.Helper()
	var out, rest bytes.Buffer
	cmd.Stdout = &out
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		at, ok := strings.CutPrefix(lines.Text(), "listening ")
		if !ok {
			fmt.Fprintln(&rest, lines.Text())
			continue
		}
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Errorf("the program's listener on loopback is not the laptop's: %v", err)
			continue
		}
		if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
			t.Errorf("its listener said %q, %v", got, err)
		}
		c.Close()
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, rest.String())
	}
	if diff := cmp.Diff(want, strings.Split(strings.TrimSpace(out.String()), "\n")); diff != "" {
		t.Errorf("(-want +got)\n%s%s", diff, rest.String())
	}
}

// TestConform runs one table of calls with each C library on each rung that has
// the library, and without any hook.
func TestConform(t *testing.T) {
	port := greet(t)
	for _, c := range compilers {
		t.Run("none/"+c.libc, func(t *testing.T) {
			conform(t, exec.CommandContext(t.Context(), buildConform(t, c.cc, c.need), port, "local"), localLines)
		})
	}
	lines := append(localLines[:len(localLines):len(localLines)], sessionLines...)
	for _, rung := range []Rung{hook.Preload, hook.PreloadRelay} {
		t.Run(string(rung), func(t *testing.T) {
			p := startPreloaded(t, rung)
			for _, c := range compilers {
				t.Run(c.libc, func(t *testing.T) {
					conform(t, (&preloaded{t, p.session, p.env}).command(buildConform(t, c.cc, c.need), port), lines)
				})
			}
			t.Run("sanitized", func(t *testing.T) {
				p := &preloaded{t, p.session, hook.WithLibrary(p.env, sanitizedLibrary(t), hook.Lookup(p.env, hook.EnvVar))}
				conform(t, p.command(buildConform(t, "cc", "cc"), port), lines)
			})
		})
	}
	t.Run("seccomp", func(t *testing.T) {
		if err := supervisor.Probe(); err != nil {
			hooktest.Unavailable(t, "seccomp", err)
		}
		s := newRelayLab(t).start()
		needNamespace(t, s)
		place, err := json.Marshal(s.Place())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range compilers {
			t.Run(c.libc, func(t *testing.T) {
				conform(t, exec.CommandContext(t.Context(), hooktest.Self, "__hook", string(place), buildConform(t, c.cc, c.need), port), lines)
			})
		}
	})
	t.Run("relay", func(t *testing.T) {
		r := startRelayed(t)
		for _, c := range compilers {
			t.Run(c.libc, func(t *testing.T) {
				conform(t, (&relayed{t, r.session}).command(buildConform(t, c.cc, c.need), port), lines)
			})
		}
	})
}
