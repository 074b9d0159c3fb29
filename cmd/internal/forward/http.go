package forward

import (
	"bufio"
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"time"

	"github.com/borrownet/borrownet/netstack/relay"
)

// httpProxy serves an HTTP proxy: CONNECT for https and the like, and requests with
// an absolute URL for http.
func (s *Server) httpProxy(ctx context.Context, ln net.Listener) error {
	transport := &http.Transport{
		DialContext:        func(ctx context.Context, _, address string) (net.Conn, error) { return s.cfg.Dialer.dial(ctx, address) },
		IdleConnTimeout:    time.Minute,
		DisableCompression: true, // what the server sends is what the client gets
	}
	defer transport.CloseIdleConnections()
	p := &proxy{server: s, plain: &httputil.ReverseProxy{
		Transport: transport, FlushInterval: -1, ErrorLog: log.New(nowhere{}, "", 0),
		Rewrite: func(*httputil.ProxyRequest) {}, // as it is: the peer does not hear of a proxy
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			s.refuse(w, r, err)
		},
	}}
	srv := &http.Server{Handler: p, ReadHeaderTimeout: greetTimeout, MaxHeaderBytes: 64 << 10, ErrorLog: log.New(nowhere{}, "", 0),
		BaseContext: func(net.Listener) context.Context { return ctx }}
	defer srv.Close()
	defer context.AfterFunc(ctx, func() { srv.Close() })()
	return srv.Serve(ln)
}

// nowhere discards what a library would print.
type nowhere struct{}

func (nowhere) Write(b []byte) (int, error) { return len(b), nil }

type proxy struct {
	server *Server
	plain  http.Handler
}

// ServeHTTP implements http.Handler.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodConnect:
		p.server.tunnel(w, r)
	case r.URL.Scheme == "http" && r.URL.Host != "":
		p.plain.ServeHTTP(w, r)
	default:
		http.Error(w, "borrownet: this is a proxy: name it as one, for example curl --proxy http://"+r.Host+" http://SERVICE", http.StatusBadRequest)
	}
}

// refuse says what went wrong to who waits for an answer.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // nobody waits
	}
	s.failed(r, err)
	http.Error(w, "borrownet: "+err.Error(), http.StatusBadGateway)
}

func (s *Server) failed(r *http.Request, err error) {
	f := Failure{Err: err}
	f.At, _ = r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if from, perr := net.ResolveTCPAddr("tcp", r.RemoteAddr); perr == nil {
		f.From = from
	}
	s.cfg.Failed(f)
}

// tunnel makes the client's connection one to the host that it names.
func (s *Server) tunnel(w http.ResponseWriter, r *http.Request) {
	host, port, err := split(r.Host)
	if err != nil {
		http.Error(w, "borrownet: "+err.Error(), http.StatusBadRequest)
		return
	}
	f, err := s.cfg.Dialer.open(r.Context(), host, port)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.refuse(w, r, errors.Join(err, f.Close()))
		return
	}
	c := conn.(*net.TCPConn) // what guard gives
	if err = c.SetDeadline(time.Time{}); err == nil {
		_, err = c.Write([]byte("HTTP/1.1 200 Connection established\r\n\r\n"))
	}
	switch {
	case err != nil:
		err = errors.Join(err, c.Close(), f.Close())
	case buffered.Reader.Buffered() == 0:
		err = hand(f, c)
	default:
		// The client spoke before it had the answer: what the server has read of that
		// goes first.
		var ours, theirs *net.TCPConn
		if ours, theirs, err = pair(r.Context()); err != nil {
			err = errors.Join(err, c.Close(), f.Close())
		} else if err = hand(f, theirs); err == nil {
			relay.Copy(r.Context(), early{c, buffered.Reader}, ours, relay.Options{})
		}
	}
	if err != nil {
		s.failed(r, err)
	}
}

// early is a connection some of whose bytes were read before.
type early struct {
	*net.TCPConn
	r *bufio.Reader
}

// Read implements net.Conn.
func (e early) Read(b []byte) (int, error) { return e.r.Read(b) }

// Reset ends it as relay wants to.
func (e early) Reset() error {
	reset(e.TCPConn)
	return nil
}
