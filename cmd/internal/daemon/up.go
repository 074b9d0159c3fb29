package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"

	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

// up serves one UpRequest. The stream's end, of either side, aborts a start.
func (s *server) up(w http.ResponseWriter, r *http.Request) {
	var req UpRequest
	if err := decode(r.Body, &req); err != nil {
		s.refuse(w, http.StatusBadRequest, fault.From(err))
		return
	}
	out := newStream(w)
	e, err := s.start(r.Context(), req, out)
	if err != nil {
		s.log.Info("session refused", "session", req.Name, "target", req.Ref, "err", err)
		out.send(Event{Error: fault.From(err), Ending: s.sessions.ending()})
		return
	}
	s.wg.Go(func() { s.end(e) })
	changes, stop := e.watch()
	defer stop()
	status := e.status(r.Context(), true)
	if !out.send(Event{Ready: &status}) {
		// Nobody heard that the session is up, so nobody will take it down.
		e.cancel(context.Canceled)
		return
	}
	if req.Owned {
		s.attend(r.Context(), e, out, changes)
	}
}

// open finds the target of req and takes the session's name.
func (s *server) open(client context.Context, req UpRequest, out *stream) (Opening, *entry, error) {
	s.sessions.open(1)
	defer s.sessions.open(-1)
	opening, err := s.opener.Open(client, req.Request, out.step)
	if err != nil {
		return nil, nil, err
	}
	name := req.Name
	if name == "" {
		name = opening.Name()
	}
	e, err := s.claim(client, name)
	if err != nil {
		return nil, nil, errors.Join(err, opening.Close())
	}
	return opening, e, nil
}

// start borrows the target of req under a name of its own.
func (s *server) start(client context.Context, req UpRequest, out *stream) (*entry, error) {
	opening, e, err := s.open(client, req, out)
	if err != nil {
		return nil, err
	}
	// The start ends with the client, with `down` and with the daemon; the
	// session itself only with the latter two.
	ctx, cancel := context.WithCancelCause(client)
	defer cancel(nil)
	stop := context.AfterFunc(e.ctx, func() { cancel(context.Cause(e.ctx)) })
	defer stop()
	// From when the client has left nobody counts on the name.
	left := context.AfterFunc(client, func() { e.cancel(context.Cause(client)) })
	defer left()
	sess, err := opening.Start(ctx, e.name, session.Observer{Step: out.step, State: e.observe, Moved: e.moved})
	if err == nil && ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), sess.Close())
	}
	if err != nil {
		if cause := context.Cause(e.ctx); cause != nil && client.Err() == nil {
			err = &fault.Error{Code: fault.Interrupted, Op: "set up session", Object: e.name, Reason: cause.Error()}
		}
		e.cancel(nil)
		s.sessions.drop(e)
		return nil, err
	}
	e.started(sess)
	s.log.Info("session up", "session", e.name, "target", req.Ref)
	return e, nil
}

// claim reserves name. It takes the name from a session that is lost, and waits
// for one that is about to end.
func (s *server) claim(client context.Context, name string) (*entry, error) {
	for {
		e, taken := s.sessions.reserve(s.ctx, name)
		if e != nil {
			return e, nil
		}
		if !taken.lost() && taken.ctx.Err() == nil {
			return nil, &fault.Error{
				Code: fault.SessionExists, ID: "BN3101", Op: "set up session", Object: name, Reason: "there is one of that name",
				Hint: "borrownet shell --session " + name + ", or borrownet down " + name + ", or give this one a name of its own with --session",
			}
		}
		taken.cancel(errors.New("replaced by a new session"))
		select {
		case <-taken.gone:
		case <-client.Done():
			return nil, context.Cause(client)
		}
	}
}

// end gives the target back once somebody wants that.
func (s *server) end(e *entry) {
	<-e.ctx.Done()
	if err := e.current().Close(); err != nil {
		s.log.Warn("session ends with an error", "session", e.name, "err", err)
	}
	s.log.Info("session down", "session", e.name, "reason", context.Cause(e.ctx))
	s.sessions.drop(e)
}

// attend keeps an owned session's client informed until one of them ends.
func (s *server) attend(client context.Context, e *entry, out *stream, changes <-chan StateEvent) {
	if !tell(client, e, out, changes) {
		e.cancel(errors.New("its borrownet up has ended"))
	}
}

// tell sends changes to a client until it has gone, or the session, which it reports.
func tell(client context.Context, e *entry, out *stream, changes <-chan StateEvent) (ended bool) {
	for {
		select {
		case <-client.Done():
			return false
		case <-e.gone:
			for len(changes) > 0 { // nobody writes any more
				ev := <-changes
				out.send(Event{State: &ev})
			}
			out.send(Event{Ended: context.Cause(e.ctx).Error()})
			return true
		case ev := <-changes:
			out.send(Event{State: &ev})
		}
	}
}

// changes serves who wants to hear what happens to a session, without owning it: first
// how it is.
func (s *server) changes(w http.ResponseWriter, r *http.Request) {
	e := s.entry(w, r)
	if e == nil {
		return
	}
	changes, stop := e.watch()
	defer stop()
	out := newStream(w)
	e.mu.Lock()
	now := StateEvent{State: e.state, Problem: e.problem}
	e.mu.Unlock()
	out.send(Event{State: &now})
	tell(r.Context(), e, out, changes)
}

// stream writes events, one JSON per line, each at once.
type stream struct {
	mu  sync.Mutex
	enc *json.Encoder
	rc  *http.ResponseController
}

// newStream accepts the request: the client has its answer's head from now on.
func newStream(w http.ResponseWriter) *stream {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	st := &stream{enc: json.NewEncoder(w), rc: http.NewResponseController(w)}
	_ = st.rc.Flush() // a client that is gone is noticed by the request's context
	return st
}

func (st *stream) step(text string) { st.send(Event{Step: text}) }

// send reports whether the event was written.
func (st *stream) send(ev Event) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.enc.Encode(ev) == nil && st.rc.Flush() == nil
}
