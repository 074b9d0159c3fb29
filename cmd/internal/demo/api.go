package demo

import (
	"errors"
	"syscall"

	"github.com/borrownet/borrownet/agent/kube"
)

// SocketName is the world's socket in the runtime directory.
const SocketName = "demo.sock"

// ProgramDir is where, in the runtime directory, a demo that stays up puts
// programs for other terminals.
const ProgramDir = "demo-bin"

// The API of the world's socket. Requests and answers are JSON; an answer that
// is not 2xx is a trouble. An attach answers with a stream of steps, a dial
// with a change to the protocol upgradeTo: from then on the connection is the
// carrier.
const (
	pathResolve = "/v1/resolve"
	pathAttach  = "/v1/attach"
	pathAgents  = "/v1/agents"
	pathFate    = "/v1/fate"
	pathNext    = "/v1/successor"
	pathRoll    = "/v1/roll"
	pathDial    = "/v1/dial"
	pathOffers  = "/v1/offers"

	upgradeTo = "borrownet-carrier"
	// maxBody bounds one request, one answer and one step, in bytes.
	maxBody = 1 << 20
)

type resolveRequest struct {
	Namespace string `json:"namespace"`
	Ref       string `json:"ref"`
	Container string `json:"container"`
}

type offersRequest struct {
	Namespace string `json:"namespace"`
}

type attachRequest struct {
	Target *kube.Target   `json:"target"`
	Spec   kube.AgentSpec `json:"spec"`
}

type dialRequest struct {
	Target *kube.Target `json:"target"`
	Port   uint16       `json:"port"`
}

// attachStep is one line of the answer to an attach. One field is set, and
// after Agent or Error no line follows.
type attachStep struct {
	Step  string      `json:"step,omitempty"`
	Agent *kube.Agent `json:"agent,omitempty"`
	Error *trouble    `json:"error,omitempty"`
}

// trouble is an error on its way through the socket. Without an Op it is none
// that a person can do something about.
type trouble struct {
	ID     string `json:"id,omitempty"`
	Op     string `json:"op,omitempty"`
	Object string `json:"object,omitempty"`
	Reason string `json:"reason"`
	Hint   string `json:"hint,omitempty"`
	Closed bool   `json:"closed,omitempty"` // the port is
}

func troubleOf(err error) *trouble {
	if k, ok := errors.AsType[*kube.Error](err); ok {
		return &trouble{ID: k.ID, Op: k.Op, Object: k.Object, Reason: k.Reason, Hint: k.Hint, Closed: errors.Is(err, syscall.ECONNREFUSED)}
	}
	return &trouble{Reason: err.Error()}
}

// err is the error again that t was made of.
func (t *trouble) err() error {
	if t.Op == "" {
		return errors.New(t.Reason)
	}
	k := &kube.Error{ID: t.ID, Op: t.Op, Object: t.Object, Reason: t.Reason, Hint: t.Hint}
	if t.Closed {
		k.Err = syscall.ECONNREFUSED
	}
	return k
}
