package replay

import (
	"bytes"
	"net/http"
	"time"

	"github.com/borrownet/borrownet/netstack/flow"
	"github.com/borrownet/borrownet/netstack/http1"
	"github.com/borrownet/borrownet/netstack/reassembly"
)

// A phase is what an inlet does with the next bytes.
type phase uint8

const (
	sniffing     phase = iota // finding out what the flow speaks
	heading                   // collecting the head of a request
	inBody                    // in the body of a request
	switching                 // behind a request that may have switched protocols
	streaming                 // passing bytes on
	multiplexing              // HTTP/2
	waiting                   // for a place where a request begins
	skipping                  // for the end
)

// A request is one on its way to the local program.
type request struct {
	method, target, host string
	at                   time.Time // in the capture
	exchange             *exchange // nil: answers are not compared
}

// An inlet takes what a client has sent and decides what the local program gets of
// it. It is used by the goroutine that has the packets.
type inlet struct {
	r    *Replayer
	flow flow.Flow
	out  *queue  // nil until there is something for the local program
	live *outlet // where the live answers are; nil if they are not compared

	phase   phase
	speaks  http1.Protocol
	named   http1.Protocol // as what the flow is counted among those that wait; undecided = it is not
	buf     []byte         // of sniffing, heading and switching
	looked  int            // where the search for the end of the head goes on
	frame   http1.Framing
	request *http.Request // of inBody and switching
	drop    bool          // the request, or what it switched to, is not for the local program
	raw     itemKind      // of what is streamed
	many    *multiplex    // of multiplexing
}

var _ reassembly.Stream = (*inlet)(nil)

// Data implements reassembly.Stream.
func (in *inlet) Data(b []byte, turn bool) {
	switch in.phase {
	case sniffing:
		in.sniff(b)
	case heading, inBody:
		in.http(b)
	case switching:
		in.afterSwitch(b)
	case streaming:
		in.stream(b)
	case multiplexing:
		in.many.data(b)
	case waiting:
		in.join(b, turn)
	case skipping:
		in.r.counts.skipped.Add(uint64(len(b)))
	}
}

// gather returns b behind what has been collected, without a copy if that is
// nothing.
func (in *inlet) gather(b []byte) []byte {
	if len(in.buf) == 0 {
		return b
	}
	in.buf = append(in.buf, b...)
	return in.buf
}

// collect keeps what gather returned until more comes.
func (in *inlet) collect(b []byte) {
	if len(in.buf) == 0 {
		in.buf = bytes.Clone(b)
	}
}

// sniff finds out what the flow speaks.
func (in *inlet) sniff(b []byte) {
	b = in.gather(b)
	if in.speaks = http1.Sniff(b); in.speaks == http1.Undecided {
		in.collect(b)
		return
	}
	in.buf = nil
	switch in.speaks {
	case http1.HTTP1:
		in.phase = heading
		in.http(b)
	case http1.HTTP2:
		in.phase, in.many = multiplexing, newMultiplex(in)
		in.many.data(b)
	case http1.TLS:
		in.r.counts.tls.Add(1)
		in.wait(http1.TLS)
		in.r.counts.skipped.Add(uint64(len(b)))
	default:
		in.beginStream(b)
	}
}

// beginStream passes on b and all that follows as bytes.
func (in *inlet) beginStream(b []byte) {
	in.r.counts.streams.seen.Add(1)
	in.phase, in.raw = streaming, itemRaw
	switch {
	case in.r.selector.needsHeads():
		in.r.counts.streams.count(filtered)
		in.phase = skipping
	case !in.ensure():
		in.r.counts.streams.count(slow)
		in.phase = skipping
	default:
		in.stream(b)
	}
}

// stream passes on bytes.
func (in *inlet) stream(b []byte) {
	if in.r.fits(in.out, len(b)) {
		in.out.push(item{kind: in.raw, data: b})
		return
	}
	in.out.push(item{kind: itemCut, fate: slow, stream: true})
	in.phase = skipping
}

// http takes bytes of requests.
func (in *inlet) http(b []byte) {
	for len(b) > 0 && (in.phase == heading || in.phase == inBody) {
		if in.phase == heading {
			b = in.head(b)
			continue
		}
		n, done, err := in.frame.Next(b)
		in.body(b[:n])
		if err != nil {
			in.cut()
			in.wait(http1.HTTP1)
			in.r.counts.skipped.Add(uint64(len(b) - n))
			return
		}
		if done {
			in.end()
		}
		b = b[n:]
	}
	if len(b) > 0 && in.phase == switching {
		in.afterSwitch(b)
	}
}

// head collects the head of a request. It returns what is behind it.
func (in *inlet) head(b []byte) []byte {
	b = in.gather(b)
	lead := len(b) - len(bytes.TrimLeft(b, "\r\n")) // RFC 9112 §2.2
	n := http1.EndOfHead(b[lead:], in.looked)
	if n == 0 && len(b) <= http1.MaxHead {
		in.collect(b)
		in.looked = max(0, len(b)-lead-3)
		return nil
	}
	in.buf, in.looked = nil, 0
	r, err := (*http.Request)(nil), http1.ErrFraming
	if n > 0 {
		r, err = http1.ParseHead(b[lead : lead+n])
	}
	if err != nil {
		// Perhaps the live server understands it, so the local program may.
		in.beginStream(b)
		return nil
	}
	in.begin(r, b[:lead+n])
	return b[lead+n:]
}

// begin decides about a request.
func (in *inlet) begin(r *http.Request, head []byte) {
	in.r.counts.requests.seen.Add(1)
	in.r.counts.requestBytes.Add(uint64(len(head)))
	in.request, in.frame, in.phase = r, http1.FramingOf(r), inBody
	f := in.r.selector.take(r, in.r.now)
	if f == taken && (!in.ensure() || !in.r.fits(in.out, len(head))) {
		f = slow
	}
	q := &request{method: r.Method, target: r.RequestURI, host: r.Host, at: in.r.now}
	in.drop = f != taken
	in.expect(q)
	if in.drop {
		in.r.counts.requests.count(f)
	} else {
		in.out.push(item{kind: itemBegin, data: head, request: q})
	}
	if in.frame.Empty() {
		in.end()
	}
}

// expect prepares to compare the answers to a request.
func (in *inlet) expect(q *request) {
	if in.live == nil {
		return
	}
	if !in.drop {
		q.exchange = in.r.exchange(q, in.flow)
	}
	in.live.expect(q.method, q.exchange)
}

// body passes on a part of a request's body.
func (in *inlet) body(b []byte) {
	in.r.counts.requestBytes.Add(uint64(len(b)))
	switch {
	case in.drop || len(b) == 0:
	case in.r.fits(in.out, len(b)):
		in.out.push(item{kind: itemBody, data: b})
	default:
		in.out.push(item{kind: itemCut, fate: slow})
		in.drop = true
	}
}

// end says that a request is complete.
func (in *inlet) end() {
	if !in.drop {
		in.out.push(item{kind: itemEnd})
	}
	in.phase = heading
	if http1.Switches(in.request) {
		in.phase = switching
	}
}

// afterSwitch finds out whether a connection goes on with requests behind one that
// asked to switch protocols.
func (in *inlet) afterSwitch(b []byte) {
	b = in.gather(b)
	speaks := http1.Sniff(b)
	if speaks == http1.Undecided {
		in.collect(b)
		return
	}
	in.buf = nil
	if speaks == http1.HTTP1 {
		in.phase = heading
		in.http(b)
		return
	}
	in.tail(b)
}

// tail passes on what a connection has switched to.
func (in *inlet) tail(b []byte) {
	if in.drop {
		in.phase = skipping
		return
	}
	in.r.counts.streams.seen.Add(1)
	in.phase, in.raw = streaming, itemSwitched
	in.stream(b)
}

// join enters the flow where a request begins.
func (in *inlet) join(b []byte, turn bool) {
	if turn && http1.SniffLine(b) == http1.HTTP1 {
		in.r.counts.joined.Add(1)
		in.name(http1.Undecided)
		in.speaks, in.phase = http1.HTTP1, heading
		in.http(b)
		return
	}
	if in.named == http1.Undecided {
		in.name(http1.SniffMiddle(b))
	}
	in.r.counts.skipped.Add(uint64(len(b)))
}

// name counts the flow among those that wait, by what it speaks.
func (in *inlet) name(p http1.Protocol) {
	if in.named != http1.Undecided {
		in.r.counts.waiting[in.named].Add(-1)
	}
	if in.named = p; p != http1.Undecided {
		in.r.counts.waiting[p].Add(1)
	}
}

// wait gives up until a request begins, or for good.
func (in *inlet) wait(p http1.Protocol) {
	in.r.counts.skipped.Add(uint64(len(in.buf))) // the beginning of something
	in.buf, in.looked = nil, 0
	in.name(p)
	in.phase = skipping
	if p == http1.HTTP1 || p == http1.Undecided {
		in.phase = waiting
	}
}

// cut tells the local program's side that the rest of what it is getting is missing.
func (in *inlet) cut() {
	if in.phase == inBody && !in.drop || in.phase == streaming {
		in.out.push(item{kind: itemCut, fate: cut, stream: in.phase == streaming})
	}
}

// Gap implements reassembly.Stream.
func (in *inlet) Gap(why reassembly.Reason, n uint64) {
	in.r.counts.gaps[why].Add(1)
	in.r.counts.gapBytes[why].Add(n)
	in.cut()
	switch in.phase {
	case waiting, skipping:
	case streaming:
		if in.speaks != http1.HTTP2 {
			in.speaks = http1.Opaque
		}
		in.wait(in.speaks)
	case multiplexing:
		in.endMultiplex()
		in.wait(in.speaks)
	default:
		in.wait(in.speaks)
	}
}

// End implements reassembly.Stream.
func (in *inlet) End(reset bool) {
	if len(in.buf) > 0 {
		b := in.buf
		switch in.buf = nil; in.phase {
		case sniffing:
			in.beginStream(b)
		case switching:
			in.tail(b)
		default:
			in.r.counts.skipped.Add(uint64(len(b)))
		}
	}
	switch in.phase {
	case inBody:
		in.cut()
	case multiplexing:
		in.endMultiplex()
	}
	in.name(http1.Undecided)
	in.phase = skipping
	if in.out == nil {
		return
	}
	kind := itemFin
	if reset {
		kind = itemReset
	}
	in.out.push(item{kind: kind})
}

// endMultiplex says that nothing more of HTTP/2 can be understood.
func (in *inlet) endMultiplex() {
	in.many.end()
	in.many = nil
}

// ensure makes somebody deliver what is pushed to in.out. It reports whether that
// was possible.
func (in *inlet) ensure() bool {
	if in.out == nil {
		in.out = in.r.play(in.flow)
	}
	return in.out != nil
}
