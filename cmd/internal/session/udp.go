package session

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/flow"
)

const (
	maxUDPFlows = 512 // UDP flows to the laptop at a time
	udpBacklog  = 32  // datagrams of a flow that wait for its goroutine
	udpIdle     = 120 * time.Second
	decidePause = time.Second // how long a flow that is refused stays where it is
)

// forwardUDP takes one datagram of a program of the session. It does not block.
func (l *locals) forwardUDP(f flow.Flow, payload []byte) {
	switch {
	case l.resolves(f.Dst):
		l.resolve(f, payload)
	case f.Dst.Addr().IsLoopback() && l.ports.Load().answer(f, payload):
	case f.Dst.Addr().IsLoopback(), l.isLocal(f.Dst.Addr()):
		l.udp.forward(l.ctx, f, payload)
	default:
		_ = l.stack.SendUnreachable(f, syscall.ENETUNREACH) // no room: the program asks again
	}
}

// resolve answers a query of f.
func (l *locals) resolve(f flow.Flow, query []byte) {
	l.dns.Serve(query, func(reply []byte) { l.sendUDP(f.Dst, f.Src, reply) })
}

// answer takes a packet of a program that is a query, past the stack, and reports whether it is one.
func (l *locals) answer(pkt []byte) bool {
	f, payload, ok := netstack.Datagram(pkt)
	if !ok || !l.resolves(f.Dst) {
		return false
	}
	l.resolve(f, payload)
	return true
}

// udpTable relays datagrams to the laptop and its network, each flow through a socket of its own on
// the laptop, or back into the session if a program there has the port.
type udpTable struct {
	stack *netstack.Stack
	// inside reports whether a program of the session has the UDP port.
	inside    func(port uint16) bool
	redirects *redirects
	wg        sync.WaitGroup // flows

	mu    sync.Mutex
	flows map[flow.Flow]*udpFlow
	open  int // flows that have not ended; those that are about to are in the table no more
}

// udpFlow is one flow of the table.
type udpFlow struct {
	in   chan []byte // what the program has sent; never closed
	last clock       // when a datagram came, either way
	end  context.CancelFunc
}

func newUDPTable(stack *netstack.Stack, inside func(uint16) bool, redirects *redirects) *udpTable {
	return &udpTable{stack: stack, inside: inside, redirects: redirects, flows: map[flow.Flow]*udpFlow{}}
}

// forward hands a datagram to its flow. It does not block. When there are too many the one that has been silent longest
// gives way.
func (t *udpTable) forward(ctx context.Context, f flow.Flow, payload []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.flows[f]
	if u == nil {
		if t.open >= 2*maxUDPFlows || ctx.Err() != nil {
			_ = t.stack.SendUnreachable(f, syscall.EHOSTUNREACH)
			return
		}
		if len(t.flows) >= maxUDPFlows {
			t.endOldestLocked()
		}
		u = &udpFlow{in: make(chan []byte, udpBacklog)}
		u.last.touch()
		ctx, u.end = context.WithCancel(ctx)
		t.flows[f] = u
		t.open++
		t.wg.Go(func() { t.serve(ctx, f, u) })
	}
	select {
	case u.in <- append([]byte(nil), payload...):
	default: // as a full socket buffer does
	}
}

func (t *udpTable) endOldestLocked() {
	var oldest flow.Flow
	longest := time.Duration(-1)
	for f, u := range t.flows {
		if since := u.last.since(); since > longest {
			oldest, longest = f, since
		}
	}
	t.flows[oldest].end()
	delete(t.flows, oldest)
}

// remove takes u, which has ended, out of the table if it is there.
func (t *udpTable) remove(f flow.Flow, u *udpFlow) {
	u.end()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open--
	if t.flows[f] == u {
		delete(t.flows, f)
	}
}

// serve relays one flow until it is idle or ctx ends.
func (t *udpTable) serve(ctx context.Context, f flow.Flow, u *udpFlow) {
	defer t.remove(f, u)
	if f.Dst.Addr().IsLoopback() && t.inside(f.Dst.Port()) {
		outbound(ctx, u, func(payload []byte) error { return t.stack.SendUDP(f.Src, f.Dst, payload) })
		return
	}
	dst := f.Dst
	if to, redirected := t.redirects.target(dst); redirected {
		if !to.IsValid() {
			_ = t.stack.SendUnreachable(f, syscall.ECONNREFUSED)
			return
		}
		dst = to
	}
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(dst))
	if err != nil {
		_ = t.stack.SendUnreachable(f, err)
		return
	}
	var wg sync.WaitGroup
	refused := t.refuser(f, u.end)
	wg.Go(func() { t.inbound(c, f, &u.last, refused) })
	outbound(ctx, u, func(payload []byte) error {
		_, err := c.Write(payload)
		if isLate(err) {
			refused(err)
			_, err = c.Write(payload)
		}
		return err
	})
	c.Close()
	wg.Wait()
}

// refuser returns what tells f's program that a datagram did not arrive. It ends a flow that nobody listens for, but for
// the first moment: by then the port may be that of a program of the session, which the next datagram finds out.
func (t *udpTable) refuser(f flow.Flow, end func()) func(error) {
	begun := time.Now()
	return func(err error) {
		if errors.Is(err, syscall.EMSGSIZE) {
			return // the next ones are sent in pieces
		}
		_ = t.stack.SendUnreachable(f, err)
		if errors.Is(err, syscall.ECONNREFUSED) && time.Since(begun) > decidePause {
			end()
		}
	}
}

// isLate reports whether an error of a datagram socket may be about an earlier datagram, by ICMP: the call did nothing, and the
// socket works.
func isLate(err error) bool {
	errno, _ := errors.AsType[syscall.Errno](err)
	switch errno {
	case syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.EPROTO, syscall.ENOPROTOOPT,
		syscall.EOPNOTSUPP, syscall.EACCES, syscall.EMSGSIZE:
		return true
	}
	return false
}

// outbound sends datagrams until the flow was idle for udpIdle or ctx ends.
func outbound(ctx context.Context, u *udpFlow, send func([]byte) error) {
	idle := time.NewTimer(udpIdle)
	defer idle.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-idle.C:
			left := udpIdle - u.last.since()
			if left <= 0 {
				return
			}
			idle.Reset(left)
		case payload := <-u.in:
			u.last.touch()
			if err := send(payload); errors.Is(err, net.ErrClosed) {
				return
			}
		}
	}
}

// datagramReader is what inbound needs of a *net.UDPConn.
type datagramReader interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
}

// inbound passes replies and refusals back until c is closed.
func (t *udpTable) inbound(c datagramReader, f flow.Flow, last *clock, refused func(error)) {
	buf := make([]byte, maxPacket)
	for {
		n, _, err := c.ReadFromUDPAddrPort(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case isLate(err):
			refused(err)
		case err != nil:
			return
		default:
			last.touch()
			_ = t.stack.SendUDP(f.Dst, f.Src, buf[:n]) // no room: as a lost datagram
		}
	}
}

// clock remembers when something happened last.
type clock struct{ nanos atomic.Int64 }

func (c *clock) touch()               { c.nanos.Store(time.Now().UnixNano()) }
func (c *clock) since() time.Duration { return time.Since(time.Unix(0, c.nanos.Load())) }
