package replay

import (
	"bufio"
	"bytes"
	"io"
	"net/http"

	"github.com/borrownet/borrownet/netstack/http1"
	"github.com/borrownet/borrownet/netstack/reassembly"
)

// asked is a request whose live answer is to come.
type asked struct {
	method   string
	exchange *exchange // nil: nobody wants to know
}

// An outlet finds the answers in what the live server sends on a connection. It is
// used by the goroutine that has the packets.
type outlet struct {
	asked []asked
	gone  bool     // no answer can be found any more
	begun bool     // something came
	many  *answers // of HTTP/2; nil: it is none, as far as is known

	inBody bool
	raw    []byte        // of the answer so far: its head, and up to maxAnswer of its body
	head   int           // length of the head in raw
	looked int           // where the search for the end of the head goes on
	frame  http1.Framing // of its body
	toEnd  bool          // its body ends with the connection
	long   bool          // raw has not all of the body
}

var _ reassembly.Stream = (*outlet)(nil)

// expect says that a request was sent.
func (o *outlet) expect(method string, x *exchange) {
	if o.gone {
		x.answered(liveSide, &Answer{Missing: "not in the capture"})
		return
	}
	o.asked = append(o.asked, asked{method, x})
}

// Data implements reassembly.Stream.
func (o *outlet) Data(b []byte, _ bool) {
	if !o.begun && len(b) > 0 {
		o.begun = true
		if b[0] == 0 { // of the length of a frame; HTTP/1 begins with a letter
			o.manyAnswers()
		}
	}
	if o.many != nil && !o.gone {
		if err := o.many.decoder.Decode(b); err != nil {
			o.giveUp("malformed")
		}
		return
	}
	for len(b) > 0 && !o.gone {
		if !o.inBody {
			b = o.readHead(b)
			continue
		}
		if o.toEnd {
			o.keep(b)
			return
		}
		n, done, err := o.frame.Next(b)
		o.keep(b[:n])
		b = b[n:]
		switch {
		case err != nil:
			o.giveUp("malformed")
		case done:
			o.complete()
		}
	}
}

// keep adds to the answer what is to be kept of b.
func (o *outlet) keep(b []byte) {
	room := max(o.head+maxAnswer-len(o.raw), 0)
	if len(b) > room {
		b, o.long = b[:room], true
	}
	o.raw = append(o.raw, b...)
}

// readHead collects the head of an answer. It returns what is behind it.
func (o *outlet) readHead(b []byte) []byte {
	if len(o.asked) == 0 {
		return nil // answers to what was asked before the flow was entered
	}
	had := len(o.raw)
	o.raw = append(o.raw, b...)
	n := http1.EndOfHead(o.raw, o.looked)
	switch {
	case n == 0 && len(o.raw) > http1.MaxHead:
		o.giveUp("malformed")
		return nil
	case n == 0:
		o.looked = max(0, len(o.raw)-3)
		return nil
	}
	b = b[n-had:]
	o.raw, o.head, o.looked = o.raw[:n], n, 0
	resp, err := http.ReadResponse(bufio.NewReaderSize(bytes.NewReader(o.raw), 16), &http.Request{Method: o.asked[0].method})
	switch {
	case err != nil:
		o.giveUp("malformed")
		return nil
	case resp.StatusCode == http.StatusSwitchingProtocols:
		o.complete()
		o.giveUp("behind a switch of protocols")
		return nil
	case resp.StatusCode < 200:
		o.raw, o.head = nil, 0 // an interim one (RFC 9110 §15.2)
		return b
	}
	o.begin(resp)
	return b
}

// begin prepares for the body of resp.
func (o *outlet) begin(resp *http.Response) {
	o.inBody = true
	o.frame, o.toEnd = http1.FramingOfAnswer(resp)
	noBody := o.asked[0].method == http.MethodHead || resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified
	if noBody || !o.toEnd && o.frame.Empty() {
		o.complete()
	}
}

// complete hands on the answer.
func (o *outlet) complete() {
	q := o.asked[0]
	o.asked = o.asked[1:]
	raw := o.raw
	o.inBody, o.raw, o.head = false, nil, 0
	long := o.long
	o.long = false
	if q.exchange == nil {
		return
	}
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(raw)), &http.Request{Method: q.method})
	if err != nil {
		q.exchange.answered(liveSide, &Answer{Missing: "malformed"})
		return
	}
	a := &Answer{Status: resp.StatusCode, Header: resp.Header, Cut: long}
	a.Body, err = io.ReadAll(resp.Body)
	a.Trailer = resp.Trailer
	if err != nil && !long {
		a = &Answer{Missing: "malformed"}
	}
	q.exchange.answered(liveSide, a)
}

// giveUp says that no answer of the connection can be found from here on.
func (o *outlet) giveUp(why string) {
	o.gone, o.raw = true, nil
	for _, q := range o.asked {
		q.exchange.answered(liveSide, &Answer{Missing: why})
	}
	o.asked = nil
	if o.many != nil {
		o.many.giveUp(why)
	}
}

// Gap implements reassembly.Stream.
func (o *outlet) Gap(reassembly.Reason, uint64) { o.giveUp("not in the capture") }

// End implements reassembly.Stream.
func (o *outlet) End(reset bool) {
	if o.inBody && o.toEnd && !reset {
		o.complete()
	}
	o.giveUp("not in the capture")
}
