package session

import (
	"context"
	"errors"
	"fmt"

	"github.com/borrownet/borrownet/cmd/internal/fault"
)

// errStopped says that a session goes to no other pod: its agent is to end.
var errStopped = errors.New("its agent is to end")

// StopAgent ends the agent in the pod, which knows no other client. A session on its way
// to another pod ends the one that it has placed there, as soon as that can be told, and
// places no more.
func (s *Session) StopAgent(ctx context.Context) error {
	s.stopOnce.Do(func() { close(s.stopping) })
	if err := s.awaitSearch(ctx); err != nil {
		return err
	}
	s = s.now.Load()
	if s.is(Lost, Reattaching) {
		if left := s.leftBehind(); left != "" {
			return s.notStopped(left, errors.New("it is out of reach"))
		}
		return nil
	}
	if err := s.control.stop(ctx); err != nil {
		return s.notStopped(s.agentText(), err)
	}
	return s.key.Forget()
}

// notStopped says that an agent goes on without a client.
func (s *Session) notStopped(agent string, err error) error {
	return &fault.Error{
		Code: fault.NoDataPath, Op: "stop", Object: agent, Reason: err.Error(), Err: err,
		Hint: fmt.Sprintf("it ends by itself %v after its last client", s.req.IdleTTL),
	}
}

// agentText is what a person calls the agent.
func (s *Session) agentText() string {
	return "the agent in container " + s.agent.Container + " of pod " + s.target.Namespace + "/" + s.target.Pod
}

// beginSearch notes that the session is on its way to another pod, until what it returns
// is called.
func (g *ground) beginSearch() (over func()) {
	search := make(chan struct{})
	g.mu.Lock()
	defer g.mu.Unlock()
	g.search, g.left = search, ""
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.search = nil
		close(search)
	}
}

// awaitSearch waits until the session is at a pod, or on no way to one.
func (s *Session) awaitSearch(ctx context.Context) error {
	s.mu.Lock()
	search := s.search
	s.mu.Unlock()
	if search == nil {
		return nil
	}
	select {
	case <-search:
		return nil
	case <-ctx.Done():
	}
	left := s.leftBehind()
	if left == "" {
		left = "the agent that session " + s.name + " may be placing"
	}
	return s.notStopped(left, errors.New("it cannot be told yet"))
}

// leaveBehind notes an agent that may run with nobody having told it to end, "" that
// there is none.
func (g *ground) leaveBehind(agent string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left = agent
}

// leftBehind returns what leaveBehind has noted last.
func (g *ground) leftBehind() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.left
}

// stopped reports whether StopAgent was called.
func (g *ground) stopped() bool {
	select {
	case <-g.stopping:
		return true
	default:
		return false
	}
}

// mayPlace is the step of a move before an agent is placed.
func (s *Session) mayPlace(context.Context) error {
	if s.stopped() {
		return errStopped
	}
	return nil
}

// mayStay is the step of a move at which the agent there, which can be told by now, is
// told to end if it is not wanted any more.
func (s *Session) mayStay(ctx context.Context) error {
	if !s.stopped() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, meetTimeout)
	defer cancel()
	if err := s.control.stop(ctx); err != nil {
		return fmt.Errorf("%w, and does not hear: %w", errStopped, err)
	}
	s.leaveBehind("")
	return errors.Join(errStopped, s.key.Forget())
}
