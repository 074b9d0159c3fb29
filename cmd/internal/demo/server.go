package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/rundir"
)

// A Server lets the processes of this user reach a world.
type Server struct {
	world *World
	dir   *rundir.Dir
	http  *http.Server
	wg    sync.WaitGroup
}

// Serve serves the world on the socket in dir. There is one world per
// directory. Close ends the server, not the world.
func (w *World) Serve(dir *rundir.Dir) (*Server, error) {
	if Running(dir) {
		return nil, AlreadyRunning()
	}
	// What is there was left by a demo that was killed.
	if err := os.Remove(dir.Path(SocketName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove stale socket: %w", err)
	}
	ln, err := dir.Listen(SocketName)
	if err != nil {
		return nil, err
	}
	s := &Server{world: w, dir: dir}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+pathResolve, s.resolve)
	mux.HandleFunc("POST "+pathAttach, s.attach)
	mux.HandleFunc("POST "+pathAgents, s.agents)
	mux.HandleFunc("POST "+pathFate, s.fate)
	mux.HandleFunc("POST "+pathNext, s.successor)
	mux.HandleFunc("POST "+pathRoll, s.roll)
	mux.HandleFunc("POST "+pathDial, s.dial)
	mux.HandleFunc("POST "+pathOffers, s.offers)
	s.http = &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(w.log.Handler(), slog.LevelDebug),
	}
	s.wg.Go(func() {
		if err := s.http.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			w.log.Warn("the demo's socket ends", "err", err)
		}
	})
	return s, nil
}

// AlreadyRunning says that there is a world already.
func AlreadyRunning() error {
	return &fault.Error{Code: fault.SessionExists, Op: "start the demo", Reason: "one is running already",
		Hint: "borrownet up --pod api --context " + Context + " uses it; Ctrl-C where it runs ends it"}
}

// Close ends the server and removes its socket. Carriers stay until the world
// ends.
func (s *Server) Close() error {
	err := s.http.Close()
	s.wg.Wait()
	s.dir.Remove()
	return err
}

// Running reports whether a world is served in dir.
func Running(dir *rundir.Dir) bool {
	c, err := net.Dial("unix", dir.Path(SocketName))
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// IsFile reports whether name is that of a file of the demo in a runtime
// directory, which a daemon's start must leave alone.
func IsFile(name string) bool { return name == SocketName || name == ProgramDir }

// read decodes a request, or answers that it cannot.
func (s *Server) read(w http.ResponseWriter, r *http.Request, v any) bool {
	err := json.NewDecoder(io.LimitReader(r.Body, maxBody)).Decode(v)
	if err != nil {
		s.refuse(w, http.StatusBadRequest, fmt.Errorf("read request: %w", err))
	}
	return err == nil
}

func (s *Server) answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the only failure left is a client that is gone
}

func (s *Server) refuse(w http.ResponseWriter, code int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(troubleOf(err))
}

func (s *Server) resolve(w http.ResponseWriter, r *http.Request) {
	var req resolveRequest
	if !s.read(w, r, &req) {
		return
	}
	t, err := s.world.Resolve(req.Namespace, req.Ref, req.Container)
	if err != nil {
		s.refuse(w, http.StatusNotFound, err)
		return
	}
	s.answer(w, t)
}

func (s *Server) offers(w http.ResponseWriter, r *http.Request) {
	var req offersRequest
	if !s.read(w, r, &req) {
		return
	}
	out, err := s.world.Offers(req.Namespace)
	if err != nil {
		s.refuse(w, http.StatusNotFound, err)
		return
	}
	s.answer(w, out)
}

func (s *Server) agents(w http.ResponseWriter, r *http.Request) {
	var t kube.Target
	if s.read(w, r, &t) {
		s.answer(w, s.world.Agents(&t))
	}
}

func (s *Server) fate(w http.ResponseWriter, r *http.Request) {
	var t kube.Target
	if s.read(w, r, &t) {
		s.answer(w, s.world.Fate(&t))
	}
}

func (s *Server) successor(w http.ResponseWriter, r *http.Request) {
	var t kube.Target
	if !s.read(w, r, &t) {
		return
	}
	next, err := s.world.Successor(&t)
	if err != nil {
		s.refuse(w, http.StatusNotFound, err)
		return
	}
	s.answer(w, next)
}

func (s *Server) roll(w http.ResponseWriter, _ *http.Request) {
	name, err := s.world.Roll()
	if err != nil {
		s.refuse(w, http.StatusConflict, err)
		return
	}
	s.answer(w, name)
}

func (s *Server) attach(w http.ResponseWriter, r *http.Request) {
	var req attachRequest
	if !s.read(w, r, &req) {
		return
	}
	if req.Target == nil {
		s.refuse(w, http.StatusBadRequest, errors.New("attach to no target"))
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc, rc := json.NewEncoder(w), http.NewResponseController(w)
	send := func(st attachStep) {
		if enc.Encode(st) == nil {
			_ = rc.Flush() // a client that is gone is noticed by the request's context
		}
	}
	a, err := s.world.Attach(r.Context(), req.Target, req.Spec, func(step string) { send(attachStep{Step: step}) })
	if err != nil {
		send(attachStep{Error: troubleOf(err)})
		return
	}
	send(attachStep{Agent: a})
}

// dial makes the request's connection a carrier.
func (s *Server) dial(w http.ResponseWriter, r *http.Request) {
	var req dialRequest
	if !s.read(w, r, &req) {
		return
	}
	if req.Target == nil {
		s.refuse(w, http.StatusBadRequest, errors.New("dial no target"))
		return
	}
	if _, err := s.world.answering(req.Target, req.Port); err != nil {
		code := http.StatusServiceUnavailable
		if errors.Is(err, syscall.ECONNREFUSED) {
			code = http.StatusNotFound
		}
		s.refuse(w, code, err)
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.refuse(w, http.StatusInternalServerError, err)
		return
	}
	// The client says nothing before it has the answer.
	if buffered.Reader.Buffered() > 0 {
		conn.Close()
		return
	}
	if err = conn.SetDeadline(time.Time{}); err == nil {
		_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", upgradeTo)
	}
	if err != nil {
		conn.Close()
		return
	}
	if err := s.world.Dial(req.Target, req.Port, conn); err != nil {
		// The agent ended in between: the client reads the end of the stream.
		s.world.log.Debug("carrier refused", "err", err)
		conn.Close()
	}
}
