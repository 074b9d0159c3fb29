package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/launch"
	"github.com/borrownet/borrownet/cmd/internal/nest"
	"github.com/borrownet/borrownet/cmd/internal/rundir"
	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/hook"
	"github.com/borrownet/borrownet/hook/supervisor"
	"github.com/borrownet/borrownet/hook/switchboard"
	"github.com/borrownet/borrownet/hook/view"
)

// supervise runs a program in the session at place and returns its exit code.
// When ctx is done it is ended. Where the rung of the session does not do for this
// program, and none was asked for, it is on one that does, and that is said.
func (a *app) supervise(ctx context.Context, place session.Place, p program) (int, error) {
	env := launch.Compose(os.Environ(), place, p.rules)
	a.report(env)
	if err := p.flags.save(env.Borrowed); err != nil {
		return exitOurs, err
	}
	p.outside = a.watchOutside()
	if s, ok := launch.ServerOf(p.argv); ok {
		p.outside.say(s)
	}
	rung := p.hook
	free := rung == "" || rung == hook.Auto
	if free {
		rung = place.Hook
	}
	for {
		code, err := a.runOn(ctx, place, rung, p, append(hook.WithoutLibrary(env.Env), p.extra...))
		other, why := instead(rung, err)
		if other == rung || !free {
			return code, err
		}
		a.ui.say("hook %s: %s", other, why)
		rung = other
	}
}

// instead returns the rung that does for a program what rung does not, after err,
// and why; rung itself if there is none.
func instead(rung hook.Rung, err error) (hook.Rung, string) {
	if u, ok := errors.AsType[*supervisor.UnsupportedError](err); ok && rung.Supervised() && hook.Built() == nil {
		return rung.WithoutListener(), u.Reason
	}
	if b, ok := errors.AsType[*hook.BlindError](err); ok && rung == hook.Preload {
		return hook.Netns, b.Path + " " + b.Why
	}
	return rung, ""
}

// runOn runs a command on a given rung.
func (a *app) runOn(ctx context.Context, place session.Place, rung hook.Rung, p program, env []string) (int, error) {
	cfg := supervisor.Config{
		Shim: []string{selfPath(), verbExec}, Argv: p.argv, Env: env,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Logger: a.logger(),
		AllowIOURing: a.ioURing && rung == hook.Seccomp,
		Connecting:   p.outside.connecting,
	}
	if a.ioURing && rung.Relayed() {
		return exitOurs, usage("--allow-io-uring: session "+place.Session+" has hook "+string(rung)+", where sockets of io_uring would be this machine's",
			"leave the flag out, or use a session with hook seccomp")
	}
	if err := show(&cfg, place, rung, p.flags); err != nil {
		return exitOurs, err
	}
	a.hideGoogle(&cfg, place, p.flags)
	done, err := equip(&cfg, place, rung)
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return exitOurs, err
	}
	if err != nil {
		return exitOurs, &fault.Error{Code: fault.Hook, Op: "use session", Object: place.Session, Reason: err.Error(), Hint: "borrownet status " + place.Session, Err: err}
	}
	defer done()
	code, err := supervisor.Run(ctx, cfg)
	if v, ok := errors.AsType[*supervisor.ViewError](err); ok && !p.flags.hostname {
		a.ui.warn("the pod's files are not at their places, variables that name them are changed instead: "+v.Err.Error(), "")
		cfg.View, cfg.Env = view.View{}, launch.Redirect(cfg.Env, place.Files)
		a.hideGoogle(&cfg, place, p.flags)
		code, err = supervisor.Run(ctx, cfg)
	}
	if _, ok := errors.AsType[*supervisor.CommandError](err); ok {
		a.ui.fail(&fault.Error{Op: "run", Reason: err.Error()})
		return code, exitError{code}
	}
	if err != nil {
		return code, hookFault(err)
	}
	return code, nil
}

// equip puts what the rung needs into cfg.
func equip(cfg *supervisor.Config, place session.Place, rung hook.Rung) (done func(), err error) {
	if rung == hook.Relay {
		cfg.Relay, err = switchboard.Dial(place.Socket)
		return func() {}, err
	}
	switch rung {
	case hook.Netns:
		files, err := installLibrary()
		if err != nil {
			return nil, err
		}
		cfg.Unhooked, cfg.Wrapper = true, []string{files.Enter, place.Socket}
	case hook.Preload, hook.PreloadRelay:
		if err := preload(cfg, place, rung); err != nil {
			return nil, err
		}
	}
	if rung.Relayed() {
		return func() {}, nil
	}
	return attend(cfg, place, rung)
}

// attend joins the command to the session's namespace: what it listens on is
// published for as long as it runs.
func attend(cfg *supervisor.Config, place session.Place, rung hook.Rung) (done func(), err error) {
	id, way, err := nest.Enter(place)
	if err != nil {
		return nil, err
	}
	if rung != hook.Seccomp {
		return func() { way.Close() }, nil
	}
	tree := &supervisor.Tree{}
	inner, err := nest.Listen(tree, cfg.Logger)
	if err != nil {
		return nil, errors.Join(err, way.Close())
	}
	cfg.Identity, cfg.Tree = id, tree
	cfg.Env = append(cfg.Env, inner.Env())
	return func() { inner.Close(); way.Close() }, nil
}

// installLibrary makes the preload library and what comes with it available.
func installLibrary() (hook.Installed, error) {
	var dirs []string
	if dir, err := rundir.Open(); err == nil {
		dirs = append(dirs, dir.String())
	}
	if cache, err := os.UserCacheDir(); err == nil {
		dirs = append(dirs, filepath.Join(cache, "borrownet"))
	}
	files, err := hook.Install(dirs...)
	if err != nil {
		err = &fault.Error{Code: fault.Hook, Op: "install the preload library", Reason: err.Error(), Hint: hook.Hint(err), Err: err}
	}
	return files, err
}

// preload puts the library into the command's environment.
func preload(cfg *supervisor.Config, place session.Place, rung hook.Rung) error {
	path, err := exec.LookPath(cfg.Argv[0])
	if ours := rung.Relayed() && filepath.Base(path) == ourName; err == nil && !ours {
		if err := hook.Visible(path); err != nil {
			return blindFault(err, rung)
		}
	}
	value, err := preloadValue(place, rung)
	if err != nil {
		return err
	}
	files, err := installLibrary()
	if err != nil {
		return err
	}
	cfg.Unhooked, cfg.Env = true, hook.WithLibrary(cfg.Env, files.Library, value)
	return nil
}

// ourName is the name of this program, which knows a session without the library.
const ourName = "borrownet"

// blindFault says that a program needs another rung.
func blindFault(err error, rung hook.Rung) error {
	f := &fault.Error{Code: fault.Hook, ID: "BN2104", Op: "hook the command", Reason: err.Error(), Err: err, Hint: "borrownet run --hook netns -- …"}
	if rung.Relayed() {
		f.Hint = "it needs user namespaces or seccomp user notification (in a container: --security-opt seccomp=unconfined); dynamically linked programs that are not written in Go work"
	}
	return f
}

// hookFault explains an error of the supervisor.
func hookFault(err error) error {
	return &fault.Error{Code: fault.Hook, ID: "BN2104", Op: "hook the command", Reason: hook.Reason(err), Hint: hook.Hint(err), Err: err}
}
