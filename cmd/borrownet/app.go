package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/cmd/internal/container"
	"github.com/borrownet/borrownet/cmd/internal/daemon"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/launch"
	"github.com/borrownet/borrownet/cmd/internal/rundir"
)

// The verbs that borrownet starts itself with.
const (
	verbDaemon = "__daemon"     // daemon.Run
	verbNetns  = "__netns"      // netns.Main: the helper that owns a session's namespace
	verbGuest  = container.Verb // netns.GuestMain: the process of a container whose network is a session's
	verbExec   = "__exec"       // supervisor.ShimMain: installs the hook, becomes the command
)

// app is one run of the command line.
type app struct {
	argv    []string
	version string
	ui      *ui
	found   []string // the environment that this process was started with
	follows string   // the session that its shell is part of by env, or ""

	ioURing bool // commands may use io_uring
}

// allowIOURing adds the flag to a command that runs others.
func (a *app) allowIOURing(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.ioURing, "allow-io-uring", false, "allow io_uring, whose own sockets (IORING_OP_SOCKET) are this machine's and not the pod's")
}

func newApp(argv []string, version string) *app {
	a := &app{argv: argv, version: version, ui: newUI(os.Stdout, os.Stderr)}
	a.leaveShellEnv()
	return a
}

// exitError ends the program with a code that is not ours to explain.
type exitError struct{ code int }

func (exitError) Error() string { return "exit code of the command" }

// execute runs the command line and returns the exit code.
func (a *app) execute() int {
	root := a.root()
	root.SetArgs(a.argv[1:])
	err := root.Execute()
	var exit exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.code
	}
	f, ok := errors.AsType[*fault.Error](err)
	if !ok {
		f = a.misuse(err)
	}
	a.ui.fail(f)
	return int(f.Code)
}

// misuse explains an error of the command line's own grammar.
func (a *app) misuse(err error) *fault.Error {
	if errors.Is(err, context.Canceled) {
		return fault.From(err)
	}
	text, _, _ := strings.Cut(err.Error(), "\n") // cobra adds suggestions below
	return &fault.Error{Code: fault.Usage, Reason: text, Err: err, Hint: a.name() + " help"}
}

// name is how the person called the program: as a kubectl plugin or by itself.
func (a *app) name() string {
	if filepath.Base(a.argv[0]) == kubectlPlugin {
		return "kubectl borrownet"
	}
	return "borrownet"
}

// usage is a mistake on the command line.
func usage(reason, hint string) error {
	return &fault.Error{Code: fault.Usage, Reason: reason, Hint: hint}
}

// root builds the command tree.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "borrownet",
		Short:         "let a program on this machine be a pod",
		Long:          rootLong,
		SilenceErrors: true,
		SilenceUsage:  true,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: a.name()},
		CompletionOptions: cobra.CompletionOptions{
			DisableDefaultCmd: true,
		},
	}
	root.PersistentFlags().BoolVarP(&a.ui.verbose, "verbose", "v", false, "say more about what happens")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(err.Error(), cmd.CommandPath()+" --help")
	})
	root.SetUsageTemplate(usageTemplate)
	root.SetHelpTemplate(helpTemplate)
	root.SetHelpCommand(a.help(root))
	root.AddCommand(
		a.up(), a.run(), a.shell(), a.env(), a.forward(), a.status(), a.ls(), a.down(), a.rbac(), a.policy(), a.compose(), a.doctor(), a.gather(), a.explain(), a.demo(), a.versionCommand(), a.completion(), exitCodes(), errorNames(), variables(), a.tree(),
		a.record(), a.replay(), a.tail(), a.cp(),
	)
	return root
}

// client returns a client of the user's daemon.
func (a *app) client() (*daemon.Client, *rundir.Dir, error) {
	dir, err := rundir.Open()
	if err != nil {
		return nil, nil, err
	}
	return daemon.NewClient(daemon.ClientConfig{
		Dir: dir, Version: a.version, Keep: keptFile,
		Spawn: func(ctx context.Context) error { return spawn(ctx, dir) },
	}), dir, nil
}

// spawn starts the user's daemon. In a borrowed shell it must not: the daemon's
// own connections would be the pod's.
func spawn(ctx context.Context, dir *rundir.Dir) error {
	if outer := os.Getenv(launch.SessionVar); outer != "" {
		return &fault.Error{Code: fault.SessionLost, Op: "start the daemon", Reason: "this shell is borrowed by session " + outer + ", whose daemon has ended",
			Hint: "leave it with exit, then try again"}
	}
	return daemon.Spawn(ctx, dir, []string{selfPath(), verbDaemon})
}

// selfPath is how this very program is started again, also when its file was
// replaced meanwhile.
func selfPath() string {
	const self = "/proc/self/exe"
	path, err := os.Executable()
	if runtime.GOOS != "linux" {
		return path // which nothing can tell from one that took its place
	}
	if err != nil {
		return self
	}
	there, err := os.Stat(path)
	if err != nil {
		return self
	}
	here, err := os.Stat(self)
	if err != nil || !os.SameFile(there, here) {
		return self
	}
	return path
}
