// Package fault defines the error that a person meets: what was tried, on
// what, why it did not work and what to type next. It crosses the daemon's
// socket as JSON without loss.
package fault

import (
	"context"
	"errors"
	"strings"
)

// Code groups faults by what the person has to look at; it is the exit code
// of the command. Codes of one band share their tens.
type Code int

// The exit codes. `run` and `shell` use 125 for all of them, because theirs
// is the command's.
const (
	General Code = 1 // nothing below
	Usage   Code = 2 // flags, arguments, borrownet.yaml

	Cluster Code = 10 // kubeconfig, API server, credentials
	Target  Code = 11 // namespace, pod or container
	Agent   Code = 12 // it cannot be placed or started: RBAC, policy, image

	Laptop Code = 20 // runtime directory, daemon
	Hook   Code = 21 // namespaces, TUN, seccomp
	Engine Code = 22 // the container engine

	NoSession     Code = 30 // none, or none of that name
	SessionExists Code = 31 // the name is taken
	SessionLost   Code = 32 // the agent is gone for good
	NoDataPath    Code = 33 // the agent runs but packets do not arrive

	Interrupted Code = 130 // by the person
)

// Error is a fault.
type Error struct {
	Code   Code   `json:"code"`
	ID     string `json:"id,omitempty"`     // stable name of the kind of fault, BN and four digits; "" = none
	Op     string `json:"op,omitempty"`     // what was tried: "attach agent"
	Object string `json:"object,omitempty"` // on what: "pod shop/api"
	Reason string `json:"reason,omitempty"` // why it failed
	Hint   string `json:"hint,omitempty"`   // the next command or step, or ""
	Err    error  `json:"-"`                // the cause; lost on the socket
}

// Error returns operation, object and reason on one line.
func (e *Error) Error() string {
	what := strings.TrimSpace(e.Op + " " + e.Object)
	reason := e.Reason
	if reason == "" && e.Err != nil {
		reason = e.Err.Error()
	}
	switch {
	case what == "":
		return reason
	case reason == "":
		return what
	}
	return what + ": " + reason
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// From returns err as a fault: the one that it wraps, or a general one.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	if f, ok := errors.AsType[*Error](err); ok {
		return f
	}
	if errors.Is(err, context.Canceled) {
		return &Error{Code: Interrupted, Op: "interrupted"}
	}
	return &Error{Code: General, Reason: err.Error(), Err: err}
}
