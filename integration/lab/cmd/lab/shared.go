package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/integration/lab/internal/artifacts"
	"github.com/borrownet/borrownet/integration/lab/internal/host"
	"github.com/borrownet/borrownet/integration/lab/internal/laptop"
	"github.com/borrownet/borrownet/integration/lab/internal/spec"
	"github.com/borrownet/borrownet/integration/lab/internal/state"
)

const (
	// holdVerb is the process that `lab up` leaves behind.
	holdVerb = "__hold"
	// holdReady is its last line on the way up.
	holdReady = "ready"
	stopLimit = 3 * time.Minute
)

// up starts a process that holds the shared lab and waits until it is ready.
func up(ctx context.Context, o *options) error {
	checkout, err := o.findCheckout()
	if err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe", append([]string{holdVerb}, o.holdArgs(checkout)...)...)
	// A session of its own: it outlives the terminal.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if lines.Text() == holdReady {
			_, err := showStatus(o)
			return err
		}
		fmt.Fprintln(os.Stderr, "lab:", lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("the lab is not up: %w", err)
	}
	return errors.New("the lab is not up")
}

// holdArgs are the arguments by which the process behind up gets the options that say
// what a lab is like.
func (o *options) holdArgs(checkout string) []string {
	args := []string{"--checkout", checkout}
	for _, f := range []struct {
		flag string
		on   bool
	}{{"--mesh", o.mesh}, {"--flux", o.flux}, {"--docker", o.docker}, {"--node-first", o.nodeFirst}} {
		if f.on {
			args = append(args, f.flag)
		}
	}
	args = append(args, "--nodes", strconv.Itoa(o.nodes))
	for _, image := range o.images {
		args = append(args, "--image", image)
	}
	return args
}

// hold is the process behind up: it starts the lab and keeps it until it is
// told to stop or the lab ends. Its stdout is a pipe to up until it is ready.
func hold(ctx context.Context, o *options) error {
	say := func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
	l, err := startLab(ctx, o, state.Shared, func(step string) { say("%s", step) })
	if err != nil {
		say("%v", err)
		return err
	}
	say(holdReady)
	if err := detach(l.Spec.Path("log", "hold.log")); err != nil {
		return errors.Join(err, l.Stop())
	}
	select {
	case <-ctx.Done():
		return l.Stop()
	case <-l.Broken():
		_, err := artifacts.Collect(ctx, l.Spec, l.NodePID(), o.artifacts())
		return errors.Join(l.Err(), err, l.Stop())
	}
}

// detach sends further output to a file, so that the reader of up's pipe sees
// its end.
func detach(file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, fd := range []int{1, 2} {
		if err := unix.Dup3(int(f.Fd()), fd, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	return nil
}

// startLab starts the lab id. When that fails nothing is left of it but the
// artifacts.
func startLab(ctx context.Context, o *options, id string, progress func(string)) (*host.Lab, error) {
	st, err := state.Create(o.labs(), id)
	if err != nil {
		return nil, err
	}
	s, err := o.newSpec(st)
	if err != nil {
		return nil, errors.Join(err, st.Remove())
	}
	l, err := host.Start(ctx, s, st, progress)
	if err == nil {
		return l, nil
	}
	if ctx.Err() == nil { // else it was given up, not broken
		dir, collectErr := artifacts.Collect(context.WithoutCancel(ctx), s, l.NodePID(), o.artifacts())
		progress("logs are kept in " + dir)
		if collectErr != nil {
			progress("some artifacts are missing: " + strings.ReplaceAll(collectErr.Error(), "\n", "; "))
		}
	}
	return nil, errors.Join(err, l.Stop())
}

// down stops the shared lab and sweeps what dead ones left.
func down(ctx context.Context, o *options) error {
	_, r, err := state.Find(o.labs(), state.Shared)
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintln(os.Stderr, "lab: no lab is up")
		return state.Sweep(o.labs())
	}
	if err != nil {
		return err
	}
	begun := time.Now()
	if err := syscall.Kill(r.Holder, syscall.SIGTERM); err != nil {
		return os.NewSyscallError("kill", err)
	}
	ctx, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, _, err := state.Find(o.labs(), state.Shared); errors.Is(err, fs.ErrNotExist) {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("stop process %d: %w", r.Holder, ctx.Err())
		}
	}
	fmt.Fprintf(os.Stderr, "lab: down after %.1f s\n", time.Since(begun).Seconds())
	return state.Sweep(o.labs())
}

// showStatus tells people how to use the shared lab; its code is 1 when there
// is none.
func showStatus(o *options) (code int, err error) {
	dir, r, err := state.Find(o.labs(), state.Shared)
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Println("no lab is up (start one with: make lab-up)")
		return 1, nil
	}
	if err != nil {
		return failed, err
	}
	s, err := spec.Load(dir)
	if err != nil {
		return failed, err
	}
	writeStatus(os.Stdout, s, r)
	return 0, nil
}

func writeStatus(w io.Writer, s spec.Spec, r state.Record) {
	kind := "the lab"
	if s.Mesh {
		kind = "the meshed lab"
	}
	if s.Flux {
		kind += " with Flux"
	}
	fmt.Fprintf(w, `%s is up since %s

  on the laptop   KUBECONFIG=%s, user dev, namespace shop
  enter it        bin/lab run bash
  run something   make lab-run CMD='kubectl get pods'
  on the node     bin/lab node kubectl get pods -A
  stop it         make lab-down
`, kind, r.Started.Format("15:04:05"), laptop.Kubeconfig)
}
