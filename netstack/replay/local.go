package replay

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"sync"

	"github.com/borrownet/borrownet/netstack/relay"
)

// local is a connection to the local program. A goroutine reads what it answers,
// which nobody gets.
type local struct {
	conn    relay.Conn
	counts  *counters
	answers chan *Answer  // holds one: to the latest request
	keep    bool          // answers are kept, to be compared
	gone    chan struct{} // closed when there is nothing more to read

	mu     sync.Mutex
	method string // of the request that waits for an answer; "" = none does
	bytes  bool   // what comes is no HTTP/1 answer
	heard  bool   // there is some answer to the latest request
	last   bool   // the program has said that it will close the connection
}

// newLocal begins to read from c.
func (r *Replayer) newLocal(c relay.Conn, http bool) *local {
	l := &local{conn: c, counts: &r.counts, answers: make(chan *Answer, 1), keep: r.cfg.OnDifference != nil, gone: make(chan struct{}), bytes: !http}
	go l.read() // ends with the connection; close waits for it
	return l
}

// ask says that a request follows.
func (l *local) ask(method string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.method, l.heard = method, false
}

// wasHeard reports whether a byte of an answer to the latest request came.
func (l *local) wasHeard() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.heard
}

// hears notes that something came. It returns the method of the request that waits for
// an answer.
func (l *local) hears() (method string, bytes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = l.method != ""
	return l.method, l.bytes
}

// discard says that what comes is no HTTP/1 answer any more.
func (l *local) discard() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bytes = true
}

// switched reports whether the program has agreed to another protocol.
func (l *local) switched() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes
}

// isGone reports whether there is nothing more to read.
func (l *local) isGone() bool {
	select {
	case <-l.gone:
		return true
	default:
		return false
	}
}

// isOver reports whether the program takes no further request on the connection.
func (l *local) isOver() bool {
	if l.isGone() {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// close ends the connection and waits for its reader.
func (l *local) close(reset bool) {
	if r, ok := l.conn.(interface{ Reset() error }); reset && ok {
		_ = r.Reset() // it is closed in any case
	} else if r, ok := l.conn.(interface{ SetLinger(int) error }); reset && ok {
		_ = r.SetLinger(0)
	}
	_ = l.conn.Close() // what it could say is of no use
	<-l.gone
}

// counted counts what is read.
type counted struct{ l *local }

func (c counted) Read(b []byte) (int, error) {
	n, err := c.l.conn.Read(b)
	c.l.counts.discarded.Add(uint64(n))
	return n, err
}

// read reads answers until the connection ends.
func (l *local) read() {
	defer close(l.gone)
	br := bufio.NewReaderSize(counted{l}, 4<<10)
	for {
		if _, err := br.Peek(1); err != nil {
			return
		}
		method, bytes := l.hears()
		if bytes {
			_, _ = io.Copy(io.Discard, br)
			return
		}
		if method == "" {
			return // it speaks unasked: a timeout, mostly, and then it closes
		}
		if err := l.answer(br, method); err != nil {
			return
		}
	}
}

// errClosing says that the program will close the connection.
var errClosing = errors.New("last answer")

// answer reads one answer.
func (l *local) answer(br *bufio.Reader, method string) error {
	for {
		resp, err := http.ReadResponse(br, &http.Request{Method: method})
		if err != nil {
			return err
		}
		if resp.StatusCode == http.StatusSwitchingProtocols || method == http.MethodConnect && resp.StatusCode/100 == 2 {
			l.discard()
			l.answered(&Answer{Status: resp.StatusCode, Header: resp.Header}, false)
			return nil
		}
		if resp.StatusCode < 200 {
			continue // an interim one (RFC 9110 §15.2)
		}
		a, err := readAnswer(resp, l.keep)
		if err != nil {
			return err
		}
		l.answered(a, resp.Close)
		if resp.Close {
			return errClosing
		}
		return nil
	}
}

// answered says that the answer is complete, and whether it is the connection's last:
// the player, whom the answer wakes, must not send another request here. If the
// request is not complete, it is an early answer, and the latest counts.
func (l *local) answered(a *Answer, last bool) {
	l.mu.Lock()
	l.method, l.last = "", last
	l.mu.Unlock()
	select {
	case l.answers <- a:
	default:
	}
}
