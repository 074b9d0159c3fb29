package main

import (
	"github.com/borrownet/borrownet/cmd/internal/launch"
	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/hook/supervisor"
	"github.com/borrownet/borrownet/hook/view"
)

// show gives the command the pod's files at the pod's paths and, if that is
// asked for, the pod's name. Without namespaces, which the relay rung is for,
// variables that name the paths are changed instead.
func (a *app) show(cfg *supervisor.Config, place session.Place, flags envFlags) error {
	relay := place.Hook == session.Relay
	if relay && flags.hostname {
		return usage("--hostname: session "+place.Session+" has hook relay, which is for where namespaces are forbidden", "leave the flag out")
	}
	if relay || flags.noFiles {
		cfg.Env = launch.Redirect(cfg.Env, place.Files)
	} else {
		cfg.View = view.View{Binds: place.Files, Scratch: place.Scratch}
	}
	if flags.hostname {
		cfg.View.Hostname = place.Hostname
	}
	return nil
}
