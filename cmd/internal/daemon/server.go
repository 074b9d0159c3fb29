package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

// Limits of the daemon's own work.
const (
	measureTimeout = 10 * time.Second
	stopTimeout    = 5 * time.Second
)

// server answers the API.
type server struct {
	ctx      context.Context // done when the daemon ends
	opener   Opener
	version  string
	log      *slog.Logger
	sessions *registry
	wg       sync.WaitGroup // ends of sessions under way
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathVersion, func(w http.ResponseWriter, _ *http.Request) {
		s.answer(w, Hello{API: API, Version: s.version, PID: os.Getpid()})
	})
	mux.HandleFunc("POST "+pathSessions, s.up)
	mux.HandleFunc("GET "+pathSessions, s.list)
	mux.HandleFunc("GET "+pathSessions+"/{name}", s.status)
	mux.HandleFunc("GET "+pathSessions+"/{name}/place", s.place)
	mux.HandleFunc("GET "+pathSessions+"/{name}/names", s.names)
	mux.HandleFunc("GET "+pathSessions+"/{name}/file", s.file)
	mux.HandleFunc("GET "+pathSessions+"/{name}/changes", s.changes)
	mux.HandleFunc("GET "+pathSessions+"/{name}/way", s.way)
	mux.HandleFunc("GET "+pathSessions+"/{name}/capture", s.record)
	mux.HandleFunc("GET "+pathSessions+"/{name}/requests", s.requests)
	mux.HandleFunc("DELETE "+pathSessions+"/{name}", s.down)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.sessions.enter() {
			http.Error(w, errClosing.Error(), http.StatusServiceUnavailable) // clients try again
			return
		}
		defer s.sessions.leave()
		mux.ServeHTTP(w, r)
	})
}

func (s *server) answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.log.Debug("answer client", "err", err)
	}
}

func (s *server) refuse(w http.ResponseWriter, code int, f *fault.Error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(f); err != nil {
		s.log.Debug("answer client", "err", err)
	}
}

// entry returns the session that r names, or answers that there is none.
func (s *server) entry(w http.ResponseWriter, r *http.Request) *entry {
	name := r.PathValue("name")
	e := s.sessions.get(name)
	if e == nil {
		s.refuse(w, http.StatusNotFound, NoSession(name))
	}
	return e
}

// NoSession says that there is no session of that name.
func NoSession(name string) *fault.Error {
	return &fault.Error{
		Code: fault.NoSession, ID: "BN3002", Op: "find session", Object: name, Reason: "there is none of that name",
		Hint: "borrownet status, or borrownet up --pod " + name,
	}
}

func (s *server) list(w http.ResponseWriter, r *http.Request) {
	measure := r.FormValue("measure") != ""
	ctx, cancel := context.WithTimeout(r.Context(), measureTimeout)
	defer cancel()
	entries := s.sessions.all()
	out := make([]session.Status, len(entries))
	var wg sync.WaitGroup
	for i, e := range entries {
		wg.Go(func() { out[i] = e.status(ctx, measure) })
	}
	wg.Wait()
	s.answer(w, out)
}

func (s *server) status(w http.ResponseWriter, r *http.Request) {
	e := s.entry(w, r)
	if e == nil {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), measureTimeout)
	defer cancel()
	s.answer(w, e.status(ctx, true))
}

func (s *server) place(w http.ResponseWriter, r *http.Request) {
	if sess := s.usable(w, r); sess != nil {
		s.answer(w, sess.Place())
	}
}

// settleWait is how long a request waits for a session that looks for another pod.
const settleWait = 8 * time.Second

// usable returns the session that r names if programs can run in it, or answers why
// they cannot.
func (s *server) usable(w http.ResponseWriter, r *http.Request) Session {
	e := s.entry(w, r)
	if e == nil {
		return nil
	}
	sess, problem := e.settled(r.Context())
	switch {
	case problem != nil:
		s.refuse(w, http.StatusConflict, problem)
		return nil
	case sess == nil:
		s.refuse(w, http.StatusConflict, &fault.Error{
			Code: fault.NoSession, Op: "use session", Object: e.name, Reason: "it is still being set up",
			Hint: "wait for the `borrownet up` that sets it up",
		})
		return nil
	}
	return sess
}

// names explains how a program's query for a name is answered.
func (s *server) names(w http.ResponseWriter, r *http.Request) {
	sess := s.usable(w, r)
	if sess == nil {
		return
	}
	out, err := sess.ExplainName(r.Context(), r.FormValue("name"), r.FormValue("type"))
	if err != nil {
		s.refuse(w, http.StatusBadRequest, fault.From(err))
		return
	}
	s.answer(w, out)
}

// file reads a file of the pod.
func (s *server) file(w http.ResponseWriter, r *http.Request) {
	sess := s.usable(w, r)
	if sess == nil {
		return
	}
	data, err := sess.ReadFile(r.Context(), r.FormValue("path"))
	if err != nil {
		s.refuse(w, http.StatusNotFound, fault.From(err))
		return
	}
	s.answer(w, data)
}

// way tells a forward or a proxy how to reach a host.
func (s *server) way(w http.ResponseWriter, r *http.Request) {
	sess := s.usable(w, r)
	if sess == nil {
		return
	}
	out, err := sess.Way(r.Context(), r.FormValue("host"))
	if err != nil {
		s.refuse(w, http.StatusBadGateway, fault.From(err))
		return
	}
	s.answer(w, out)
}

// record hands the stream of a capture on.
func (s *server) record(w http.ResponseWriter, r *http.Request) {
	sess := s.usable(w, r)
	if sess == nil {
		return
	}
	stream, err := sess.Record(r.Context())
	if err != nil {
		s.refuse(w, http.StatusConflict, fault.From(err))
		return
	}
	defer stream.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	rc := http.NewResponseController(w)
	buf := make([]byte, 64<<10)
	for {
		n, err := stream.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return // the client has left
			}
			_ = rc.Flush() // who has left is found out by the next write
		}
		if err != nil {
			return
		}
	}
}

func (s *server) down(w http.ResponseWriter, r *http.Request) {
	e := s.entry(w, r)
	if e == nil {
		return
	}
	out := Downed{Session: e.name}
	if r.FormValue("stop-agent") != "" {
		ctx, cancel := context.WithTimeout(r.Context(), stopTimeout)
		defer cancel()
		out.Warning = fault.From(e.stopAgent(ctx))
	}
	e.cancel(errDowned)
	select {
	case <-e.gone:
		out.Ending = s.sessions.ending()
		s.answer(w, out)
	case <-r.Context().Done():
	}
}

// decode reads a request's body.
func decode(r io.Reader, v any) error {
	d := json.NewDecoder(io.LimitReader(r, maxBody))
	if err := d.Decode(v); err != nil {
		return &fault.Error{Code: fault.General, Op: "read request", Reason: err.Error()}
	}
	// Only a body read to its end lets the server notice that the client left.
	if _, err := io.Copy(io.Discard, io.LimitReader(r, maxBody)); err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	return nil
}
