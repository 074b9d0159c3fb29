package hook

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/borrownet/borrownet/hook/netns"
	"github.com/borrownet/borrownet/hook/supervisor"
)

// Machine is what a machine allows; nil means that it does.
type Machine struct {
	Namespace error // an unprivileged network namespace with a packet device
	Listener  error // seccomp user notification for a process tree
	Library   error // the preload library: it is part of this program
}

// ladder is the order in which Best tries the rungs. Netns is not on it: it is
// for programs that a better rung cannot see, or asked for.
var ladder = []Rung{Seccomp, Preload, Relay, PreloadRelay}

// Allows reports why the machine does not allow a rung, nil if it does.
func (m Machine) Allows(r Rung) error {
	if r == None {
		return nil
	}
	var errs []error
	if !r.Relayed() {
		errs = append(errs, m.Namespace)
	}
	if r.Supervised() {
		errs = append(errs, m.Listener)
	} else {
		errs = append(errs, m.Library)
	}
	return errors.Join(errs...)
}

// Best returns the best rung, and why it is not a better one: "" for the first.
// The error is a *NoRungError.
func (m Machine) Best() (r Rung, note string, err error) {
	for _, r := range ladder {
		if m.Allows(r) == nil {
			return r, m.note(r), nil
		}
	}
	if runtime.GOOS != "linux" {
		return None, Reason(m.Namespace), nil // programs are wrapped on Linux only
	}
	return "", "", &NoRungError{m}
}

// note says what keeps the machine from the rungs above r.
func (m Machine) note(r Rung) string {
	switch r {
	case Preload:
		return Reason(m.Listener)
	case Relay:
		return Reason(m.Namespace)
	case PreloadRelay:
		return Reason(m.Namespace) + "; " + Reason(m.Listener)
	}
	return ""
}

// NoRungError says that a machine allows no rung at all. It is an
// errors.ErrUnsupported.
type NoRungError struct{ Machine Machine }

func (e *NoRungError) Error() string {
	m := e.Machine
	if m.Namespace == nil {
		return fmt.Sprintf("%s; %s", Reason(m.Listener), Reason(m.Library))
	}
	return fmt.Sprintf("%s; %s; %s", Reason(m.Namespace), Reason(m.Listener), Reason(m.Library))
}

// Unwrap gives errors.ErrUnsupported.
func (e *NoRungError) Unwrap() error { return errors.ErrUnsupported }

// Reason is in one clause what a machine lacks.
func Reason(err error) string {
	if u, ok := errors.AsType[*netns.UnsupportedError](err); ok {
		return u.Reason
	}
	if u, ok := errors.AsType[*supervisor.UnsupportedError](err); ok {
		return u.Reason
	}
	if err == nil {
		return ""
	}
	return err.Error()
}

// Hint is what would change that, "" where nothing is known to.
func Hint(err error) string {
	if u, ok := errors.AsType[*netns.UnsupportedError](err); ok {
		return u.Hint
	}
	if u, ok := errors.AsType[*supervisor.UnsupportedError](err); ok {
		return u.Hint
	}
	if u, ok := errors.AsType[*NoRungError](err); ok {
		return Hint(u.Machine.Library)
	}
	if errors.Is(err, ErrNotBuilt) {
		return "make build, with a C compiler installed (make setup), and use bin/borrownet"
	}
	return ""
}
