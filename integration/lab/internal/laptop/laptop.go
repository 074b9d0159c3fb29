// Package laptop makes the developer's machine of the lab: namespaces of its
// own beside the node's, one wire on which only the API server answers, and an
// unprivileged user with the source tree, a Go toolchain and kubeconfigs.
package laptop

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/borrownet/borrownet/integration/lab/internal/spec"
)

// Verb is the first argument that makes the lab binary call Main.
const Verb = "__laptop"

// A Laptop is the laptop as its starter, on the node, sees it.
type Laptop struct {
	cmd    *exec.Cmd
	wired  io.WriteCloser // closed when the network device is there
	answer io.ReadCloser
}

// Start starts process 1 of the laptop. The caller gives it a device eth0 and
// then calls Finish. It ends with the node.
func Start(s spec.Spec) (*Laptop, error) {
	cmd := exec.Command("/proc/self/exe", Verb, s.Dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET |
			syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
	}
	cmd.Stderr = os.Stderr
	wired, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	answer, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start laptop: %w", err)
	}
	return &Laptop{cmd: cmd, wired: wired, answer: answer}, nil
}

// PID returns the pid of process 1 of the laptop, as the node numbers it.
func (l *Laptop) PID() int { return l.cmd.Process.Pid }

// Finish lets the laptop set itself up and returns when that is done.
func (l *Laptop) Finish() error {
	if err := l.wired.Close(); err != nil {
		return err
	}
	line, err := bufio.NewReader(l.answer).ReadString('\n')
	if err != nil {
		return fmt.Errorf("set up laptop: %w", err)
	}
	if text := strings.TrimSpace(line); text != answerOK {
		return fmt.Errorf("set up laptop: %s", text)
	}
	go func() { _ = l.cmd.Wait() }() // ends with the node, or nothing is left to reap
	return nil
}

const answerOK = "ok"

// Main is process 1 of the laptop. It returns only when the set-up went wrong.
func Main(s spec.Spec) error {
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil { // until the wire is there
		return err
	}
	if err := setUp(s); err != nil {
		fmt.Println(strings.ReplaceAll(err.Error(), "\n", "; "))
		return err
	}
	fmt.Println(answerOK)
	return reap()
}

// reap waits for orphans. Commands are no children of this process: they enter
// its namespaces from outside.
func reap() error {
	chld := make(chan os.Signal, 1)
	notifyChildren(chld)
	for range chld {
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if errors.Is(err, syscall.EINTR) {
				continue
			}
			if pid <= 0 || err != nil {
				break
			}
		}
	}
	return nil
}
