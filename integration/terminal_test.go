package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a program on a pseudo-terminal, as a person sees it.
type terminal struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd

	mu  sync.Mutex
	out bytes.Buffer // guarded by mu; all that was printed
}

// startOnTerminal starts cmd on a terminal of its own, of 100 columns and 40 lines.
func startOnTerminal(t *testing.T, cmd *exec.Cmd) *terminal {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: 100}); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	term := &terminal{t: t, cmd: cmd, master: os.NewFile(uintptr(fd), "ptmx")}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := term.master.Read(buf)
			term.mu.Lock()
			term.out.Write(buf[:n])
			term.mu.Unlock()
			if err != nil {
				return // EIO: the last program on the terminal has ended
			}
		}
	}()
	t.Cleanup(func() { term.master.Close(); cmd.Process.Kill(); cmd.Wait() })
	return term
}

// screen returns all that was printed so far.
func (term *terminal) screen() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.out.String()
}

func (term *terminal) await(what string, limit time.Duration) {
	term.t.Helper()
	term.awaitAfter(0, what, limit)
}

// awaitAfter waits for what in what was printed after the first start bytes.
func (term *terminal) awaitAfter(start int, what string, limit time.Duration) {
	term.t.Helper()
	end := time.Now().Add(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ; !strings.Contains(term.screen()[start:], what); <-tick.C {
		if time.Now().After(end) {
			term.t.Fatalf("no %q on the terminal within %v:\n%q", what, limit, term.screen())
		}
	}
}

// typed types keys and returns how much was printed before.
func (term *terminal) typed(keys string) int {
	term.t.Helper()
	start := len(term.screen())
	if _, err := term.master.WriteString(keys); err != nil {
		term.t.Fatal(err)
	}
	return start
}
