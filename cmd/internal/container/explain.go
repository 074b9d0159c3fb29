package container

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/borrownet/borrownet/cmd/internal/engine"
	"github.com/borrownet/borrownet/cmd/internal/fault"
)

// askTimeout bounds a question to the engine.
const askTimeout = 10 * time.Second

// Find returns the engine that the environment env selects, after asking it
// whether it can be used.
func Find(ctx context.Context, env []string) (*engine.Client, error) {
	socket, remote := engine.Find(env)
	if remote != "" {
		return nil, &fault.Error{Code: fault.Engine, ID: "BN2201", Op: "use the container engine at", Object: remote, Reason: "it is not on this machine, and a packet device cannot leave its machine",
			Hint: "DOCKER_HOST=unix:///var/run/docker.sock, or run borrownet on the engine's machine"}
	}
	e := engine.New(socket)
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	info, err := e.Info(ctx)
	if err != nil {
		return nil, withOthers(Explain("reach the container engine at", socket, e, err), engine.Others(env, socket))
	}
	if info.OperatingSystem == "Docker Desktop" {
		return nil, &fault.Error{Code: fault.Engine, ID: "BN2201", Op: "use the container engine at", Object: socket, Reason: "its containers run in a virtual machine, and a packet device cannot leave its machine",
			Hint: "use an engine on this machine: docker context use default"}
	}
	return e, nil
}

// withOthers tells of engines that there are instead of one that is not there.
func withOthers(err error, others []string) error {
	f, ok := errors.AsType[*fault.Error](err)
	if !ok || len(others) == 0 || !isAbsent(f.Err) {
		return err
	}
	f.Hint = "there is an engine's socket at " + others[0] + ", of a kind that was not tried: DOCKER_HOST=unix://" + others[0] + "; is Docker installed and running? sudo systemctl start docker"
	return f
}

// isAbsent reports whether err says that no engine listens.
func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// Explain makes a fault of what came of a call to the engine.
func Explain(op, object string, e *engine.Client, err error) error {
	f := &fault.Error{Code: fault.Engine, ID: "BN2202", Op: op, Object: object, Reason: err.Error(), Err: err}
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case isAbsent(err):
		f.Reason = "no engine listens there"
		f.Hint = "is Docker installed and running? sudo systemctl start docker; if it listens elsewhere, say so: DOCKER_HOST=unix:///PATH"
	case errors.Is(err, fs.ErrPermission):
		f.Reason = "this user may not use it"
		f.Hint = "sudo usermod -aG docker $USER, then log in again; until then: newgrp docker"
	case errors.Is(err, context.DeadlineExceeded):
		f.Reason = "it does not answer"
		f.Hint = "docker info; if that hangs too: sudo systemctl restart docker"
	default:
		f.Hint = "docker info; the engine's log says more: journalctl -u docker"
		if kind := untried(e); kind != "" {
			f.Hint = untriedHint(kind)
		}
	}
	return f
}

// untried asks the engine what it is, and returns that if borrownet was never tried with such engines.
func untried(e *engine.Client) string {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	info, err := e.Info(ctx)
	switch {
	case err != nil:
		return ""
	case info.BuildahVersion != "":
		return "podman"
	case slices.Contains(info.SecurityOptions, "name=rootless"):
		return "rootless"
	}
	return ""
}

func untriedHint(kind string) string {
	return "this engine is " + kind + ", which was not tried; with the system's Docker: docker context use default, and DOCKER_HOST unset"
}

// explainStart makes a fault of a container that did not start.
func (s Spec) explainStart(e *engine.Client, err error) error {
	text := err.Error()
	f := &fault.Error{Code: fault.Engine, ID: "BN2203", Op: "start container", Object: s.Name, Reason: text, Err: err}
	switch {
	// The engine has no codes for these.
	case strings.Contains(text, "port is already allocated"), strings.Contains(text, "address already in use"):
		f.Reason = "a port that is to be published is taken: " + text
		f.Hint = "see who has it: ss -ltnp; or publish another one: --publish HOST:PORT"
	case strings.Contains(text, TUN):
		f.Hint = "sudo modprobe tun && sudo chmod 0666 " + TUN
	default:
		return Explain(f.Op, f.Object, e, err)
	}
	return f
}

// NoGuest explains that a container runs but did not join the session.
func NoGuest(e *engine.Client, name string, err error) error {
	f := &fault.Error{Code: fault.Engine, ID: "BN2203", Op: "let container", Object: name + " join the session", Reason: err.Error(), Err: err,
		Hint: "docker events --since 5m --filter container=" + name + "; is the engine on this machine and not in a virtual one?"}
	if kind := untried(e); kind != "" {
		f.Hint = untriedHint(kind)
	}
	return f
}
