// Command lab runs a real single-node Kubernetes in private namespaces, with a
// developer's laptop beside it that reaches the API server and nothing else.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"github.com/borrownet/borrownet/integration/lab/internal/cni"
	"github.com/borrownet/borrownet/integration/lab/internal/enter"
	"github.com/borrownet/borrownet/integration/lab/internal/laptop"
	"github.com/borrownet/borrownet/integration/lab/internal/node"
	"github.com/borrownet/borrownet/integration/lab/internal/spec"
)

const usage = `usage:
  lab up      [flags]             start the shared lab and leave it running
  lab status                      say whether it runs, and how to use it
  lab run     [flags] [--] CMD…   run a command on the laptop, as its unprivileged user,
                                  in the shared lab or else in one of its own
  lab node    [--] CMD…           run a command on the node of the shared lab, as root
  lab down                        stop the shared lab

flags:
  --image FILE    import this image tar too (repeatable)
  --checkout DIR  source tree that the laptop sees (default: the one around the
                  working directory)
  --fresh         run: start a lab of its own also if the shared one runs
  --mesh          with Istio: the pods of namespace shop have sidecars, which talk mutual
                  TLS and nothing else
  --flux          with a GitOps controller, Flux's, that applies the sample workloads
  --docker        with a Docker engine on the laptop, Debian's
  --no-tun        run: the user may not open /dev/net/tun
  --nodes 2       with a second node; not with --mesh
  --node-first    the laptop and the control plane, which are other machines elsewhere,
                  get the processor time that the node leaves

The exit code of run and node is the command's, 125 if the lab itself failed.
When something fails, the logs of the components and the pods are kept and their
place is printed; LAB_ARTIFACTS=DIR chooses it. Everything needs root.
`

// failed is the exit code for a failure of the lab, not of the command.
const failed = 125

func main() {
	// The node dies with the thread that started it, so that has to be the one
	// that lives as long as the process.
	runtime.LockOSThread()
	if filepath.Base(os.Args[0]) == cni.Name {
		os.Exit(cni.Main(os.Stdin, os.Stdout))
	}
	code, err := run(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		if code == 0 {
			code = failed
		}
	}
	os.Exit(code)
}

func run(args []string) (code int, err error) {
	if len(args) == 0 || args[0] == "-h" || args[0] == "--help" || args[0] == "help" {
		fmt.Print(usage)
		return 0, nil
	}
	verb, args := args[0], args[1:]
	if verb == enter.ExecVerb {
		return failed, enter.Exec(args)
	}
	if os.Geteuid() != 0 {
		return failed, errors.New("namespaces and mounts of a node need root (try sudo)")
	}
	switch verb {
	case node.InitVerb, node.NodeVerb, laptop.Verb:
		return stage(verb, args)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	o, err := parse(verb, args)
	if err != nil {
		return failed, err
	}
	switch verb {
	case "up":
		return 0, up(ctx, o)
	case holdVerb:
		return 0, hold(ctx, o)
	case "down":
		return 0, down(ctx, o)
	case "status":
		return showStatus(o)
	case "run":
		return runCommand(ctx, o)
	case "node":
		return nodeCommand(o)
	}
	return failed, fmt.Errorf("unknown command %s\n%s", strconv.Quote(verb), usage)
}

// stage is this binary inside of the lab's namespaces.
func stage(verb string, args []string) (code int, err error) {
	if len(args) != 1 {
		return failed, fmt.Errorf("%s: want the state directory", verb)
	}
	s, err := spec.Load(args[0])
	if err != nil {
		return failed, err
	}
	switch verb {
	case laptop.Verb:
		return failed, laptop.Main(s)
	case node.InitVerb:
		report := node.NewReporter(s)
		code, err := node.Init(s, []string{"lab", node.NodeVerb, s.Dir})
		if err != nil {
			report.Error(err)
		}
		return code, err
	default:
		report := node.NewReporter(s)
		if err := node.Run(context.Background(), s, report); err != nil {
			report.Error(err)
		}
		// The host side has a look at what went wrong and then kills the node.
		wait := make(chan os.Signal, 1)
		signal.Notify(wait, syscall.SIGTERM)
		<-wait
		return failed, nil
	}
}
