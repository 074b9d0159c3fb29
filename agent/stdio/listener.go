package stdio

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"sync"
)

// maxConns bounds the streams that are open at a time. What is opened beyond that is ignored.
const maxConns = 16

// Listener is the agent's end of the container's standard streams.
type Listener struct {
	in       io.ReadCloser
	out      io.WriteCloser
	greeting []byte

	accepted chan *Conn
	jobs     chan job // for the writer
	done     chan struct{}
	once     sync.Once
	err      error // of the first Close
	wg       sync.WaitGroup

	mu    sync.Mutex
	conns map[uint64]*Conn // open ones
}

// job is whole lines to write.
type job struct {
	lines []byte
	done  chan error // gets one error, never blocks
}

// Listen serves streams on in and out, which belong to it from then on. Their Close must end a Read and a Write in progress.
// greeting is what each client gets first.
func Listen(in io.ReadCloser, out io.WriteCloser, greeting []byte) *Listener {
	l := &Listener{
		in: in, out: out, greeting: bytes.Clone(greeting),
		accepted: make(chan *Conn, maxConns), jobs: make(chan job), done: make(chan struct{}), conns: map[uint64]*Conn{},
	}
	l.wg.Go(l.read)
	l.wg.Go(l.write)
	return l
}

// Accept returns the next stream that a client opens. After Close it returns net.ErrClosed.
func (l *Listener) Accept() (*Conn, error) {
	select {
	case c := <-l.accepted:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close closes both streams and all that is on them, and joins the goroutines.
func (l *Listener) Close() error {
	l.once.Do(func() {
		close(l.done)
		if err := l.in.Close(); err != nil {
			l.err = fmt.Errorf("close standard input: %w", err)
		}
		if err := l.out.Close(); err != nil && l.err == nil {
			l.err = fmt.Errorf("close standard output: %w", err)
		}
		l.closeConns(net.ErrClosed)
	})
	l.wg.Wait()
	return l.err
}

// read gives each record to its stream until standard input ends.
func (l *Listener) read() {
	in := newDecoder(l.in)
	for {
		r, err := in.next()
		if err != nil {
			l.closeConns(err)
			return
		}
		if r.kind == kindOpen {
			l.open(r)
			continue
		}
		l.mu.Lock()
		c := l.conns[r.stream]
		l.mu.Unlock()
		if c != nil {
			c.take(r)
		}
	}
}

// open makes a stream and answers, without waiting for room to do so.
func (l *Listener) open(r record) {
	c := newConn(l, r.stream)
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.done:
		return
	default:
	}
	if r.number != 0 || l.conns[r.stream] != nil || len(l.conns) == maxConns {
		return
	}
	select {
	case l.accepted <- c:
		l.conns[r.stream] = c
	default:
		return
	}
	l.wg.Go(c.greet) // ends with the stream at the latest
}

func (l *Listener) closeConns(err error) {
	l.mu.Lock()
	conns := l.conns
	l.conns = map[uint64]*Conn{}
	l.mu.Unlock()
	for _, c := range conns {
		c.fail(err)
	}
}

func (l *Listener) forget(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns[c.id] == c {
		delete(l.conns, c.id)
	}
}

// write writes what the streams give it, never half a line: who gives up waiting leaves the rest to it.
func (l *Listener) write() {
	for {
		select {
		case j := <-l.jobs:
			_, err := l.out.Write(j.lines)
			j.done <- err
		case <-l.done:
			return
		}
	}
}

// Conn is the agent's end of a stream.
type Conn struct {
	l  *Listener
	id uint64

	next uint32 // number of the next record; used by the Listener's reader
	data *io.PipeReader
	from *io.PipeWriter

	closed chan struct{}
	once   sync.Once

	mu    sync.Mutex // held across a write
	enc   encoder
	buf   []byte // nil while the Listener's writer has it
	wrote uint32 // number of the next record
	done  chan error
}

func newConn(l *Listener, id uint64) *Conn {
	c := &Conn{l: l, id: id, next: 1, closed: make(chan struct{})}
	c.data, c.from = io.Pipe()
	return c
}

// take takes a record from the client. It waits for the stream's reader, as a connection would.
func (c *Conn) take(r record) {
	switch {
	case r.number != c.next:
		c.fail(errGap)
	case r.kind == kindData:
		c.next++
		_, _ = c.from.Write(r.payload) // fails when the stream is closed
	case r.kind == kindEnd:
		c.fail(io.EOF)
	}
}

// fail ends reading with err. The stream is the reader's to close.
func (c *Conn) fail(err error) { c.from.CloseWithError(err) }

// greet answers the client's open.
func (c *Conn) greet() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.send(c.enc.append(nil, record{stream: c.id, kind: kindOpen, payload: c.l.greeting})); err != nil {
		c.fail(err)
	}
	c.wrote++
}

// Read implements io.Reader.
func (c *Conn) Read(p []byte) (int, error) { return c.data.Read(p) }

// Write implements io.Writer.
func (c *Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for done := 0; done < len(p); {
		n := min(len(p)-done, maxWrite)
		c.buf, c.wrote = c.enc.appendData(c.buf[:0], p[done:done+n], c.id, c.wrote)
		if err := c.send(c.buf); err != nil {
			return done, err
		}
		done += n
	}
	return len(p), nil
}

// send has lines written and waits for it, unless the stream is closed. The caller holds c.mu.
func (c *Conn) send(lines []byte) error {
	if c.done == nil {
		c.done = make(chan error, 1)
	}
	select {
	case <-c.closed:
		return net.ErrClosed
	default:
	}
	select {
	case c.l.jobs <- job{lines, c.done}:
	case <-c.closed:
		return net.ErrClosed
	case <-c.l.done:
		return net.ErrClosed
	}
	select {
	case err := <-c.done:
		return err
	case <-c.closed:
		c.buf, c.done = nil, nil
		return net.ErrClosed
	}
}

// Close ends the stream at once, and tells the client if that takes no time.
func (c *Conn) Close() error {
	c.once.Do(func() {
		c.l.forget(c)
		close(c.closed)
		c.fail(net.ErrClosed)
		c.data.Close()
		c.mu.Lock() // nobody writes any more, or is about to leave
		defer c.mu.Unlock()
		bye := job{c.enc.append(nil, record{stream: c.id, number: c.wrote, kind: kindEnd}), make(chan error, 1)}
		select {
		case c.l.jobs <- bye: // somebody waits for it
		default:
		}
	})
	return nil
}
