package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/cmd/internal/daemon"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/launch"
	"github.com/borrownet/borrownet/cmd/internal/rundir"
	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/hook"
)

// shells are those that env knows; every other is taken for sh.
var shells = []string{"bash", "zsh", "fish", "sh", "dash", "ksh"}

// envCommand are the flags of env.
type envCommand struct {
	session, shell       string
	unset, follow, asked bool
	docker               bool
}

func (a *app) env() *cobra.Command {
	var e envCommand
	cmd := &cobra.Command{
		Use: "env [--session NAME | --unset | --follow]", Short: "make a shell that is running be the pod", Long: envLong, Example: envExample, Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			if e.docker {
				return a.printDockerArgs(e.session)
			}
			return a.printEnv(e)
		},
	}
	f := cmd.Flags()
	f.StringVar(&e.session, "session", "", "`NAME` of the session (default: the only one there is)")
	f.StringVar(&e.shell, "shell", "", "`SHELL` that reads the output: "+strings.Join(shells, ", ")+" (default: the one that starts this)")
	f.BoolVar(&e.unset, "unset", false, "undo it")
	f.BoolVar(&e.follow, "follow", false, "print what a start-up file needs for shells to follow up and down")
	f.BoolVar(&e.docker, "docker", false, "print arguments of docker run instead, by which a container has the pod's network, environment and files")
	f.BoolVar(&e.asked, "follow-step", false, "")
	if err := f.MarkHidden("follow-step"); err != nil {
		panic(err) // the flag exists: unreachable
	}
	cmd.MarkFlagsMutuallyExclusive("session", "unset", "follow", "follow-step")
	for _, other := range []string{"unset", "follow", "follow-step", "shell"} { // which go together
		cmd.MarkFlagsMutuallyExclusive("docker", other)
	}
	a.completeSessions(cmd)
	return cmd
}

func (a *app) printEnv(e envCommand) error {
	if e.shell == "" {
		e.shell = callingShell()
	}
	if !slices.Contains(shells, e.shell) {
		return usage("--shell "+e.shell+": not "+strings.Join(shells, ", "), "borrownet env --shell bash")
	}
	if e.follow {
		return a.printFollow(e.shell)
	}
	to := os.Environ()
	if !e.unset {
		place, err := a.envPlace(e)
		switch {
		case err == nil:
			if to, err = a.shellEnv(place); err != nil {
				return err
			}
		case !e.asked:
			return err
		case !noneUp(err):
			a.ui.detail("this shell follows no session: %s", fault.From(err).Error())
		}
	}
	dialect := launch.DialectOf(e.shell)
	return a.ui.raw(dialect.Change(a.found, to))
}

// noneUp reports whether err only says that there is no session.
func noneUp(err error) bool {
	if err == nil {
		return false
	}
	return errors.Is(err, daemon.ErrNotRunning) || fault.From(err).Code == fault.NoSession
}

// envPlace finds the session that a shell is to be part of. One that follows stays
// with the session that it has.
func (a *app) envPlace(e envCommand) (session.Place, error) {
	client, dir, err := a.client()
	if err != nil {
		return session.Place{}, err
	}
	defer dir.Remove()
	if e.asked && a.follows != "" {
		if place, err := a.place(client, a.follows); err == nil {
			return place, nil
		}
	}
	picked, err := a.pick(client, e.session)
	if err != nil {
		return session.Place{}, err
	}
	return a.place(client, picked)
}

// shellEnv returns the environment of a shell whose programs are of the session.
func (a *app) shellEnv(place session.Place) ([]string, error) {
	if err := takesPrograms(place.Session, place.Hook); err != nil {
		return nil, err
	}
	files, err := installLibrary()
	if err != nil {
		return nil, err
	}
	value, err := preloadValue(place, place.Hook)
	if err != nil {
		return nil, &fault.Error{Code: fault.Hook, Op: "use session", Object: place.Session, Reason: err.Error(), Err: err}
	}
	env := launch.Compose(os.Environ(), place, launch.Rules{})
	a.report(env)
	return launch.WithUndo(os.Environ(), hook.WithLibrary(env.Env, files.Library, value)), nil
}

// preloadValue tells the library about a session that is on the given kind of rung.
func preloadValue(place session.Place, rung hook.Rung) (string, error) {
	helper := place.Socket
	if rung.Relayed() {
		helper = ""
	}
	return hook.PreloadValue(place.Broker, helper)
}

// printFollow prints what makes a shell follow up and down.
func (a *app) printFollow(shell string) error {
	text := ""
	dir, err := rundir.Open()
	if err != nil {
		return err
	}
	dir.Remove()
	if text = launch.Follow(shell, dir.String(), a.argv[0]); text == "" {
		return usage("--follow: "+shell+" has nothing that runs before each prompt", "bash, zsh and fish do")
	}
	return a.ui.raw(text)
}

// callingShell is the shell that this process was started by, as far as that shows.
func callingShell() string {
	comm, err := os.ReadFile("/proc/" + strconv.Itoa(os.Getppid()) + "/comm")
	if name := strings.TrimPrefix(strings.TrimSpace(string(comm)), "-"); err == nil && slices.Contains(shells, name) {
		return name
	}
	if name := filepath.Base(os.Getenv("SHELL")); slices.Contains(shells, name) {
		return name
	}
	return "sh"
}

// leaveShellEnv gives this process the environment that it would have without a
// `borrownet env` in its shell: what it does itself is the laptop's business. It
// remembers what it found, and the session.
func (a *app) leaveShellEnv() {
	a.found = os.Environ()
	original, changed := launch.Original(a.found)
	if !changed {
		return
	}
	a.follows = os.Getenv(launch.SessionVar)
	os.Clearenv()
	for _, kv := range original {
		name, value, _ := strings.Cut(kv, "=")
		os.Setenv(name, value)
	}
}
