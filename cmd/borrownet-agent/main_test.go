package main

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/borrownet/borrownet/agent"
	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/netstack/wg"
)

// TestMain makes the test binary the agent itself where mainVar is set.
func TestMain(m *testing.M) {
	if os.Getenv(mainVar) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

const mainVar = "BORROWNET_TEST_MAIN"

func command(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	// A program built with the race detector waits a second at its end.
	cmd.Env = append(os.Environ(), mainVar+"=1", "GORACE=atexit_sleep_ms=0")
	return cmd
}

// TestTermination: process 1 of a container has to handle SIGTERM, and long before the node kills it, which is after 30 s.
func TestTermination(t *testing.T) {
	if addrs, err := (agent.Kernel{}).Addrs(); err != nil || len(addrs) == 0 {
		t.Skipf("needs network: no address but loopback's (%v)", err)
	}
	cmd := command("-client-key", wg.NewPrivateKey().Public().String())
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wire.ParseHello(line); err != nil {
		t.Errorf("first line %q: %v", line, err)
	}
	start := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
	defer kill.Stop()
	if err := cmd.Wait(); err != nil {
		t.Errorf("agent after SIGTERM: %v", err)
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("took %v to end", d)
	}
}

func TestBadArguments(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"no_key", nil, "-client-key"},
		{"bad_key", []string{"-client-key", "x"}, "-client-key"},
		{"zero_key", []string{"-client-key", wg.PublicKey{}.String()}, "all zero"},
		{"bad_ttl", []string{"-idle-ttl", "soon"}, "idle-ttl"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stderr bytes.Buffer
			cmd := command(tt.args...)
			cmd.Stderr = &stderr
			if err := cmd.Run(); err == nil || !strings.Contains(stderr.String(), tt.want) {
				t.Errorf("%v, stderr %q; want %q", err, &stderr, tt.want)
			}
		})
	}
}
