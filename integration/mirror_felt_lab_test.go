//go:build lab

package integration

import (
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// mirrorIsNotFelt: whatever happens to the program that gets the copies, to the client and to the agent, the pod's
// callers have every request answered, and keep their connections.
func mirrorIsNotFelt(t *testing.T, pod string) {
	node := onNode(t)
	kill := func(pattern string) func(*testing.T) {
		return func(t *testing.T) {
			if n := node(`n=0; for p in $(grep -lzs '` + pattern + `' /proc/[0-9]*/cmdline | cut -d/ -f3); do [ "$p" = $$ ] || { kill -9 "$p" && n=$((n+1)); }; done; echo $n`); n == "0" {
				t.Error("there was nothing to kill")
			}
		}
	}
	for _, tt := range []struct {
		name    string
		listen  func(t *testing.T) int // port of the program that gets the copies
		disturb func(t *testing.T)
		lost    bool // the session is, afterwards
	}{
		{"nobody_listens", freePort, func(*testing.T) {}, false},
		{"program_never_reads", deafPort, func(*testing.T) {}, false},
		{"program_crashes", crashingPort, func(*testing.T) {}, false},
		{"client_is_killed", freePort, func(t *testing.T) { killDaemon(t) }, true},
		{"agent_is_killed", freePort, kill("^/borrownet-agent"), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			app := &copyApp{port: tt.listen(t)}
			upMirror(t, pod, pod, app)
			wait := startCalls(t, mirrored, pod, "100", "4s", "3000")
			waitFor(t, "requests are captured", patience, func() bool { return mirrorOf(t, pod).Mirror.Capture.Bytes > 100*3000 })
			tt.disturb(t)
			if live := wait(); live.Errors > 0 || live.Lost > 0 || live.Sent < 400 {
				t.Errorf("the live pod's callers: %+v", live)
			}
			if !tt.lost {
				if s := mirrorOf(t, pod); !s.Mirror.Running {
					t.Errorf("status: %s", s.text)
				}
			}
		})
	}
}

// freePort returns a port that nobody listens on.
func freePort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// deafPort returns a port where connections are accepted and never read.
func deafPort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns = append(conns, c)
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-ended
		for _, c := range conns {
			c.Close()
		}
	})
	return ln.Addr().(*net.TCPAddr).Port
}

// crashingPort returns a port where each connection is reset once something has come by it.
func crashingPort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 100))
			_ = c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-ended
	})
	return ln.Addr().(*net.TCPAddr).Port
}

// killDaemon kills the user's daemon.
func killDaemon(t *testing.T) {
	t.Helper()
	found := false
	for _, line := range leftovers(t) {
		if !strings.Contains(line, "__daemon") {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(line, "/")[2])
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		found = true
	}
	if !found {
		t.Error("there is no daemon to kill")
	}
}
