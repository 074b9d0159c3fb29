package main

import (
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
		cfg.View = view.View{Binds: place.Files, Scratch: place.Scratch}
	}
	if flags.hostname {
		cfg.View.Hostname = place.Hostname
	}
	return nil
}
