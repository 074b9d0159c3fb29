package netstack

import (
	"net"
	"os"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// A life is what ends the operations of a conn: Close, the end of its stack, and
// the deadlines, which it has the methods of net.Conn for.
type life struct {
	stack     *Stack
	closed    chan struct{} // closed by end
	closeOnce sync.Once
	report    func(op string, err error) error // makes the net package's error; nil for nil

	readBy  deadline
	writeBy deadline
}

// begin is called once the conn is there.
func (l *life) begin(s *Stack, report func(op string, err error) error) {
	l.stack, l.closed, l.report = s, make(chan struct{}), report
}

// ready returns why an operation that heeds passed cannot go on, or nil.
func (l *life) ready(passed <-chan struct{}) error {
	select {
	case <-l.closed:
		return net.ErrClosed
	case <-l.stack.done:
		return net.ErrClosed
	default:
	}
	select {
	case <-passed:
		return os.ErrDeadlineExceeded
	default:
		return nil
	}
}

// wait waits for an event, and returns why there will be none.
func (l *life) wait(event, passed <-chan struct{}) error {
	select {
	case <-event:
	case <-l.closed:
	case <-l.stack.done:
	case <-passed:
	}
	return l.ready(passed)
}

// failed returns the error of an operation that gVisor has failed with terr.
func (l *life) failed(terr tcpip.Error) error {
	if err := l.ready(nil); err != nil {
		return err
	}
	return errnoOf(terr)
}

// end fails pending and later operations and calls release, once.
func (l *life) end(op string, release func()) error {
	err := net.ErrClosed
	l.closeOnce.Do(func() {
		close(l.closed)
		release()
		l.readBy.stop()
		l.writeBy.stop()
		err = nil
	})
	return l.report(op, err)
}

// SetDeadline implements net.Conn.
func (l *life) SetDeadline(t time.Time) error { return l.setDeadline(t, &l.readBy, &l.writeBy) }

// SetReadDeadline implements net.Conn.
func (l *life) SetReadDeadline(t time.Time) error { return l.setDeadline(t, &l.readBy) }

// SetWriteDeadline implements net.Conn.
func (l *life) SetWriteDeadline(t time.Time) error { return l.setDeadline(t, &l.writeBy) }

func (l *life) setDeadline(t time.Time, ds ...*deadline) error {
	if err := l.ready(nil); err != nil {
		return l.report("set deadline", err)
	}
	for _, d := range ds {
		d.set(t)
	}
	// A Close in between may have stopped the deadlines already.
	if err := l.ready(nil); err != nil {
		for _, d := range ds {
			d.stop()
		}
		return l.report("set deadline", err)
	}
	return nil
}
