package replay

import (
	"bytes"
	"net/http"

	"github.com/borrownet/borrownet/netstack/http1"
	"github.com/borrownet/borrownet/netstack/http2"
)

// A multiplex takes what a client has sent on an HTTP/2 connection and decides what the
// local program gets of it. It is used by the goroutine that has the packets.
type multiplex struct {
	in      *inlet
	decoder *http2.Decoder
	to      *shared
	open    map[uint32]*delivery // by stream; those that the client may still do something to
	last    uint32               // the highest stream that was opened
	crowd   int                  // how many may be open until those are looked for that are done
}

var _ http2.Events = (*multiplex)(nil)

// minCrowd is how many streams may be open before anybody looks which of them are done.
const minCrowd = 64

// ownBytes is how many bytes are kept without the rest of their packet, which may be for
// streams that the local program does not get: what is held is bounded by what is queued.
const ownBytes = 4096

func newMultiplex(in *inlet) *multiplex {
	m := &multiplex{in: in, to: newShared(in.r, in.flow), open: map[uint32]*delivery{}, crowd: minCrowd}
	m.decoder = http2.NewDecoder(m, true)
	return m
}

// data takes the next bytes.
func (m *multiplex) data(b []byte) {
	if err := m.decoder.Decode(b); err != nil {
		in := m.in
		in.endMultiplex()
		in.wait(http1.HTTP2)
	}
}

// Head implements http2.Events.
func (m *multiplex) Head(stream uint32, fields []http2.Field, end bool) {
	if stream <= m.last {
		if d := m.open[stream]; d != nil && !d.ended {
			trailer, err := http2.TrailerOf(fields)
			if err != nil || !end {
				m.stop(stream, cut) // the live server refuses that too (RFC 9113 §8.1)
				return
			}
			d.end(trailer)
		}
		return
	}
	m.last = stream
	if r, err := http2.RequestOf(fields); err == nil { // else the live server refuses it
		m.begin(stream, r, end)
	}
}

// begin decides about a request.
func (m *multiplex) begin(stream uint32, head *http.Request, end bool) {
	r := m.in.r
	r.counts.requests.seen.Add(1)
	f := r.selector.take(head, r.now)
	if f == taken && r.playing.Load() >= int64(r.cfg.MaxConns) {
		f = slow
	}
	q := &request{method: head.Method, target: head.RequestURI, host: head.Host, at: r.now}
	if m.in.live != nil {
		if f == taken {
			q.exchange = r.exchange(q, m.in.flow)
		}
		m.in.live.expectOn(stream, q.exchange)
	}
	if f != taken {
		r.counts.requests.count(f)
		return
	}
	m.tidy()
	m.open[stream] = m.to.deliver(q, head, end)
}

// Data implements http2.Events.
func (m *multiplex) Data(stream uint32, b []byte, end bool) {
	d := m.open[stream]
	if d == nil || d.ended {
		return
	}
	if len(b) > 0 {
		if !m.in.r.fits(d.body, len(b)) {
			m.stop(stream, slow)
			return
		}
		if len(b) < ownBytes {
			b = bytes.Clone(b)
		}
		d.body.push(item{kind: itemBody, data: b})
	}
	if end {
		d.end(nil)
	}
}

// Reset implements http2.Events. A server says nothing more on such a stream.
func (m *multiplex) Reset(stream uint32) {
	if m.in.live != nil {
		m.in.live.forget(stream)
	}
	switch d := m.open[stream]; {
	case d == nil:
	case d.ended:
		delete(m.open, stream)
		d.abandon()
		d.linger() // the program may never take all of it
	default:
		m.stop(stream, cut)
	}
}

func (m *multiplex) stop(stream uint32, f fate) {
	m.open[stream].stop(f)
	delete(m.open, stream)
}

// tidy forgets what is done, now and then.
func (m *multiplex) tidy() {
	if len(m.open) < m.crowd {
		return
	}
	for stream, d := range m.open {
		if d.isDone() {
			delete(m.open, stream)
		}
	}
	m.crowd = max(minCrowd, 2*len(m.open))
}

// end says that the client says nothing more that could be understood: of requests that
// are complete the answers are waited for, for a while.
func (m *multiplex) end() {
	for stream, d := range m.open {
		if d.ended {
			d.linger()
			continue
		}
		m.stop(stream, cut)
	}
	clear(m.open)
	m.to.release()
}
