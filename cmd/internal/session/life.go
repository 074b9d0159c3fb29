package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/netstack/fairqueue"
	"github.com/borrownet/borrownet/netstack/link"
)

// dialTimeout bounds one attempt at a carrier.
const dialTimeout = 15 * time.Second

// lastCarrier remembers how the last carrier was got.
type lastCarrier struct {
	mu       sync.Mutex
	protocol string
	err      error // of the last attempt, nil if it worked
	ever     bool  // one was got before
}

func (c *lastCarrier) got(protocol string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.protocol, c.err, c.ever = protocol, nil, true
}

// failed records err and reports whether there ever was a carrier.
func (c *lastCarrier) failed(err error) (ever bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	return c.ever
}

func (c *lastCarrier) lastError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *lastCarrier) name() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.protocol
}

// dialer returns the tunnel's way to a new carrier. Before the first carrier a
// refusal of the cluster is final; after it only an agent that is gone is. The
// bulk lane can be done without.
func (s *Session) dialer(id link.Identity) func(context.Context, fairqueue.Lane) (io.ReadWriteCloser, error) {
	return func(ctx context.Context, lane fairqueue.Lane) (io.ReadWriteCloser, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		c, err := s.dialOnce(ctx, id, lane)
		if err == nil {
			s.carriers[lane].got(c.Protocol())
			return c, nil
		}
		ever := s.carriers[lane].failed(err)
		if s.ctx.Err() != nil || lane == fairqueue.Bulk {
			return nil, err
		}
		if _, refused := errors.AsType[*kube.Error](err); refused && !ever {
			return nil, errors.Join(link.ErrPermanent, err)
		}
		if ever {
			if gone := s.agentGone(ctx); gone != nil {
				return nil, errors.Join(link.ErrPermanent, gone)
			}
		}
		s.log.Info("no carrier", "err", err)
		return nil, err
	}
}

func (s *Session) dialOnce(ctx context.Context, id link.Identity, lane fairqueue.Lane) (kube.Carrier, error) {
	use := kube.ForCalls
	id.Role = link.RoleExpress
	if lane == fairqueue.Bulk {
		use, id.Role = kube.ForBulk, link.RoleBulk
	}
	c, err := s.cluster.Dial(ctx, s.target, s.agent.Hello.Port, use)
	if err != nil {
		return nil, err
	}
	if err := link.Prove(ctx, c, id); err != nil {
		return nil, errors.Join(fmt.Errorf("prove identity to the agent: %w", err), c.Close())
	}
	return c, nil
}

// agentGone returns why the agent will not come back, or nil if it may.
func (s *Session) agentGone(ctx context.Context) error {
	agents, err := s.cluster.Agents(ctx, s.target)
	if err != nil {
		return nil // the API server does not answer either: that is not the agent's end
	}
	if len(agents) == 0 {
		return s.lostFault(fmt.Sprintf("pod %s no longer exists", s.target.Pod), nil)
	}
	for _, a := range agents {
		if a.Container == s.agent.Container && a.State == kube.StateTerminated {
			return s.lostFault(fmt.Sprintf("the agent %s has ended (%s, exit code %d)", a.Container, a.Reason, a.ExitCode), nil)
		}
	}
	return nil
}

func (s *Session) lostFault(reason string, cause error) *fault.Error {
	return &fault.Error{
		Code: fault.SessionLost, ID: "BN3201", Op: "keep session", Object: s.name, Reason: reason, Err: cause,
		Hint: s.req.again(s.target),
	}
}

// linkState follows the express link; it is called from the link's goroutine.
func (s *Session) linkState(st link.State) {
	s.fabric.queue.setUp(fairqueue.Express, st == link.Up)
	s.mu.Lock()
	started := s.state == Ready || s.state == Reconnecting
	s.mu.Unlock()
	if !started {
		return
	}
	if st == link.Up {
		// The agent forgets a client that was away for long, and with it the keys
		// of the session.
		if err := s.tunnel.Renew(); err != nil {
			s.log.Debug("renew tunnel", "err", err)
		}
		s.become(Ready, nil)
		return
	}
	s.become(Reconnecting, &fault.Error{Code: fault.NoDataPath, ID: "BN3302", Op: "reach the agent in", Object: "pod " + s.target.Namespace + "/" + s.target.Pod, Reason: "the connection was lost, trying again"})
}

// become changes the state and tells the observer. A lost session stays lost.
func (s *Session) become(state State, problem *fault.Error) {
	s.mu.Lock()
	if s.state == Lost || s.closed {
		s.mu.Unlock()
		return
	}
	s.state, s.problem = state, problem
	s.mu.Unlock()
	s.log.Info("session state", "state", string(state), "err", problem)
	s.obs.State(state, problem)
}

// watch waits for the end of a part that the session cannot be without.
func (s *Session) watch() {
	var problem *fault.Error
	var helper <-chan struct{} // nil without one
	if s.helper != nil {
		helper = s.helper.Done()
	}
	gone := false // the agent, for good
	select {
	case <-s.ctx.Done():
		return
	case err := <-s.linkEnd:
		problem, gone = s.linkProblem(err), errors.Is(err, link.ErrPermanent)
	case <-s.tunnel.Done():
		problem = s.lostFault("the tunnel has ended", nil)
	case <-helper:
		problem = s.lostFault(fmt.Sprintf("the helper of its network namespace has ended: %v", s.helper.Err()), s.helper.Err())
	}
	if s.ctx.Err() != nil {
		return // Close ends the parts too
	}
	s.lose(problem, gone)
}

func (s *Session) linkProblem(err error) *fault.Error {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f
	}
	if err == nil {
		return s.lostFault("the link has ended", nil)
	}
	return s.lostFault(err.Error(), err)
}

// lose gives the agent up: the stack answers in its place from now on, so that
// programs get errors instead of waiting. gone says that the agent has ended.
func (s *Session) lose(problem *fault.Error, gone bool) {
	s.fabric.lose()
	if s.endHook != nil {
		s.endHook() // resets what is relayed, refuses what is new
	}
	if err := s.tunnel.Close(); err != nil {
		s.log.Debug("close tunnel", "err", err)
	}
	s.become(Lost, problem)
	if !gone {
		return // its agent may be there yet, and fit the next session
	}
	if err := s.key.Forget(); err != nil {
		s.log.Debug("forget key", "err", err)
	}
}

// StopAgent ends the agent in the pod, which knows no other client.
func (s *Session) StopAgent(ctx context.Context) error {
	s.mu.Lock()
	lost := s.state == Lost
	s.mu.Unlock()
	if lost {
		return nil
	}
	if err := s.control.stop(ctx); err != nil {
		return &fault.Error{
			Code: fault.NoDataPath, Op: "stop the agent", Object: "container " + s.agent.Container, Reason: err.Error(), Err: err,
			Hint: fmt.Sprintf("it ends by itself %v after its last client", s.req.IdleTTL),
		}
	}
	return s.key.Forget()
}
