// Package guard carries a program's connection to a server and lets nothing pass that
// would change anything there, as far as that can be told: of HTTP/1 only the safe
// methods (RFC 9110 §9.2.1). Others are answered with 403 and the connection ends.
// HTTP/2 without TLS is refused, since it is not looked into; gRPC, which only POSTs, is
// among it. What is encrypted, and other protocols, pass: whoever wants that refused
// denies the destination.
package guard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/borrownet/borrownet/netstack/http1"
	"github.com/borrownet/borrownet/netstack/relay"
)

// A Refusal says what was not let through.
type Refusal struct {
	Method string // "" for what is no HTTP/1
	Host   string
	Target string
}

// Error says it in words.
func (r *Refusal) Error() string {
	if r.Method == "" {
		return "HTTP/2, which is not looked into"
	}
	return fmt.Sprintf("%s %s%s", r.Method, r.Host, r.Target)
}

// Copy is [relay.Copy] from a program to a server and back, but ends at the first
// request that is not safe: the error is a *Refusal then.
func Copy(ctx context.Context, program, server relay.Conn) error {
	g := &gate{Conn: program}
	relay.Copy(ctx, g, server, relay.Options{})
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refusal == nil {
		return nil
	}
	return g.refusal
}

// A gate is a program's connection, which reads only what may pass.
type gate struct {
	relay.Conn
	mu      sync.Mutex // of writes, so that an answer of the gate is not in the middle of another
	refusal *Refusal   // guarded by mu

	// Of Read alone:
	state   state
	buf     []byte // read and undecided
	ready   []byte // may pass
	looked  int
	frame   http1.Framing
	request *http.Request
	end     error // of the connection
}

// A state is what the next bytes are.
type state uint8

const (
	beginning state = iota // of the connection
	heading                // the head of a request
	inBody                 // the body of one that may pass
	switching              // behind one that may have switched protocols
	open                   // anything
)

// Read implements net.Conn.
func (g *gate) Read(b []byte) (int, error) {
	for len(g.ready) == 0 {
		if g.end != nil {
			return 0, g.end
		}
		n, err := g.Conn.Read(b)
		g.buf = append(g.buf, b[:n]...)
		if err != nil {
			g.end = err
		}
		if refusal := g.decide(); refusal != nil {
			g.refuse(refusal)
			g.end, g.buf = refusal, nil
		}
		if g.end != nil && len(g.buf) > 0 && (g.state == beginning || g.state == switching) {
			g.pass(len(g.buf)) // it never became a request
		}
	}
	n := copy(b, g.ready)
	g.ready = g.ready[n:]
	return n, nil
}

// Write implements net.Conn.
func (g *gate) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refusal != nil {
		return 0, io.ErrClosedPipe
	}
	return g.Conn.Write(b)
}

// Reset ends the connection, with the gate's answer if there is one.
func (g *gate) Reset() error {
	g.mu.Lock()
	refused := g.refusal != nil
	g.mu.Unlock()
	if r, ok := g.Conn.(interface{ Reset() error }); ok && !refused {
		return r.Reset()
	}
	if l, ok := g.Conn.(interface{ SetLinger(int) error }); ok && !refused {
		_ = l.SetLinger(0)
	}
	return g.Conn.Close()
}

// pass lets the first n undecided bytes pass.
func (g *gate) pass(n int) {
	g.ready = append(g.ready, g.buf[:n]...)
	g.buf = g.buf[n:]
}

// decide lets pass what may.
func (g *gate) decide() *Refusal {
	for len(g.buf) > 0 {
		switch g.state {
		case beginning, switching:
			switch http1.Sniff(g.buf) {
			case http1.Undecided:
				return nil
			case http1.HTTP1:
				g.state = heading
			case http1.HTTP2:
				return &Refusal{}
			default:
				g.state = open
			}
		case heading:
			if more, refusal := g.head(); more || refusal != nil {
				return refusal
			}
		case inBody:
			n, done, err := g.frame.Next(g.buf)
			if err != nil {
				return &Refusal{Method: g.request.Method, Host: g.request.Host, Target: g.request.RequestURI}
			}
			g.pass(n)
			if done {
				g.next()
			}
		case open:
			g.pass(len(g.buf))
		}
	}
	return nil
}

// head decides about a request. more reports that there is no whole head yet.
func (g *gate) head() (more bool, _ *Refusal) {
	lead := len(g.buf) - len(bytes.TrimLeft(g.buf, "\r\n"))
	n := http1.EndOfHead(g.buf[lead:], g.looked)
	if n == 0 {
		if len(g.buf) > http1.MaxHead {
			return false, &Refusal{Method: "a request with too long a head"}
		}
		g.looked = max(0, len(g.buf)-lead-3)
		return true, nil
	}
	g.looked = 0
	r, err := http1.ParseHead(g.buf[lead : lead+n])
	if err != nil {
		return false, &Refusal{Method: "a request that cannot be read"}
	}
	if !http1.Safe(r.Method) {
		return false, &Refusal{Method: r.Method, Host: r.Host, Target: r.RequestURI}
	}
	g.request, g.frame = r, http1.FramingOf(r)
	g.pass(lead + n)
	g.state = inBody
	if g.frame.Empty() {
		g.next()
	}
	return false, nil
}

// next prepares for what follows a request.
func (g *gate) next() {
	g.state = heading
	if http1.Switches(g.request) {
		g.state = switching
	}
}

// refuse answers the program.
func (g *gate) refuse(r *Refusal) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refusal = r
	if r.Method == "" {
		return // the reset that follows says it
	}
	text := "borrownet: this session is read-only: " + r.Error() + " was not sent\n"
	_, _ = fmt.Fprintf(g.Conn, "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
	_ = g.Conn.CloseWrite() // what it had sent before its answer was read is lost with it
}

// Refused returns the refusal that err is, or nil.
func Refused(err error) *Refusal {
	r, _ := errors.AsType[*Refusal](err)
	return r
}
