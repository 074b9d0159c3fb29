package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/integration/lab/internal/artifacts"
	"github.com/borrownet/borrownet/integration/lab/internal/cgroup"
	"github.com/borrownet/borrownet/integration/lab/internal/cluster"
	"github.com/borrownet/borrownet/integration/lab/internal/enter"
	"github.com/borrownet/borrownet/integration/lab/internal/host"
	"github.com/borrownet/borrownet/integration/lab/internal/laptop"
	"github.com/borrownet/borrownet/integration/lab/internal/spec"
	"github.com/borrownet/borrownet/integration/lab/internal/state"
)

// runCommand runs o.cmd on the laptop of the shared lab or of one of its own.
func runCommand(ctx context.Context, o *options) (code int, err error) {
	dir, r, err := state.Find(o.labs(), state.Shared)
	if err == nil && !o.fresh {
		s, err := spec.Load(dir)
		if err != nil {
			return failed, err
		}
		if o.mesh && !s.Mesh {
			return failed, errors.New("the lab that is up has no mesh (stop it with make lab-down, or run with --fresh)")
		}
		if o.flux && !s.Flux {
			return failed, errors.New("the lab that is up has no Flux (stop it with make lab-down, or run with --fresh)")
		}
		if o.docker && !s.Docker {
			return failed, errors.New("the laptop of the lab that is up has no Docker (stop it with make lab-down, or run with --fresh)")
		}
		if o.nodes > s.Nodes {
			return failed, errors.New("the lab that is up has one node (stop it with make lab-down, or run with --fresh)")
		}
		if err := o.refreshImages(s, r); err != nil {
			return failed, err
		}
		return onLaptop(ctx, o, s, r)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return failed, err
	}
	progress := func(step string) { fmt.Fprintln(os.Stderr, "lab:", step) }
	l, err := startLab(ctx, o, fmt.Sprintf("run-%d", os.Getpid()), progress)
	if err != nil {
		return failed, err
	}
	over := make(chan struct{})
	var watch sync.WaitGroup
	watch.Add(1)
	go func() { // ends with the command
		defer watch.Done()
		killIfBroken(ctx, o, l, over)
	}()
	code, err = onLaptop(ctx, o, l.Spec, l.Record)
	close(over)
	watch.Wait()
	select {
	case <-l.Broken():
		code, err = failed, errors.Join(err, fmt.Errorf("the lab broke: %w", l.Err()))
	default:
	}
	if stopErr := l.Stop(); stopErr != nil {
		err = errors.Join(err, fmt.Errorf("take the lab down: %w", stopErr))
	}
	return code, err
}

// killIfBroken spares a command the wait for a cluster that is not there.
func killIfBroken(ctx context.Context, o *options, l *host.Lab, over <-chan struct{}) {
	select {
	case <-l.Broken():
		keepArtifacts(ctx, o, l.Spec, l.NodePID())
		l.Kill()
	case <-over:
	}
}

func keepArtifacts(ctx context.Context, o *options, s spec.Spec, nodePID int) {
	dir, err := artifacts.Collect(context.WithoutCancel(ctx), s, nodePID, o.artifacts())
	fmt.Fprintf(os.Stderr, "lab: logs, events and pod logs are kept in %s\n", dir)
	if err != nil {
		fmt.Fprintf(os.Stderr, "lab: some of them are missing: %v\n", err)
	}
}

// onLaptop runs o.cmd as the laptop's user. If that fails, and nobody sits at a
// terminal to look for himself, the artifacts are kept.
func onLaptop(ctx context.Context, o *options, s spec.Spec, r state.Record) (code int, err error) {
	cwd, err := os.Getwd()
	if err != nil {
		return failed, err
	}
	var group *os.File
	if s.NodeFirst {
		if group, err = cgroup.OpenIdle(s.Cgroup); err != nil {
			return failed, err
		}
		defer group.Close()
	}
	code, err = enter.Command{
		PID:      r.Laptop,
		Argv:     o.cmd,
		Env:      laptop.Env(s),
		Dir:      cwd,
		Fallback: laptop.Home,
		UID:      spec.UserID,
		HideTUN:  o.noTUN,
		Group:    group,
		Stdin:    os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	}.Run()
	if err != nil {
		err = fmt.Errorf("run %s on the laptop: %w", o.cmd[0], err)
	}
	if code == 0 && err == nil || isTerminal(os.Stdin) {
		return code, err
	}
	if _, statErr := os.Stat(fmt.Sprintf("/proc/%d", r.Node)); statErr == nil { // else they are kept already
		keepArtifacts(ctx, o, s, r.Node)
	}
	return code, err
}

// nodeCommand runs o.cmd as root in the namespaces of the shared lab's node.
func nodeCommand(o *options) (code int, err error) {
	dir, r, err := state.Find(o.labs(), state.Shared)
	if errors.Is(err, fs.ErrNotExist) {
		return failed, errors.New("no lab is up (start one with: make lab-up)")
	}
	if err != nil {
		return failed, err
	}
	s, err := spec.Load(dir)
	if err != nil {
		return failed, err
	}
	c := onNode(s, r, o.cmd)
	c.Stdin, c.Stdout = os.Stdin, os.Stdout
	return c.Run()
}

// onNode is argv as root on the node, without input and output.
func onNode(s spec.Spec, r state.Record, argv []string) enter.Command {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "PATH=") || strings.HasPrefix(kv, "KUBECONFIG=")
	})
	cwd, _ := os.Getwd() // without one, at the root
	return enter.Command{
		PID:  r.Node,
		Argv: argv,
		Env: append(env,
			"PATH="+s.Kit+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"KUBECONFIG="+s.Path("kubeconfig", cluster.AdminConfig)),
		Dir: cwd, Fallback: "/",
		Stderr: os.Stderr,
	}
}

// refreshImages imports images that were built after the shared lab started.
func (o *options) refreshImages(s spec.Spec, r state.Record) error {
	images, err := o.allImages(s.Checkout)
	if err != nil {
		return err
	}
	for _, image := range images {
		info, err := os.Stat(image)
		if err != nil {
			return err
		}
		if info.ModTime().Before(r.Started) {
			continue
		}
		if err := importImage(s, r, "/run/containerd/containerd.sock", image); err != nil {
			return err
		}
		pid, err := os.ReadFile(s.OfSecond().Path(spec.PIDFile))
		if errors.Is(err, fs.ErrNotExist) {
			continue // there is no second node, or its power is off
		}
		if err != nil {
			return err
		}
		if err := importImage(s, r, "/proc/"+string(pid)+"/root/run/containerd/containerd.sock", image); err != nil {
			return err
		}
	}
	return nil
}

// importImage gives an image to the containerd that the node has at the socket.
func importImage(s spec.Spec, r state.Record, socket, image string) error {
	code, err := onNode(s, r, []string{"ctr", "--address", socket, "-n", "k8s.io", "images", "import", "--no-unpack", image}).Run()
	if err == nil && code != 0 {
		err = fmt.Errorf("import %s: exit code %d", image, code)
	}
	return err
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
