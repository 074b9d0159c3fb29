package replay

import (
	"net/http"

	"github.com/borrownet/borrownet/netstack/http2"
)

// answers finds the answers in what the live server sends on an HTTP/2 connection. It is
// used by the goroutine that has the packets.
type answers struct {
	decoder *http2.Decoder
	asked   map[uint32]*liveAnswer // by stream
}

// A liveAnswer is one on its way.
type liveAnswer struct {
	exchange *exchange
	answer   Answer
}

var _ http2.Events = (*answers)(nil)

// expectOn says that a request was sent on a stream of HTTP/2. x is nil if nobody wants
// to know the answer.
func (o *outlet) expectOn(stream uint32, x *exchange) {
	if o.gone {
		x.answered(liveSide, &Answer{Missing: "not in the capture"})
		return
	}
	o.manyAnswers()
	if x != nil {
		o.many.asked[stream] = &liveAnswer{exchange: x}
	}
}

// forget says that the client has given up a stream of HTTP/2, whose answer it did not wait for.
func (o *outlet) forget(stream uint32) {
	if o.many != nil && o.many.asked[stream] != nil {
		o.many.settle(stream, &Answer{Missing: "given up by its client"})
	}
}

// manyAnswers says that the connection speaks HTTP/2.
func (o *outlet) manyAnswers() {
	if o.many == nil {
		o.many = &answers{asked: map[uint32]*liveAnswer{}}
		o.many.decoder = http2.NewDecoder(o.many, false)
	}
}

// Head implements http2.Events.
func (s *answers) Head(stream uint32, fields []http2.Field, end bool) {
	l := s.asked[stream]
	if l == nil {
		return
	}
	var err error
	switch a := &l.answer; {
	case a.Status != 0:
		a.Trailer, err = http2.TrailerOf(fields)
	default:
		a.Status, a.Header, err = http2.StatusOf(fields)
		if a.Status < http.StatusOK { // an interim one (RFC 9110 §15.2)
			a.Status, a.Header = 0, nil
		}
	}
	if err != nil {
		s.settle(stream, &Answer{Missing: "malformed"})
	} else if end {
		s.settle(stream, &l.answer)
	}
}

// Data implements http2.Events.
func (s *answers) Data(stream uint32, b []byte, end bool) {
	l := s.asked[stream]
	if l == nil {
		return
	}
	a := &l.answer
	if room := maxAnswer - len(a.Body); len(b) > room {
		b, a.Cut = b[:room], true
	}
	a.Body = append(a.Body, b...)
	if end {
		s.settle(stream, a)
	}
}

// Reset implements http2.Events.
func (s *answers) Reset(stream uint32) {
	if s.asked[stream] != nil {
		s.settle(stream, &Answer{Missing: "reset"})
	}
}

func (s *answers) settle(stream uint32, a *Answer) {
	s.asked[stream].exchange.answered(liveSide, a)
	delete(s.asked, stream)
}

// giveUp says that no answer can be found from here on.
func (s *answers) giveUp(why string) {
	for stream := range s.asked {
		s.settle(stream, &Answer{Missing: why})
	}
}
