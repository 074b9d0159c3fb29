package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/borrownet/borrownet/integration/lab/internal/cgroup"
	"github.com/borrownet/borrownet/integration/lab/internal/cluster"
	"github.com/borrownet/borrownet/integration/lab/internal/spec"
)

// The switches of the second machine's power, as signals to the first's NodeVerb.
const (
	powerOn  = syscall.SIGUSR1
	powerOff = syscall.SIGUSR2
)

// tidy bounds the wait for the control groups of a machine whose power is off.
const tidy = time.Minute

// A second is the second machine, as the first, which runs it, sees it. Its disk, a directory
// of the first's, outlives its power.
type second struct {
	spec  spec.Spec
	lab   *components
	power chan os.Signal // never closed
}

// addSecond starts the second machine and returns when pods are placed there.
func addSecond(ctx context.Context, s spec.Spec, c *components, ca *cluster.Authority, client *cluster.Client) error {
	m := &second{spec: s.OfSecond(), lab: c, power: make(chan os.Signal, 1)}
	if err := ca.WriteNode(m.spec.Dir, m.spec.Machine()); err != nil {
		return err
	}
	if err := m.spec.Save(); err != nil {
		return err
	}
	signal.Notify(m.power, powerOn, powerOff)
	go func() { // ends with the first machine
		if err := m.run(ctx); err != nil && ctx.Err() == nil {
			c.end(fmt.Errorf("the second machine: %w", err))
		}
	}()
	return cluster.Wait(ctx, limit, "the second node", func(ctx context.Context) error {
		return client.Schedulable(ctx, m.spec.Machine())
	})
}

// run keeps the machine on or off, as it is told, and returns what broke it.
func (m *second) run(ctx context.Context) error {
	for {
		if err := m.on(ctx); err != nil {
			return err
		}
		if err := m.await(ctx, powerOn); err != nil {
			return err
		}
	}
}

// await waits for the switch to be turned.
func (m *second) await(ctx context.Context, to os.Signal) error {
	for {
		select {
		case s := <-m.power:
			if s == to {
				return nil
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// on has the machine run until its power is off, which ends everything in its namespaces
// at once.
func (m *second) on(ctx context.Context) error {
	if err := cgroup.Create(m.spec.Cgroup); err != nil {
		return err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe", InitVerb, m.spec.Dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET |
			syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
	}
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{write} // ReportFD
	wired, err := cmd.StdinPipe()
	if err != nil {
		return errors.Join(err, read.Close(), write.Close())
	}
	err = cmd.Start()
	write.Close()
	if err != nil {
		return errors.Join(fmt.Errorf("start: %w", err), read.Close())
	}
	over := make(chan struct{})
	go func() { // ends with the machine
		defer close(over)
		m.listen(read)
		_ = cmd.Wait() // that it was killed is no news
	}()
	if err = m.plugIn(ctx, cmd.Process.Pid, wired); err == nil {
		err = m.awaitEnd(ctx, over)
	}
	_ = cmd.Process.Kill() // it may have ended
	<-over
	return errors.Join(err, os.Remove(m.spec.Path(spec.PIDFile)), cutSecond(ctx), cgroup.Remove(m.spec.Cgroup, tidy))
}

// plugIn makes the wire to the machine whose process 1 is pid, and lets it go on.
func (m *second) plugIn(ctx context.Context, pid int, wired io.Closer) error {
	if err := os.WriteFile(m.spec.Path(spec.PIDFile), []byte(strconv.Itoa(pid)), 0o600); err != nil {
		return err
	}
	if err := connectSecond(ctx, pid); err != nil {
		return err
	}
	return wired.Close()
}

// awaitEnd waits for the power to be turned off, and for a machine that breaks.
func (m *second) awaitEnd(ctx context.Context, over <-chan struct{}) error {
	off, cancel := context.WithCancel(ctx)
	defer cancel()
	turned := make(chan error, 1)
	go func() { turned <- m.await(off, powerOff) }() // ends with off
	select {
	case err := <-turned:
		return err
	case <-over:
		return errors.New("its process 1 has ended")
	}
}

// listen reads what the machine reports to its end.
func (m *second) listen(r io.ReadCloser) {
	defer r.Close()
	_ = Events(r, func(e Event) { // an end of any kind is that of the machine
		if e.Err != nil {
			m.lab.end(fmt.Errorf("the second machine: %w", e.Err))
		}
	})
}

// join makes the second machine, in its namespaces, a node of the cluster, once the first
// has made the wire between the two.
func join(ctx context.Context, s spec.Spec, c *components) error {
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil { // until the wire is there
		return err
	}
	if err := setUpNetwork(ctx, secondLinks); err != nil {
		return err
	}
	if err := c.equip(); err != nil {
		return err
	}
	// What its disk has it keeps when its power is off.
	kept := s.Path("imported")
	if _, err := os.Stat(kept); err != nil {
		if err := importImages(ctx, s); err != nil {
			return err
		}
		if err := write(kept, nil); err != nil {
			return err
		}
	}
	return c.agents()
}
