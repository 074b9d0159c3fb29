package replay

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/borrownet/borrownet/netstack/flow"
)

// A delivery is an HTTP/2 request on its way to the local program. It is one goroutine
// and the transport's: run ends when the answer is complete or none is waited for.
type delivery struct {
	r    *Replayer
	flow flow.Flow
	now  *request
	head *http.Request
	to   *shared
	body *queue // nil: it has none

	ctx    context.Context // until the request is given up
	cancel context.CancelFunc
	before <-chan struct{} // closed when the heads of all earlier requests were written
	begun  chan struct{}   // closed when the head of this one was, or never will be
	once   sync.Once       // closes begun
	done   chan struct{}   // closed when its fate is known

	ended bool // the client has said all of it; used by the goroutine that has the packets

	trailer http.Header   // filled when the body ends; the transport's
	rest    []byte        // of the body's item at hand; the transport's
	bytes   atomic.Uint64 // of the body, that the transport took

	mu        sync.Mutex
	fate      fate        // why it was given up; taken: it was not
	sent      bool        // all of it was written
	abandoned bool        // the client does not want the answer
	timer     *time.Timer // bounds the wait for the answer; nil: nothing does
}

// end says that the request is complete.
func (d *delivery) end(trailer http.Header) {
	d.ended = true
	d.body.push(item{kind: itemEnd, trailer: trailer})
}

// isDone reports whether its fate is known.
func (d *delivery) isDone() bool {
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

// stop gives the request up.
func (d *delivery) stop(f fate) {
	d.mu.Lock()
	if d.fate == taken {
		d.fate = f
	}
	d.mu.Unlock()
	d.cancel()
}

// abandon says that the client does not want the answer any more. What it has asked for
// stands: the program gets all of it first.
func (d *delivery) abandon() {
	d.mu.Lock()
	d.abandoned = true
	sent := d.sent
	d.mu.Unlock()
	if sent {
		d.stop(delivered)
	}
}

// wrote notes that all of the request was written.
func (d *delivery) wrote() {
	d.mu.Lock()
	d.sent = true
	abandoned := d.abandoned
	d.mu.Unlock()
	if abandoned {
		d.stop(delivered)
	}
}

// linger bounds the wait for the answer: the flow is over.
func (d *delivery) linger() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isDone() {
		return
	}
	d.timer = time.AfterFunc(d.r.cfg.Linger, func() {
		d.mu.Lock()
		f := broken
		if d.sent {
			f = delivered
		}
		d.mu.Unlock()
		d.stop(f)
	})
}

func (d *delivery) run() {
	f, a := d.deliver()
	if a == nil && f == delivered {
		d.r.counts.unanswered.Add(1)
	}
	if d.body != nil {
		d.body.close() // whoever is told that it is over finds nothing held
	}
	d.r.settle(d.now, d.flow, d.bytes.Load(), f, a)
	d.mu.Lock()
	close(d.done)
	if d.timer != nil {
		d.timer.Stop()
	}
	d.mu.Unlock()
	d.cancel()
	d.to.release()
}

// pass lets the next request begin, once it is the turn of this one.
func (d *delivery) pass() { d.once.Do(func() { close(d.begun) }) }

// deliver gives the request to the local program and reads the answer.
func (d *delivery) deliver() (fate, *Answer) {
	select {
	case <-d.before:
	case <-d.ctx.Done():
		return d.givenUp(), nil
	}
	if d.body != nil {
		defer context.AfterFunc(d.ctx, d.body.stop)()
	}
	wrote := make(chan struct{}) // the transport writes nothing more
	resp, err := d.roundTrip(d.request(sync.OnceFunc(func() { close(wrote) })))
	if err != nil {
		return d.failed(err), nil
	}
	defer resp.Body.Close()
	d.to.spoke.Store(true)
	d.r.problem.Store(nil)
	a, err := readAnswer(resp, d.r.cfg.OnDifference != nil)
	if err != nil {
		return d.failed(err), nil
	}
	select { // a program may answer before it has heard all
	case <-wrote:
	case <-d.ctx.Done():
		return d.givenUp(), a
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.sent {
		return broken, a
	}
	return delivered, a
}

// request returns what the transport is to send. wrote is called when it writes nothing
// more of it.
func (d *delivery) request(wrote func()) *http.Request {
	trace := &httptrace.ClientTrace{
		WroteHeaders: d.pass,
		WroteRequest: func(info httptrace.WroteRequestInfo) {
			if info.Err == nil {
				d.wrote()
			}
			wrote()
		},
	}
	req := d.head.WithContext(httptrace.WithClientTrace(d.ctx, trace))
	opaque := d.head.URL.Opaque
	if strings.HasPrefix(opaque, "//") { // it is no authority: the transport takes this one off again
		opaque = "//" + cmp.Or(d.head.Host, anyHost) + opaque
	}
	req.URL = &url.URL{Scheme: "http", Host: anyHost, Opaque: opaque}
	req.RequestURI = ""
	if req.Header["User-Agent"] == nil {
		req.Header["User-Agent"] = nil // or the transport says one
	}
	if d.body == nil {
		req.Body, req.ContentLength = http.NoBody, 0
		return req
	}
	req.Body = body{d}
	d.trailer = http.Header{}
	req.Trailer = d.trailer
	return req
}

// roundTrip sends the request, on a new connection if the one that is there takes no
// more: nothing of it was written then.
func (d *delivery) roundTrip(req *http.Request) (*http.Response, error) {
	for again := false; ; again = true {
		c, err := d.to.connect(d.ctx)
		if err != nil {
			return nil, err
		}
		resp, err := c.RoundTrip(req)
		if err == nil || again || d.hasBegun() || d.ctx.Err() != nil || !d.to.spend(c) {
			return resp, err
		}
		d.r.counts.repeated.Add(1)
	}
}

func (d *delivery) hasBegun() bool {
	select {
	case <-d.begun:
		return true
	default:
		return false
	}
}

// givenUp returns why the request was given up.
func (d *delivery) givenUp() fate {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fate == taken {
		return cut // the Replayer closes
	}
	return d.fate
}

// failed returns what has become of a request that was not answered.
func (d *delivery) failed(err error) fate {
	switch {
	case d.ctx.Err() != nil:
		return d.givenUp()
	case errors.As(err, new(refusal)):
		return refused
	}
	text := err.Error()
	if !d.to.spoke.Load() {
		text = "no answer in HTTP/2, which the program has to speak without TLS: " + text
	}
	d.r.problem.Store(&text)
	return broken
}

// body is a delivery's body, as its transport reads it.
type body struct{ d *delivery }

func (b body) Read(p []byte) (int, error) {
	d := b.d
	for len(d.rest) == 0 {
		i, ok := d.body.pop()
		if !ok {
			return 0, io.ErrUnexpectedEOF // it was given up
		}
		if i.kind == itemEnd {
			maps.Copy(d.trailer, i.trailer)
			return 0, io.EOF
		}
		d.rest = i.data
	}
	n := copy(p, d.rest)
	d.rest = d.rest[n:]
	d.bytes.Add(uint64(n))
	d.r.counts.bytes.Add(uint64(n))
	return n, nil
}

// Close implements io.Closer: nobody reads any more. A transport that has not begun
// closes it too, and another one may read it.
func (b body) Close() error {
	if b.d.hasBegun() {
		b.d.body.stop()
	}
	return nil
}
