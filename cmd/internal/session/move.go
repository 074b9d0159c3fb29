package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/netstack/fairqueue"
	"github.com/borrownet/borrownet/netstack/link"
)

const (
	// minStay is how long an agent must have lived to be replaced in the same pod: an
	// ephemeral container can never be removed again.
	minStay = time.Minute
	// maxPlaced bounds the agents that are placed in vain after one loss.
	maxPlaced = 3
	// readyPatience is how long a pod that is not ready is left alone.
	readyPatience = 15 * time.Second
	// The pause between two looks for a pod is a share of the time that they have taken: by
	// no more than that it is found late.
	lookShare = 8
	firstLook = 500 * time.Millisecond
	lastLook  = 5 * time.Second
)

// Move says how a session went on after it had lost its pod, or the agent there.
type Move struct {
	From string    `json:"from"` // pod
	To   string    `json:"to"`   // pod; From if only the agent is another one
	Why  string    `json:"why"`
	At   time.Time `json:"at"`
	// Env are the names of variables that have other values now. Programs that run keep
	// the old ones.
	Env []string `json:"env,omitempty"`
}

// mayGoOn reports whether a session that has lost its agent by cause looks for another.
func (s *Session) mayGoOn(cause error) bool {
	switch {
	case errors.Is(cause, errPodGone):
		return !s.stays() && s.target.Workload != ""
	case errors.Is(cause, link.ErrGrace):
		return true
	case errors.Is(cause, errAgentEnded):
		// Its hard end is meant to be one.
		expired := !s.info.Expires.IsZero() && time.Until(s.info.Expires) < time.Second
		return !expired && time.Since(s.born) > minStay
	}
	return false
}

// stays reports whether the session goes to no other pod: if that was asked for, and if
// containers have joined it, whose network keeps the addresses it was made with.
func (s *Session) stays() bool { return s.req.Stay || s.req.Docker != nil }

// goOn leaves the pod and returns the session at the next one, nil if the session is
// closed or lost meanwhile.
func (s *Session) goOn(problem *fault.Error, cause error) *Session {
	why := problem.Reason
	defer s.beginSearch()()
	if !agentIsGone(cause) {
		s.leaveBehind(s.agentText())
	}
	s.become(Reattaching, s.reattaching(why))
	s.fabric.lose()
	s.count()
	if agentIsGone(cause) {
		if err := s.key.Forget(); err != nil {
			s.log.Debug("forget key", "err", err)
		}
	}
	if err := s.leave(); err != nil {
		s.log.Debug("leave pod", "err", err)
	}
	return s.seek(why)
}

// agentIsGone reports whether a session lost its agent by cause because that is no more.
func agentIsGone(cause error) bool {
	return errors.Is(cause, errPodGone) || errors.Is(cause, errAgentEnded)
}

// count adds what went through the tunnel to what went through earlier ones.
func (s *Session) count() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for lane := range fairqueue.Lanes {
		l := s.tunnel.Stats(lane)
		s.past.bytesIn += l.BytesIn
		s.past.bytesOut += l.BytesOut
		s.past.redials += l.Redials
	}
	s.counted = true
}

// reattaching is what a person is told meanwhile.
func (s *Session) reattaching(reason string) *fault.Error {
	return &fault.Error{
		Code: fault.NoDataPath, ID: "BN3304", Op: "keep session", Object: s.name, Reason: reason + "; its connections are reset, and it looks for a pod to go on with",
		Hint: "borrownet status " + s.name,
	}
}

// seek looks for the next pod until there is one and the session is there.
func (s *Session) seek(why string) *Session {
	begun, placed := time.Now(), 0
	for {
		next, err := s.try(why, begun)
		switch {
		case s.life.Err() != nil || errors.Is(err, errStopped):
			return nil // Close undoes what there is
		case err == nil:
			return next
		case errors.Is(err, kube.ErrPlaced):
			placed++
		}
		if final := s.final(err, placed); final != nil {
			s.lose(final, false)
			return nil
		}
		s.log.Info("no pod to go on with", "err", err)
		s.become(Reattaching, s.reattaching(why+"; "+fault.From(Explain(err)).Error()))
		select {
		case <-s.life.Done():
			return nil
		case <-s.stopping:
			return nil
		case <-time.After(lookPause(time.Since(begun))):
		}
	}
}

// lookPause is the pause before the next look for a pod after so long.
func lookPause(since time.Duration) time.Duration {
	return min(max(since/lookShare, firstLook), lastLook)
}

// errElsewhere reports a pod that a session which stays put does not go to.
var errElsewhere = errors.New("the session stays with its pod")

// final returns why there will be no next pod, or nil.
func (s *Session) final(err error, placed int) *fault.Error {
	switch {
	case errors.Is(err, kube.ErrGone):
		return s.lostFault("pod "+s.target.Pod+" no longer exists, and no other takes its place", err)
	case errors.Is(err, errElsewhere):
		return s.lostFault("pod "+s.target.Pod+" is gone, and the session stays with it", err)
	case placed >= maxPlaced:
		return s.lostFault(fmt.Sprintf("%d agents were placed in vain: %v", placed, fault.From(Explain(err))), err)
	}
	return nil
}

// try looks for the next pod once and goes there.
func (s *Session) try(why string, begun time.Time) (*Session, error) {
	ctx, cancel := context.WithTimeout(s.life, attachTimeout)
	defer cancel()
	target, err := s.cluster.Successor(ctx, s.target)
	switch {
	case err != nil:
		return nil, err
	case s.stays() && target.UID != s.target.UID:
		return nil, errElsewhere
	case !target.Ready && time.Since(begun) < readyPatience:
		return nil, fmt.Errorf("pod %s is not ready yet", target.Pod)
	}
	if target.UID != s.target.UID {
		s.leaveBehind("") // what was in the old pod is gone with it
	}
	return s.moveTo(ctx, target, why)
}

// moveTo borrows target for the session and returns it as it is there.
func (s *Session) moveTo(ctx context.Context, target *kube.Target, why string) (*Session, error) {
	n := s.ground.at(target, s.opener.logger().With("target", target.Namespace+"/"+target.Pod))
	steps := []func(context.Context) error{n.mayPlace, n.attach, n.raiseLink, n.meetAgent, n.mayStay, n.resolveNames, n.readdress, n.borrowFiles, n.openMirror, n.mayStay}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			n.fabric.queue.close()
			return nil, errors.Join(err, n.retire(), n.leave())
		}
	}
	n.settle(ctx, s, why)
	return n, nil
}

// readdress gives the session the addresses of its pod.
func (s *Session) readdress(ctx context.Context) error {
	if slices.Equal(s.addrs, s.target.PodIPs) {
		return nil
	}
	s.addrs = slices.Concat(s.addrs, s.target.PodIPs)
	s.fabric.router.SetSession(s.addrs)
	if s.helper != nil {
		if err := s.helper.Readdress(ctx, onePerFamily(s.target.PodIPs)); err != nil {
			return &fault.Error{Code: fault.Hook, Op: "change the addresses of the session's network namespace", Reason: err.Error(), Err: err}
		}
	}
	s.addrs = s.target.PodIPs
	s.fabric.router.SetSession(s.addrs)
	return nil
}

// settle makes s, which is complete, the session that there is now.
func (s *Session) settle(ctx context.Context, before *Session, why string) {
	move := &Move{From: before.target.Pod, To: s.target.Pod, Why: why, At: time.Now(), Env: changedNames(before.environment(), s.environment())}
	s.now.Store(s)
	s.leaveBehind("")
	s.fabric.regain()
	s.log.Info("session goes on", "pod", move.To, "reason", why)
	s.mu.Lock()
	s.moved = move
	s.mu.Unlock()
	s.arrive()
	if tell := s.obs.Moved; tell != nil {
		tell(*move)
	}
	if err := before.retire(); err != nil {
		s.log.Debug("end names", "err", err)
	}
	for _, v := range s.files.followed() {
		if err := s.syncVolume(ctx, v); err != nil {
			s.log.Debug("files of the pod", "path", v.mount.Path, "err", err)
		}
	}
	s.lookAtMesh(ctx)
}

// changedNames returns the names of variables whose values differ, each KEY=value.
func changedNames(before, after []string) []string {
	values := func(env []string) map[string]string {
		out := map[string]string{}
		for _, kv := range env {
			name, value, _ := strings.Cut(kv, "=")
			out[name] = cmp.Or(out[name], value)
		}
		return out
	}
	old, young := values(before), values(after)
	changed := map[string]bool{}
	for name, value := range young {
		if had, ok := old[name]; !ok || had != value {
			changed[name] = true
		}
	}
	for name := range old {
		if _, ok := young[name]; !ok {
			changed[name] = true
		}
	}
	return slices.Sorted(maps.Keys(changed))
}
