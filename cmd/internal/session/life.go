package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/netstack/fairqueue"
	"github.com/borrownet/borrownet/netstack/link"
)

// dialTimeout bounds one attempt at a carrier, askTimeout the question what became of the agent if it fails.
const (
	dialTimeout = 15 * time.Second
	askTimeout  = 5 * time.Second
)

// linkSays is how much later than the tunnel its link may say why it has ended.
const linkSays = time.Second

// lastCarrier remembers how the last carrier was got.
type lastCarrier struct {
	mu       sync.Mutex
	protocol string
	err      error     // of the last attempt, nil if it worked
	since    time.Time // when the first attempt began of those that have not worked since one did
	ever     bool      // one was got before
}

func (c *lastCarrier) got(protocol string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.protocol, c.err, c.ever, c.since = protocol, nil, true, time.Time{}
}

// begins records that an attempt begins.
func (c *lastCarrier) begins() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.since.IsZero() {
		c.since = time.Now()
	}
}

// sought returns for how long attempts have not worked.
func (c *lastCarrier) sought() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.since)
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

func (c *lastCarrier) wasGot() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ever
}

func (c *lastCarrier) name() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.protocol
}

// dial is the tunnel's way to a new carrier. Before the first carrier a
// refusal of the cluster is final; after it only an agent that is gone is. The
// bulk lane can be done without.
func (s *Session) dial(ctx context.Context, lane fairqueue.Lane) (io.ReadWriteCloser, error) {
	dialling, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	last := &s.carriers[lane]
	last.begins()
	dial := s.dialOnce
	if lane == fairqueue.Express && last.wasGot() {
		dial = s.dialAgain
	}
	c, err := dial(dialling, lane)
	if err == nil {
		last.got(c.Protocol())
		return c, nil
	}
	ever := last.failed(err)
	if lane == fairqueue.Bulk && errors.Is(err, kube.ErrForwardRefused) {
		return s.dialBulkDirect(ctx, err)
	}
	if s.ctx.Err() != nil || lane == fairqueue.Bulk {
		return nil, err
	}
	if _, refused := errors.AsType[*kube.Error](err); refused && !ever {
		return nil, errors.Join(link.ErrPermanent, err)
	}
	if ever {
		// Not in what is left of the dial's time: a node that is lost leaves a dial without an answer.
		asking, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		if gone := s.agentGone(asking, last.sought()); gone != nil {
			return nil, errors.Join(link.ErrPermanent, gone)
		}
	}
	s.log.Info("no carrier", "err", err)
	return nil, err
}

// dialBulkDirect waits for a direct path, and dials the bulk lane's carrier there: port-forward is refused, and all goes over
// the one attached stream else.
func (s *Session) dialBulkDirect(ctx context.Context, refused error) (io.ReadWriteCloser, error) {
	if !s.req.Direct {
		return nil, errors.Join(link.ErrPermanent, refused)
	}
	if err := s.shortcut.await(ctx); errors.Is(err, errNoDirect) {
		return nil, errors.Join(link.ErrPermanent, refused)
	} else if err != nil {
		return nil, refused
	}
	c := s.shortcut.dial(ctx, s.identity(fairqueue.Bulk))
	if c == nil {
		return nil, refused
	}
	s.carriers[fairqueue.Bulk].got(c.Protocol())
	return c, nil
}

// identity is what a lane's carriers prove.
func (s *Session) identity(lane fairqueue.Lane) link.Identity {
	id := s.id
	id.Role = link.RoleExpress
	if lane == fairqueue.Bulk {
		id.Role = link.RoleBulk
	}
	return id
}

// doubtDial is how long a dial may take before it is asked, and is asked again, whether
// there still is an agent.
const doubtDial = time.Second

// dialAgain is dialOnce of a carrier that there was before. A node that takes a pod down,
// or is lost itself, may leave a dial without an answer, so the end of the agent ends it too.
func (s *Session) dialAgain(ctx context.Context, lane fairqueue.Lane) (kube.Carrier, error) {
	begun := time.Now()
	var look sync.WaitGroup
	defer look.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	look.Go(func() {
		for {
			select {
			case <-time.After(doubtDial):
			case <-ctx.Done():
				return
			}
			if s.agentGone(ctx, time.Since(begun)) != nil {
				cancel()
				return
			}
		}
	})
	return s.dialOnce(ctx, lane)
}

func (s *Session) dialOnce(ctx context.Context, lane fairqueue.Lane) (kube.Carrier, error) {
	use, id := kube.ForCalls, s.identity(lane)
	if lane == fairqueue.Bulk {
		use = kube.ForBulk
	}
	if c := s.shortcut.dial(ctx, id); c != nil {
		return c, nil
	}
	c, err := s.cluster.Dial(ctx, s.target, s.agent, use)
	if err != nil {
		return nil, err
	}
	if err := link.Prove(ctx, c, id); err != nil {
		return nil, errors.Join(fmt.Errorf("prove identity to the agent: %w", err), c.Close())
	}
	return c, nil
}

// Causes of a loss.
var (
	errPodGone    = errors.New("the pod is gone")
	errAgentEnded = errors.New("the agent has ended")
)

// doubtAfter is how long a pod that is not ready may be out of reach before it is
// given up for one of its workload that is ready: its node may be lost.
const doubtAfter = 10 * time.Second

// agentGone returns why the agent, which has been out of reach since, will not come
// back, or nil if it may.
func (s *Session) agentGone(ctx context.Context, since time.Duration) *fault.Error {
	fate, err := s.cluster.Fate(ctx, s.target)
	if err != nil {
		return nil // the API server does not answer either: that is not the agent's end
	}
	if fate.Gone != "" {
		return s.lostFault(fate.Gone, errPodGone)
	}
	for _, a := range fate.Agents {
		if a.Container == s.agent.Container && a.State == kube.StateTerminated {
			return s.lostFault(fmt.Sprintf("the agent %s has ended (%s, exit code %d)", a.Container, a.Reason, a.ExitCode), errAgentEnded)
		}
	}
	if fate.Ready || since < doubtAfter || s.stays() || s.target.Workload == "" {
		return nil
	}
	if other, err := s.cluster.Successor(ctx, s.target); err == nil && other.Ready && other.UID != s.target.UID {
		return s.lostFault(fmt.Sprintf("pod %s is not ready and does not answer: its node may be lost", s.target.Pod), errPodGone)
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
	up := st == link.Up
	s.fabric.queue.setUp(fairqueue.Express, up)
	if up && s.is(Ready, Reconnecting) && s.now.Load() == s {
		// The agent forgets a client that was away for long, and with it the keys
		// of the session.
		if err := s.tunnel.Renew(); err != nil {
			s.log.Debug("renew tunnel", "err", err)
		}
	}
	s.change(func(was State) (State, *fault.Error) {
		s.up = up
		follows := was == Ready || was == Reconnecting && up
		if !follows || s.now.Load() != s {
			return was, s.problem
		}
		return s.ofLinkLocked()
	})
}

// arrive says that all is there which programs need at this pod, but for the link, perhaps,
// which may have been lost meanwhile.
func (s *Session) arrive() {
	s.change(func(State) (State, *fault.Error) { return s.ofLinkLocked() })
}

// ofLinkLocked is the state of a session at its pod.
func (s *Session) ofLinkLocked() (State, *fault.Error) {
	if s.up {
		return Ready, nil
	}
	return Reconnecting, s.unreached("the connection was lost, trying again")
}

// unreached says why the agent is out of reach.
func (s *Session) unreached(reason string) *fault.Error {
	return &fault.Error{Code: fault.NoDataPath, ID: "BN3302", Op: "reach the agent in", Object: "pod " + s.target.Namespace + "/" + s.target.Pod, Reason: reason}
}

// watch follows the session from pod to pod until it is closed or lost.
func (s *Session) watch() {
	for at := s; at != nil; {
		problem, cause := at.awaitLoss()
		if errors.Is(cause, link.ErrBye) {
			problem, cause = at.afterBye()
		}
		switch {
		case problem == nil:
			return
		case at.mayGoOn(cause):
			at = at.goOn(problem, cause)
		default:
			gone, left := errors.Is(cause, link.ErrPermanent), ""
			if !gone {
				left = at.agentText()
			}
			at.leaveBehind(left)
			at.lose(problem, gone)
			return
		}
	}
}

// awaitLoss waits for the end of a part that the session cannot be without at this
// pod, and returns what a person is told and the cause; nil if the session is closed.
func (s *Session) awaitLoss() (*fault.Error, error) {
	var (
		problem *fault.Error
		cause   error
		helper  <-chan struct{} // nil without one
	)
	if s.helper != nil {
		helper = s.helper.Done()
	}
	select {
	case <-s.life.Done():
		return nil, nil
	case cause = <-s.linkEnd:
		problem = s.linkProblem(cause)
	case <-s.tunnel.Done():
		problem = s.lostFault("the tunnel has ended", nil)
		select {
		case cause = <-s.linkEnd: // the link has ended first, and knows why
			problem = s.linkProblem(cause)
		case <-time.After(linkSays):
		case <-s.life.Done():
		}
	case <-helper:
		problem = s.lostFault(fmt.Sprintf("the helper of its network namespace has ended: %v", s.helper.Err()), s.helper.Err())
	}
	if s.life.Err() != nil {
		return nil, nil // Close ends the parts too
	}
	return problem, cause
}

// byeLook is the pause between two looks for why an agent has said goodbye, and byeWait is
// the time for all of them: of a pod that its node evicts the cluster knows that last.
const (
	byeLook = 200 * time.Millisecond
	byeWait = 5 * time.Second
)

// afterBye returns why the agent has said goodbye, as awaitLoss does. What the session has
// of it is reset meanwhile: it will not come back.
func (s *Session) afterBye() (*fault.Error, error) {
	s.become(Reconnecting, s.unreached("it has said that it ends"))
	s.fabric.lose()
	problem := s.lostFault("the agent "+s.agent.Container+" has said that it ends", errAgentEnded)
	ctx, cancel := context.WithTimeout(s.life, byeWait)
	defer cancel()
	for ctx.Err() == nil {
		if gone := s.agentGone(ctx, 0); gone != nil {
			problem = gone
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(byeLook):
		}
	}
	if s.life.Err() != nil {
		return nil, nil
	}
	return problem, errors.Join(link.ErrPermanent, problem)
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
	s.stack.RefuseDials(wire.ClientAddr, syscall.ECONNREFUSED) // only now: at another pod they would have gone on
	if s.endHook != nil {
		s.endHook() // resets what is relayed, refuses what is new
	}
	if err := s.tunnel.Close(); err != nil {
		s.log.Debug("close tunnel", "err", err)
	}
	if gone { // else its agent may be there yet, and fit the next session
		if err := s.key.Forget(); err != nil {
			s.log.Debug("forget key", "err", err)
		}
	}
	s.become(Lost, problem)
}
