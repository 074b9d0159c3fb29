package main

import (
	"os"
	"path/filepath"

	"github.com/borrownet/borrownet/cmd/internal/launch"
	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/hook"
	"github.com/borrownet/borrownet/hook/supervisor"
	"github.com/borrownet/borrownet/hook/view"
)

// show gives the command the pod's files at the pod's paths and, if that is
// asked for, the pod's name. That takes a user namespace, which is forbidden where
// flows are relayed and which cannot be had besides the session's own: on rungs
// other than seccomp variables that name the paths are changed instead.
func show(cfg *supervisor.Config, place session.Place, rung hook.Rung, flags envFlags) error {
	if rung != hook.Seccomp && flags.hostname {
		return usage("--hostname: not with hook "+string(rung), "leave the flag out, or use a session with hook seccomp")
	}
	if rung != hook.Seccomp || flags.noFiles {
		cfg.Env = launch.Redirect(cfg.Env, place.Files)
	} else {
		cfg.View = view.View{Binds: place.Files, Scratch: place.Scratch, Own: view.Guarded()}
	}
	if flags.hostname {
		cfg.View.Hostname = place.Hostname
	}
	return nil
}

// hideGoogle hides the person's own credentials from Google's libraries: they prefer
// them to the identity of the machine that they are on, and no variable names them.
func (a *app) hideGoogle(cfg *supervisor.Config, place session.Place, flags envFlags) {
	home := launch.Lookup(cfg.Env, "HOME")
	if !place.Google || flags.keepIdentity || home == "" {
		return
	}
	dir := filepath.Join(home, ".config", "gcloud")
	if _, err := os.Stat(filepath.Join(dir, "application_default_credentials.json")); err != nil {
		return
	}
	if len(cfg.View.Binds) == 0 {
		a.ui.warn("Google's libraries will take your own credentials in "+dir+" and not the pod's identity", "add --env HOME=/nonexistent to the command, or move them away")
		return
	}
	cfg.View.Binds = append(cfg.View.Binds, view.Bind{Source: place.Scratch, Target: dir})
	a.ui.say("hidden from the command, which is the pod: %s (--local-identity leaves it)", dir)
}
