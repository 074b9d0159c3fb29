package link

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	dialTimeout = 30 * time.Second
	firstDelay  = 100 * time.Millisecond
	lastDelay   = 2 * time.Second
)

var errRunning = errors.New("link is running already")

// Run keeps the link alive: it redials (if there is a Config.Dial), sends heartbeats and closes a carrier that is
// dead. It closes the Link and returns when ctx ends or Close was called, then with nil; when Config.Grace passed
// without a carrier, from its start or from the loss of the last; when a dial failed for good; or when the peer said
// goodbye. Call it once; all its goroutines have ended when it returns.
func (l *Link) Run(ctx context.Context) error {
	l.mu.Lock()
	if l.running {
		l.mu.Unlock()
		return errRunning
	}
	l.running = true
	l.mu.Unlock()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	defer context.AfterFunc(ctx, func() { l.Close() })()

	s := seeker{link: l, lost: time.Now()}
	defer s.report(Down)
	defer l.Close()
	for {
		c, err := s.next(ctx)
		if err != nil || c == nil {
			return err
		}
		s.report(Up)
		born := time.Now()
		l.tend(ctx, c)
		s.lost = time.Now()
		if errors.Is(c.err, errReplaced) {
			s.delay = 0
		} else {
			s.lived(s.lost.Sub(born))
		}
		if ctx.Err() == nil {
			l.cfg.Logger.Info("carrier lost", "err", c.err, "dur", s.lost.Sub(born))
		}
	}
}

// tend keeps c alive and returns when it is closed.
func (l *Link) tend(ctx context.Context, c *carrier) {
	var keeper sync.WaitGroup
	keeper.Go(func() { l.keep(c) })
	defer keeper.Wait() // a closed carrier ends it

	check := time.NewTicker(max(l.cfg.Dead/8, time.Millisecond))
	defer check.Stop()
	for {
		select {
		case <-c.done:
			return
		case <-ctx.Done():
			l.lose(c, context.Cause(ctx))
			return
		case <-check.C:
			if d := c.silent(); d > l.cfg.Dead {
				l.lose(c, fmt.Errorf("%w for %v", errSilent, d.Round(time.Millisecond)))
			}
		}
	}
}

// keep writes c's heartbeats, acknowledgements and the urgent datagrams, and once the peer has said what is missing,
// that, until c is closed. It may block in a write; the watchdog in tend does not.
func (l *Link) keep(c *carrier) {
	beat := time.NewTicker(l.cfg.Heartbeat)
	defer beat.Stop()
	c.ping()
	var buf []byte
	for {
		var taken [urgentSlots][]byte
		err := c.writeDue(buf[:0], func(b []byte) []byte {
			taken = l.takeUrgent()
			for _, p := range taken {
				if p != nil {
					b = appendControl(b, codeUrgent, p)
				}
			}
			buf = b
			return b
		})
		if err != nil {
			l.restoreUrgent(taken)
			l.lose(c, fmt.Errorf("write: %w", err))
			return
		}
		for _, p := range taken {
			l.bytesOut.Add(uint64(len(p)))
		}
		if err := l.sendAgain(c); err != nil {
			l.lose(c, fmt.Errorf("write: %w", err))
			return
		}
		select {
		case <-c.done:
			return
		case <-c.kick:
		case <-beat.C:
			c.ping()
		}
	}
}

// sendAgain sends what the peer has not got on the carriers before c, if it has told so; after that Send may use c.
func (l *Link) sendAgain(c *carrier) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !c.asked || c.resumed {
		return nil
	}
	for at := l.unacked.acked; ; {
		next := l.unacked.after(at)
		if next == nil {
			c.resumed = true
			return nil
		}
		frames := next.from(max(at, next.first))
		at = next.end()
		next.users++
		l.mu.Unlock()
		err := c.write(frames)
		l.mu.Lock()
		l.releaseLocked(next)
		if err != nil {
			return err
		}
	}
}

// seeker finds the next carrier.
type seeker struct {
	link  *Link
	lost  time.Time     // when the last carrier was lost
	delay time.Duration // before the next dial
	err   error         // of the last dial
	state State         // last reported
}

// report tells of a change of the link's state.
func (s *seeker) report(state State) {
	if s.state == state {
		return
	}
	s.state = state
	if on := s.link.cfg.OnState; on != nil {
		on(state)
	}
}

// lived resets the back-off after a carrier that was good for something: then the next dial follows at once.
func (s *seeker) lived(d time.Duration) {
	if d >= lastDelay {
		s.delay = 0
		return
	}
	s.slower()
}

func (s *seeker) slower() {
	s.delay = min(max(2*s.delay, firstDelay), lastDelay)
}

// next waits for a carrier, attached or dialled. It returns nil, nil when ctx ends.
func (s *seeker) next(ctx context.Context) (*carrier, error) {
	l := s.link
	grace, cancel := context.WithDeadlineCause(ctx, s.lost.Add(l.cfg.Grace), ErrGrace)
	defer cancel()
	for {
		c, changed := l.current()
		switch {
		case ctx.Err() != nil:
			return nil, nil
		case l.hasBye():
			return nil, fmt.Errorf("keep link up: %w", ErrBye)
		case c != nil:
			return c, nil
		case grace.Err() != nil:
			return nil, s.giveUp()
		}
		if !l.redialing.Swap(false) {
			s.report(Down)
		}
		if !s.pause(grace, changed) {
			continue
		}
		c, err := s.dial(grace)
		switch {
		case c != nil:
			return c, nil // even if it is lost already: the caller's back-off must know
		case errors.Is(err, ErrPermanent) && ctx.Err() == nil:
			return nil, err
		}
	}
}

// pause reports whether it is time to dial; false means look again.
func (s *seeker) pause(ctx context.Context, changed <-chan struct{}) bool {
	var due <-chan time.Time // nil on the agent: never
	if s.link.cfg.Dial != nil {
		var jittered time.Duration
		if s.delay > 0 {
			jittered = s.delay/2 + rand.N(s.delay/2+1)
		}
		t := time.NewTimer(jittered)
		defer t.Stop()
		due = t.C
	}
	select {
	case <-due:
		return true
	case <-changed:
	case <-ctx.Done():
	}
	return false
}

func (s *seeker) dial(ctx context.Context) (*carrier, error) {
	l := s.link
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	l.setDial(end)
	defer l.setDial(nil)
	rwc, err := l.cfg.Dial(ctx)
	switch {
	case err != nil && replaced(ctx):
		s.delay = 0
		return nil, errReplaced
	case err != nil:
		s.err = err
		s.slower()
		l.cfg.Logger.Info("carrier not dialled", "err", err)
		return nil, err
	}
	s.err = nil
	c := newCarrier(rwc)
	if !l.attachDialled(ctx, c) {
		s.delay = 0
		return nil, errReplaced
	}
	return c, nil
}

// setDial notes how to end the dial that begins; nil says that it is over.
func (l *Link) setDial(end context.CancelCauseFunc) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.endDial = end
}

// replaced reports whether Redial has ended the dial of ctx.
func replaced(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errReplaced) }

// attachDialled is attach of a carrier that was dialled with ctx. It reports false, and closes c, if Redial has ended ctx.
func (l *Link) attachDialled(ctx context.Context, c *carrier) bool {
	l.mu.Lock()
	if replaced(ctx) {
		l.mu.Unlock()
		c.close(errReplaced)
		return false
	}
	l.attachAndUnlock(c)
	return true
}

func (s *seeker) giveUp() error {
	if s.err != nil {
		return fmt.Errorf("keep link up: %w of %v: %w", ErrGrace, s.link.cfg.Grace, s.err)
	}
	return fmt.Errorf("keep link up: %w of %v", ErrGrace, s.link.cfg.Grace)
}
