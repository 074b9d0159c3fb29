package daemon

import (
	"context"
	"io"

	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/dnsproxy"
)

// API is the version of the daemon's API. A client refuses to talk to a daemon
// of another one.
const API = 1

// maxBody bounds a request's body, an answer and an event's line, in bytes. The
// environment, which both may carry, has 6 MiB at most (execve(2)), and JSON needs
// six for one of its bytes at worst.
const maxBody = 40 << 20

const (
	pathVersion  = "/version"
	pathSessions = "/v1/sessions"
)

// Hello is how a daemon introduces itself.
type Hello struct {
	API     int    `json:"api"`
	Version string `json:"version"`
	PID     int    `json:"pid"`
}

// UpRequest asks for a session.
type UpRequest struct {
	session.Request
	Owned bool `json:"owned"` // the session ends with the request's connection
}

// Event is one line of the answer to an UpRequest. One field is set.
type Event struct {
	Step  string          `json:"step,omitempty"`  // progress
	Ready *session.Status `json:"ready,omitempty"` // the session is up
	State *StateEvent     `json:"state,omitempty"` // of an owned session, after Ready
	Error *fault.Error    `json:"error,omitempty"` // the session did not come up; the last event
	// Ending, beside Error, is the daemon's process id if it ends now.
	Ending int    `json:"ending,omitempty"`
	Ended  string `json:"ended,omitempty"` // why an owned session ended; the last event
}

// StateEvent tells that a session's state has changed.
type StateEvent struct {
	State   session.State `json:"state"`
	Problem *fault.Error  `json:"problem,omitempty"`
	Moved   *session.Move `json:"moved,omitempty"` // the session goes on at another pod
}

// Downed is the answer to the end of a session.
type Downed struct {
	Session string       `json:"session"`
	Warning *fault.Error `json:"warning,omitempty"` // the session is gone, but something did not work
	Ending  int          `json:"ending,omitempty"`  // the daemon's process id if it ends now
}

// An Opener finds what a request wants to borrow.
type Opener interface {
	// Open resolves the request's target. It changes nothing anywhere.
	Open(ctx context.Context, req session.Request, step func(string)) (Opening, error)
}

// An Opening is a target that is about to be borrowed.
type Opening interface {
	// Name is what a session of the target is called if the request has no name.
	Name() string
	// Start borrows the target. Once ctx ends it stops and undoes what it did.
	Start(ctx context.Context, name string, obs session.Observer) (Session, error)
	// Close drops an opening that is not started.
	Close() error
}

// A Session is a borrowed target.
type Session interface {
	// Status reports on the session, with a round trip measured now if measure.
	Status(ctx context.Context, measure bool) session.Status
	Place() session.Place
	// ExplainName resolves a name as for a program, and says how.
	ExplainName(ctx context.Context, name, qtype string) (dnsproxy.Explanation, error)
	// ReadFile returns a file of the pod.
	ReadFile(ctx context.Context, path string) ([]byte, error)
	// Way resolves host for what is no program of the session.
	Way(ctx context.Context, host string) (session.Way, error)
	// Record starts a capture of what the session mirrors, until ctx ends or the
	// stream is closed.
	Record(ctx context.Context) (io.ReadCloser, error)
	// WatchRequests calls begin, and then tell with what becomes of each mirrored
	// request, until ctx or the session ends, or tell fails.
	WatchRequests(ctx context.Context, begin func(), tell func(session.MirroredRequest) error) error
	// StopAgent ends the agent in the pod; only Close may follow.
	StopAgent(ctx context.Context) error
	// Close gives the target back and joins everything. It is bounded in time.
	Close() error
}
