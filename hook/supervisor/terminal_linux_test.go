package supervisor

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

	"github.com/borrownet/borrownet/hook/hooktest"
	"golang.org/x/sys/unix"
)

// terminal is a pseudoterminal with a program on it.
type terminal struct {
	master *os.File
	cmd    *exec.Cmd

	mu   sync.Mutex
	cond *sync.Cond
	seen bytes.Buffer
	late bool
}

// newTerminal starts cmd as the leader of a session on a new terminal.
func newTerminal(t *testing.T, cmd *exec.Cmd) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	p := &terminal{master: master, cmd: cmd}
	p.cond = sync.NewCond(&p.mu)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	go p.read() // ends when the last program on the terminal does
	return p
}

func (p *terminal) read() {
	buf := make([]byte, 4096)
	for {
		n, err := p.master.Read(buf)
		p.mu.Lock()
		p.seen.Write(buf[:n])
		p.cond.Broadcast()
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// expect waits until text shows up and forgets everything up to it.
func (p *terminal) expect(t *testing.T, text string) {
	t.Helper()
	timer := time.AfterFunc(patience, func() {
		p.mu.Lock()
		p.late = true
		p.cond.Broadcast()
		p.mu.Unlock()
	})
	defer timer.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if before, _, ok := strings.Cut(p.seen.String(), text); ok {
			p.seen.Next(len(before) + len(text))
			return
		}
		if p.late {
			t.Fatalf("%q did not show up, only %q", text, p.seen.String())
		}
		p.cond.Wait()
	}
}

func (p *terminal) typ(t *testing.T, text string) {
	t.Helper()
	if _, err := p.master.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func (p *terminal) exitCode(t *testing.T) int {
	t.Helper()
	timer := time.AfterFunc(patience, func() { p.cmd.Process.Kill() })
	defer timer.Stop()
	p.cmd.Wait()
	return p.cmd.ProcessState.ExitCode()
}

const (
	ctrlC = "\x03"
	ctrlZ = "\x1a"
)

// TestInterruptOnce checks that Ctrl-C reaches the command by the terminal alone.
func TestInterruptOnce(t *testing.T) {
	s := newSession(t)
	script := `n=0; trap 'n=$((n+1))' INT; echo ready; while [ $n = 0 ]; do sleep 0.02; done; sleep 0.2; echo count $n; exit 9`
	p := newTerminal(t, s.command("sh", "-c", script))
	p.expect(t, "ready")
	p.typ(t, ctrlC)
	p.expect(t, "count 1")
	if code := p.exitCode(t); code != 9 {
		t.Errorf("exit code %d, want 9", code)
	}
}

// TestShellInside checks job control of a shell that is the command.
func TestShellInside(t *testing.T) {
	s := newSession(t)
	if _, err := exec.LookPath("bash"); err != nil {
		hooktest.Unavailable(t, "bash", err)
	}
	p := newTerminal(t, s.command("bash", "--norc", "--noprofile", "-i"))
	p.typ(t, "PS1='in''side> '\n")
	p.expect(t, "inside> ")
	p.typ(t, strings.Join(app("job"), " ")+"\n")
	p.expect(t, "job runs")
	p.typ(t, ctrlZ)
	p.expect(t, "Stopped")
	p.expect(t, "inside> ") // what is typed while bash takes the terminal back may be lost
	p.typ(t, "echo still $((40+2))\n")
	p.expect(t, "still 42")
	p.typ(t, "fg\n")
	p.expect(t, "job resumed")
	p.typ(t, ctrlC)
	p.expect(t, "inside> ")
	p.typ(t, "echo code $?\n")
	p.expect(t, "code 130")
	p.typ(t, strings.Join(app("send", "shell"), " ")+"\n")
	s.sent(t, "shell")
	p.typ(t, "exit 4\n")
	if code := p.exitCode(t); code != 4 {
		t.Errorf("exit code %d, want 4", code)
	}
}

// TestShellOutside checks that run itself is a job like any other.
func TestShellOutside(t *testing.T) {
	s := newSession(t)
	if _, err := exec.LookPath("bash"); err != nil {
		hooktest.Unavailable(t, "bash", err)
	}
	p := newTerminal(t, exec.Command("bash", "--norc", "--noprofile", "-i"))
	p.typ(t, "PS1='out''side> '\n")
	p.expect(t, "outside> ")
	run := fmt.Sprintf("%s __run %s ", self(), s.path)
	p.typ(t, run+strings.Join(app("job"), " ")+"\n")
	p.expect(t, "job runs")
	p.typ(t, ctrlZ)
	p.expect(t, "Stopped")
	p.expect(t, "outside> ")
	p.typ(t, "fg\n")
	p.expect(t, "job resumed")
	p.typ(t, ctrlC)
	p.expect(t, "outside> ")
	p.typ(t, "echo code $?\n")
	p.expect(t, "code 130")
	p.typ(t, run+strings.Join(app("send", "resumed"), " ")+"\n")
	s.sent(t, "resumed")
	p.typ(t, "exit 0\n")
	if code := p.exitCode(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
