package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moby/spdystream"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/borrownet/borrownet/agent/kube/api"
)

const (
	// protocolV1 is the sub-protocol of port-forward; over WebSocket the same
	// SPDY frames travel in binary messages, which the prefix says.
	protocolV1   = "portforward.k8s.io"
	tunnelPrefix = "SPDY/3.1+"

	// maxFrame bounds the data of one SPDY frame: every hop holds whole frames.
	maxFrame = 128 << 10

	// errorGrace is how long the end of the data waits for the words that say
	// why: they travel on a stream of their own.
	errorGrace = 2 * time.Second
)

// Use says what a carrier is for.
type Use uint8

// The uses.
const (
	ForCalls Use = iota // little data that must be quick
	ForBulk             // much data
	uses
)

// protocolsFor are the protocols for each use, the best first. Measured: the channel protocol has half the round trip of
// SPDY, SPDY takes half the CPU of it, and a tunnelled WebSocket is never better than both.
var protocolsFor = [uses][]string{
	ForCalls: {ProtocolChannel, ProtocolSPDY, ProtocolWebSocket},
	ForBulk:  {ProtocolSPDY, ProtocolWebSocket, ProtocolChannel},
}

// Dial connects to an agent, over the best protocol for the use that is let through: to its port on the pod's loopback,
// or, where that is refused and it has them, to its standard streams, which are for calls only. An error that says that
// port-forward is refused is an ErrForwardRefused. ctx bounds the dialling only.
func (c *Client) Dial(ctx context.Context, t *Target, a *Agent, use Use) (Carrier, error) {
	if a.Stdio && c.refusedLately() {
		return c.dialInstead(ctx, t, a, use)
	}
	carrier, refused, err := c.dialForward(ctx, t, a.Hello.Port, use)
	switch {
	case err == nil:
		return carrier, nil
	case refused && a.Stdio:
		c.refusedAt.Store(time.Now().UnixNano())
		return c.dialInstead(ctx, t, a, use)
	case refused:
		return nil, forwardRefused{c.explainDial(t, err)}
	}
	return nil, c.explainDial(t, err)
}

// dialForward dials a port over the best protocol for the use that is let through. refused says that the cluster lets none
// through for this user.
func (c *Client) dialForward(ctx context.Context, t *Target, port uint16, use Use) (_ Carrier, refused bool, _ error) {
	order := slices.Clone(protocolsFor[use])
	if last, _ := c.prefer[use].Load().(string); last != "" {
		order = append([]string{last}, slices.DeleteFunc(order, func(p string) bool { return p == last })...)
	}
	var told error // of SPDY if it was tried: that is what Roles allow at least
	refused = true
	for _, protocol := range order {
		carrier, err := c.dial(ctx, t, port, protocol)
		if err == nil {
			c.prefer[use].Store(protocol)
			return carrier, false, nil
		}
		refused = refused && isRefusal(err)
		if told == nil || protocol == ProtocolSPDY {
			told = err
		}
		if !mayFallBack(ctx, err) {
			break
		}
		c.log.Debug("port-forward falls back", "target", t.Namespace+"/"+t.Pod, "from", protocol, "err", err)
	}
	return nil, refused, told
}

// DialVia is Dial over one protocol, without fallback.
func (c *Client) DialVia(ctx context.Context, t *Target, port uint16, protocol string) (Carrier, error) {
	carrier, err := c.dial(ctx, t, port, protocol)
	if err != nil {
		return nil, c.explainDial(t, err)
	}
	return carrier, nil
}

func (c *Client) explainDial(t *Target, err error) error {
	if apierrors.IsNotFound(err) {
		return c.gone("connect to", t)
	}
	return c.explain("connect to", "pod "+t.Namespace+"/"+t.Pod, err)
}

// mayFallBack reports whether the other protocol may work where one failed
// with err: not when the server cannot be reached, nor when it knows neither
// user nor pod.
func mayFallBack(ctx context.Context, err error) bool {
	var op *net.OpError
	switch {
	case ctx.Err() != nil, apierrors.IsUnauthorized(err), apierrors.IsNotFound(err):
		return false
	case errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect"):
		return false
	case strings.Contains(err.Error(), "getting credentials: "):
		return false
	}
	return true
}

// carrier is one port-forwarded TCP connection, or a container's standard streams:
// a data stream, or one for each direction, and an error stream on a SPDY connection that nothing else uses. The
// library opens and closes them; data goes past it.
type carrier struct {
	protocol string
	object   string // for messages
	port     uint16
	conn     *frameConn
	spdy     *spdystream.Connection
	data     *spdystream.Stream
	from     *spdystream.Stream // that data comes from, nil = data
	errs     *spdystream.Stream

	closeOnce sync.Once
	closed    chan struct{}
	served    chan struct{} // closed when the connection has ended
	wg        sync.WaitGroup
	errDone   chan struct{} // closed when failure is set
	failure   string        // what the far side said went wrong; valid after errDone
}

var _ Carrier = (*carrier)(nil)

func (c *Client) dial(ctx context.Context, t *Target, port uint16, protocol string) (Carrier, error) {
	var rwc io.ReadWriteCloser
	var err error
	switch protocol {
	case ProtocolChannel:
		return c.dialChannel(ctx, t, port)
	case ProtocolSPDY:
		rwc, err = c.upgradeSPDY(ctx, forwardRequest("create", t), protocolV1)
	case ProtocolWebSocket:
		rwc, err = c.upgradeWebSocket(ctx, forwardRequest("get", t), tunnelPrefix+protocolV1)
	default:
		return nil, fmt.Errorf("unknown port-forward protocol %q", protocol)
	}
	if err != nil {
		return nil, err
	}
	headers := http.Header{}
	headers.Set(api.PortHeader, strconv.Itoa(int(port)))
	headers.Set(api.PortForwardRequestIDHeader, "0")
	return open(ctx, rwc, &carrier{protocol: protocol, object: "pod " + t.Namespace + "/" + t.Pod, port: port}, streams{write: api.StreamTypeData, headers: headers})
}

// streams are what a connection carries besides its error stream.
type streams struct {
	write   string      // type of the data stream
	read    string      // type of the stream that data comes from; "" = the same one
	headers http.Header // of all streams, besides their types
}

// open makes f the streams on the connection rwc, which it closes if that fails.
func open(ctx context.Context, rwc io.ReadWriteCloser, f *carrier, want streams) (*carrier, error) {
	f.conn = newFrameConn(rwc)
	f.closed, f.served, f.errDone = make(chan struct{}), make(chan struct{}), make(chan struct{})
	var err error
	if f.spdy, err = spdystream.NewConnection(f.conn, false); err != nil {
		f.conn.Close()
		return nil, fmt.Errorf("start SPDY: %w", err)
	}
	// The streams' numbers, before the server may answer the first of them.
	f.conn.out = uint32(f.spdy.PeekNextStreamId()) + 2 // the error stream is opened first
	f.conn.direct = f.conn.out
	if want.read != "" {
		f.conn.direct += 2
	}
	f.wg.Go(func() {
		defer close(f.served)
		f.spdy.Serve(refuseStream)
	})
	if err := f.openStreams(ctx, want); err != nil {
		f.Close()
		return nil, contextCause(ctx, err)
	}
	f.wg.Go(f.readFailure)
	return f, nil
}

// refuseStream answers a stream that the server opens: there are none.
func refuseStream(s *spdystream.Stream) { _ = s.Refuse() }

// openStreams opens all streams at once and waits for the answers.
func (f *carrier) openStreams(ctx context.Context, want streams) error {
	stop := context.AfterFunc(ctx, func() { f.conn.Close() }) // unblocks writes
	defer stop()
	headers := want.headers.Clone()
	headers.Set(api.StreamType, api.StreamTypeError)
	var err error
	if f.errs, err = f.spdy.CreateStream(headers.Clone(), nil, false); err != nil {
		return fmt.Errorf("open error stream: %w", err)
	}
	headers.Set(api.StreamType, want.write)
	if f.data, err = f.spdy.CreateStream(headers.Clone(), nil, false); err != nil {
		return fmt.Errorf("open data stream: %w", err)
	}
	last := f.data
	if want.read != "" {
		headers.Set(api.StreamType, want.read)
		if f.from, err = f.spdy.CreateStream(headers, nil, false); err != nil {
			return fmt.Errorf("open data stream: %w", err)
		}
		last = f.from
	}
	if id := last.Identifier(); id != f.conn.direct {
		return fmt.Errorf("open data stream: its number is %d, not %d", id, f.conn.direct)
	}
	for _, s := range f.streams() {
		if err := f.awaitReply(ctx, s); err != nil {
			return fmt.Errorf("open stream: %w", err)
		}
	}
	if err := f.errs.Close(); err != nil { // we never write there
		return fmt.Errorf("half-close error stream: %w", err)
	}
	return nil
}

// streams returns the streams that are open.
func (f *carrier) streams() []*spdystream.Stream {
	return slices.DeleteFunc([]*spdystream.Stream{f.errs, f.data, f.from}, func(s *spdystream.Stream) bool { return s == nil })
}

// awaitReply waits until the server accepted a stream. The library's wait
// knows neither contexts nor the end of the connection, so it is cut in slices.
func (f *carrier) awaitReply(ctx context.Context, s *spdystream.Stream) error {
	for {
		err := s.WaitTimeout(50 * time.Millisecond)
		if !errors.Is(err, spdystream.ErrTimeout) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-f.spdy.CloseChan():
			return io.ErrUnexpectedEOF
		default:
		}
	}
}

// drainReply takes a refusal that nobody waits for any more: the library's
// worker would wait for ever to hand it over.
func (f *carrier) drainReply(s *spdystream.Stream) {
	for errors.Is(s.WaitTimeout(20*time.Millisecond), spdystream.ErrTimeout) {
		select {
		case <-f.served:
			return
		default:
		}
	}
}

// readFailure collects what the far side says on the error stream, until the
// stream or the connection ends.
func (f *carrier) readFailure() {
	defer close(f.errDone)
	b, _ := io.ReadAll(io.LimitReader(f.errs, maxStatus)) // the stream's end is no news
	f.failure = oneLine(string(b))
	_, _ = io.Copy(io.Discard, f.errs) // unread frames would stall the connection
}

// Protocol is one of the Protocol constants.
func (f *carrier) Protocol() string { return f.protocol }

// Read reads from the pod's port. When the far side said why the stream ended,
// that is the error.
func (f *carrier) Read(p []byte) (int, error) {
	n, err := f.conn.readData(p)
	if n > 0 || err == nil {
		return n, nil
	}
	return 0, f.readError(err)
}

func (f *carrier) readError(err error) error {
	t := time.NewTimer(errorGrace)
	defer t.Stop()
	select {
	case <-f.closed:
		return net.ErrClosed
	case <-f.errDone:
	case <-t.C:
		return err
	}
	select {
	case <-f.closed: // Close ends the error stream too
		return net.ErrClosed
	default:
	}
	switch {
	case f.failure == "":
		return err
	case f.protocol == ProtocolAttach:
		return attachEnded(f.object, f.failure)
	}
	return forwardFailure(f.object, f.port, f.failure)
}

// forwardFailure is the error for what the far side said.
func forwardFailure(object string, port uint16, said string) error {
	e := &Error{Op: "reach the agent in", Object: object, Reason: said, Err: io.ErrUnexpectedEOF}
	if strings.Contains(said, "connection refused") {
		e.Reason = fmt.Sprintf("nothing listens on port %d any more: the agent has ended", port)
		e.Err = syscall.ECONNREFUSED
	}
	return e
}

// Write writes to the pod's port.
func (f *carrier) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n := min(maxFrame, len(p)-done)
		err := f.conn.writeData(p[done : done+n])
		if err == nil {
			done += n
			continue
		}
		select {
		case <-f.closed:
			return done, net.ErrClosed
		default:
			return done, fmt.Errorf("write to %s: %w", f.object, err)
		}
	}
	return done, nil
}

// Close ends the connection at once, without a goodbye that a stuck path could
// hold up, and waits for its goroutines.
func (f *carrier) Close() error {
	f.closeOnce.Do(func() {
		close(f.closed)
		f.conn.Close()
		// The connection's workers may wait for a reader: resetting the streams
		// lets them go. The frames this writes find a closed connection.
		for _, s := range f.streams() {
			_ = s.Reset()
			f.wg.Go(func() { f.drainReply(s) })
		}
		_ = f.spdy.Close()
	})
	f.wg.Wait()
	return nil
}
