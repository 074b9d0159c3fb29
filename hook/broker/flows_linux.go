package broker

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/hook"
	"github.com/borrownet/borrownet/hook/farend"
	"github.com/borrownet/borrownet/hook/switchboard"
)

// maxFlows bounds the flows of a session's programs. Of those of datagrams, which
// do not say when they end, the one that was used longest ago makes room.
const maxFlows = 4096

// maxEnded bounds the streams that are remembered when nothing is carried any more:
// a program may still ask whom it was connected to.
const maxEnded = 1024

// pair names a flow by its two ends on loopback: what the kernel keeps apart, and
// what a program's socket says of itself wherever its descriptor went.
type pair struct {
	stream    bool
	near, far netip.AddrPort
}

// route names a flow of datagrams by where a program's socket sends.
type route struct{ near, dst netip.AddrPort }

// flow is one that is carried.
type flow struct {
	pair
	dst  netip.AddrPort
	used time.Time
	// Of one of datagrams:
	end    context.CancelFunc
	absent int // looks in a row that did not find its socket
}

// flows are the flows of a session's programs.
type flows struct {
	ctx     context.Context // alive until the server ends
	handler Handler
	log     *slog.Logger
	wg      sync.WaitGroup // what carries them, connects that go on, the sweep

	mu     sync.Mutex
	ended  []*flow // streams, oldest first
	byPair map[pair]*flow
	byDst  map[route]*flow // those of datagrams
}

func newFlows(ctx context.Context, h Handler, log *slog.Logger) *flows {
	f := &flows{ctx: ctx, handler: h, log: log, byPair: map[pair]*flow{}, byDst: map[route]*flow{}}
	f.wg.Go(f.sweep)
	return f
}

// close joins what carries the flows. The context must have ended.
func (f *flows) close() { f.wg.Wait() }

// full reports whether there is no room, after an attempt to make some.
func (f *flows) full() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.byPair)-len(f.ended) >= maxFlows {
		f.evictLocked()
	}
	return len(f.byPair)-len(f.ended) >= maxFlows
}

// add remembers a flow.
func (f *flows) add(one *flow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.byPair[one.pair] = one
	if !one.stream {
		f.byDst[route{one.near, one.dst}] = one
	}
}

func (f *flows) evictLocked() {
	var oldest *flow
	for _, one := range f.byDst {
		if oldest == nil || one.used.Before(oldest.used) {
			oldest = one
		}
	}
	if oldest != nil {
		f.removeLocked(oldest)
		oldest.end()
	}
}

func (f *flows) remove(one *flow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.removeLocked(one)
}

// finish notes that a stream has ended.
func (f *flows) finish(one *flow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended = append(f.ended, one); len(f.ended) > maxEnded {
		f.removeLocked(f.ended[0])
		f.ended = f.ended[1:]
	}
}

func (f *flows) removeLocked(one *flow) {
	if f.byPair[one.pair] == one {
		delete(f.byPair, one.pair)
	}
	if r := (route{one.near, one.dst}); f.byDst[r] == one {
		delete(f.byDst, r)
	}
}

// peer says whom a far end stands for.
func (f *flows) peer(near farend.Socket, stream bool, far netip.AddrPort) hook.Answer {
	key := pair{stream, local(near, far.Addr()), far}
	f.mu.Lock()
	defer f.mu.Unlock()
	one := f.byPair[key]
	if one == nil {
		return hook.Answer{Verdict: hook.VerdictLocal}
	}
	one.used = time.Now()
	return hook.Answer{Verdict: hook.VerdictDone, Addr: one.dst}
}

// local is the address by which a far end knows the socket.
func local(near farend.Socket, far netip.Addr) netip.AddrPort {
	at := farend.Name(near.FD)
	if at.Addr().IsUnspecified() {
		return netip.AddrPortFrom(far, at.Port())
	}
	return at
}

// connect connects a stream to dst as connect(2) would.
func (f *flows) connect(ctx context.Context, near farend.Socket, dst netip.AddrPort) hook.Answer {
	switch farend.State(near.FD) {
	case farend.Closed, -1: // -1 where a sandbox does not tell
	case farend.Connecting:
		return failed(unix.EALREADY)
	default:
		return failed(unix.EISCONN)
	}
	if f.full() {
		return failed(unix.ENOBUFS)
	}
	// The dial outlives the call if the program does not wait for it.
	dialCtx, cancel := context.WithTimeout(f.ctx, farend.ConnectTimeout)
	outcome := make(chan opened, 1)
	f.wg.Go(func() { // ends with dialCtx at the latest
		carry, err := f.handler.OpenTCP(dialCtx, dst)
		outcome <- opened{carry, err}
	})
	nonblocking, limit := near.Waits()
	var late <-chan time.Time
	if nonblocking || limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case o := <-outcome:
		defer cancel()
		return f.connected(near, dst, o, nonblocking)
	case <-ctx.Done(): // the program has hung up
		f.abandon(cancel, outcome)
		return failed(unix.EINTR)
	case <-late:
	}
	if nonblocking {
		if f.park(near, dst, cancel, outcome) {
			return failed(unix.EINPROGRESS)
		}
		defer cancel()
		return f.connected(near, dst, <-outcome, nonblocking)
	}
	f.abandon(cancel, outcome) // SO_SNDTIMEO
	return failed(unix.EINPROGRESS)
}

// opened is what the handler says of a connect.
type opened struct {
	carry func(context.Context, *net.TCPConn)
	err   error
}

// abandon ends a dial that nobody waits for.
func (f *flows) abandon(cancel func(), outcome <-chan opened) {
	cancel()
	if o := <-outcome; o.carry != nil {
		o.carry(f.ctx, nil)
	}
}

// connected acts on the outcome while the program waits for it.
func (f *flows) connected(near farend.Socket, dst netip.AddrPort, o opened, nonblocking bool) hook.Answer {
	switch {
	case errors.Is(o.err, switchboard.ErrLocal):
		return hook.Answer{Verdict: hook.VerdictLocal}
	case o.err != nil:
		return failed(switchboard.Errno(o.err))
	}
	if err := near.Join(func(fd int) error { return f.carryTCP(near, dst, fd, o) }); err != nil {
		f.log.Debug("far end of a stream", "dst", dst.String(), "err", err)
		return failed(switchboard.Errno(err))
	}
	if nonblocking {
		return failed(unix.EINPROGRESS) // what every kernel says; it is writable already
	}
	return hook.Answer{Verdict: hook.VerdictDone}
}

// park lets a non-blocking connect go on after the call, and reports whether that
// was possible.
func (f *flows) park(near farend.Socket, dst netip.AddrPort, cancel func(), outcome <-chan opened) bool {
	fd, err := unix.FcntlInt(uintptr(near.FD), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return false
	}
	near.FD = fd
	p, err := farend.Park(near)
	if err != nil {
		f.log.Debug("connect goes on in the call", "err", err)
		unix.Close(fd)
		return false
	}
	f.wg.Go(func() { // ends with the dial's context at the latest
		defer unix.Close(fd)
		defer p.Close()
		defer cancel()
		o := <-outcome
		if o.err == nil {
			o.err = p.Meet(near, func(fd int) error { return f.carryTCP(near, dst, fd, o) })
		}
		if o.err != nil {
			f.log.Debug("late connect fails", "dst", dst.String(), "err", o.err)
			p.Refuse(f.ctx, near, switchboard.Errno(o.err))
		}
	})
	return true
}

// carryTCP carries a stream to its far end.
func (f *flows) carryTCP(near farend.Socket, dst netip.AddrPort, far int, o opened) error {
	at := farend.Name(far)
	c, err := connOf(far)
	if err != nil {
		o.carry(f.ctx, nil)
		return err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		o.carry(f.ctx, nil)
		return errors.Join(unix.EINVAL, c.Close())
	}
	one := &flow{pair: pair{true, local(near, at.Addr()), at}, dst: dst, used: time.Now()}
	f.add(one)
	f.wg.Go(func() { // ends with the stream, or with ctx
		defer f.finish(one)
		o.carry(f.ctx, tcp)
	})
	return nil
}

// connOf makes a conn of a duplicate of the descriptor.
func connOf(fd int) (net.Conn, error) {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	file := os.NewFile(uintptr(own), "far end")
	defer file.Close()
	return net.FileConn(file)
}
