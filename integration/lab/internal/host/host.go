// Package host is the lab seen from the machine it runs on: it starts the
// node's namespaces, holds them, and takes everything down again.
package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/borrownet/borrownet/integration/lab/internal/node"
	"github.com/borrownet/borrownet/integration/lab/internal/spec"
	"github.com/borrownet/borrownet/integration/lab/internal/state"
)

// A Lab is one that this process holds: it ends with this process at the latest.
type Lab struct {
	Spec   spec.Spec
	Record state.Record

	state  *state.Lab
	cmd    *exec.Cmd
	steps  chan string   // never closed
	ready  chan int      // gets the laptop's pid on the node once, never closed
	broken chan struct{} // closed when the node says why it is of no more use, or ends
	why    error         // valid when broken is closed
	done   chan struct{} // closed when the node has ended
}

// Start starts the lab s in the directory st and returns when it is ready. The
// caller must have locked its goroutine to the main thread: the node is killed
// when the thread that started it ends. If the start fails the node may be
// half up, and the caller still has to Stop it.
func Start(ctx context.Context, s spec.Spec, st *state.Lab, progress func(step string)) (*Lab, error) {
	l := &Lab{
		Spec: s, state: st,
		steps: make(chan string, 16), ready: make(chan int, 1),
		broken: make(chan struct{}), done: make(chan struct{}),
	}
	if err := s.Save(); err != nil {
		return l, err
	}
	loadModules(ctx)
	if err := l.spawn(); err != nil {
		return l, err
	}
	for {
		select {
		case step := <-l.steps:
			progress(step)
		case laptop := <-l.ready:
			for len(l.steps) > 0 { // those came before
				progress(<-l.steps)
			}
			return l, l.publish(laptop)
		case <-l.broken:
			return l, fmt.Errorf("start the lab: %w", l.why)
		case <-ctx.Done():
			return l, context.Cause(ctx)
		}
	}
}

// spawn starts process 1 of the node and a goroutine that listens to it and
// ends with it.
func (l *Lab) spawn() error {
	if err := os.MkdirAll(l.Spec.Path("log"), 0o755); err != nil {
		return err
	}
	out, err := os.Create(l.Spec.Path("log", "lab.log"))
	if err != nil {
		return err
	}
	defer out.Close()
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer write.Close()
	cmd := exec.Command("/proc/self/exe", node.InitVerb, l.Spec.Dir)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = []*os.File{write} // node.ReportFD
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET |
			syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig: syscall.SIGKILL,
		// Ctrl-C is for the command on the laptop; the holder decides about the node.
		Setpgid: true,
	}
	if err := cmd.Start(); err != nil {
		read.Close()
		return fmt.Errorf("start namespaces: %w", err)
	}
	l.cmd = cmd
	go l.listen(read)
	return nil
}

func (l *Lab) listen(r *os.File) {
	defer r.Close()
	broke := false
	breaks := func(err error) {
		if !broke {
			broke, l.why = true, err
			close(l.broken)
		}
	}
	err := node.Events(r, func(e node.Event) {
		switch {
		case e.Err != nil:
			breaks(e.Err)
		case e.Laptop != 0:
			l.ready <- e.Laptop
		default:
			select {
			case l.steps <- e.Step:
			default: // nobody reads them after the start
			}
		}
	})
	exit := l.cmd.Wait()
	breaks(fmt.Errorf("the node ended: %w", errors.Join(err, exit)))
	close(l.done)
}

func (l *Lab) publish(laptop int) error {
	pid, err := hostPID(l.cmd.Process.Pid, laptop)
	if err != nil {
		return err
	}
	l.Record = state.Record{Holder: os.Getpid(), Node: l.cmd.Process.Pid, Laptop: pid, Started: time.Now()}
	return l.state.Publish(l.Record)
}

// Broken is closed when the lab is of no more use. What is left of it stays for
// a look at it until Stop.
func (l *Lab) Broken() <-chan struct{} { return l.broken }

// Err says why the lab is broken. It may be called after Broken.
func (l *Lab) Err() error { return l.why }

// NodePID returns the process whose namespaces are the node's, or 0.
func (l *Lab) NodePID() int {
	if l.cmd == nil {
		return 0
	}
	select {
	case <-l.done:
		return 0
	default:
		return l.cmd.Process.Pid
	}
}

// Kill ends every process of the lab, the commands on the laptop with them.
func (l *Lab) Kill() {
	_ = l.cmd.Process.Kill() // it may have ended
}

// Stop kills the node, and with its process 1 all of it, and removes the state.
func (l *Lab) Stop() error {
	if l.cmd != nil {
		l.Kill()
		<-l.done
	}
	return l.state.Remove()
}

// loadModules asks for what the network needs where it is a module. Where that
// is not possible the stage that misses something says so.
func loadModules(ctx context.Context) {
	var missing []string
	for file, module := range map[string]string{
		"/proc/sys/net/bridge": "br_netfilter",
		"/dev/net/tun":         "tun",
	} {
		if _, err := os.Stat(file); err != nil {
			missing = append(missing, module)
		}
	}
	for _, m := range missing {
		_ = exec.CommandContext(ctx, "modprobe", "-q", m).Run()
	}
}

// hostPID translates the pid of a child of a child of initPID from the pid
// namespace that initPID is process 1 of (proc_pid_status(5), NSpid).
func hostPID(initPID, inner int) (int, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, dir := range dirs {
		status, err := readStatus(dir)
		if err != nil {
			continue // it has just ended
		}
		if len(status.nspid) < 2 || status.nspid[len(status.nspid)-2] != fmt.Sprint(inner) {
			continue
		}
		parent, err := readStatus("/proc/" + status.ppid)
		if err == nil && parent.ppid == fmt.Sprint(initPID) {
			var pid int
			_, err := fmt.Sscan(filepath.Base(dir), &pid)
			return pid, err
		}
	}
	return 0, fmt.Errorf("process %d of the lab is not to be found in /proc", inner)
}

type status struct {
	ppid  string
	nspid []string
}

func readStatus(dir string) (status, error) {
	b, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return status{}, err
	}
	var s status
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "PPid":
			s.ppid = strings.TrimSpace(value)
		case "NSpid":
			s.nspid = strings.Fields(value)
		}
	}
	return s, nil
}
