// Package agenttest runs the real agent inside a test, with a small made-up
// pod network instead of the kernel's.
package agenttest

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/borrownet/borrownet/agent"
	"github.com/borrownet/borrownet/netstack/relay"
)

// World is a pod network made of functions. Its maps must not change once the
// agent runs. Everything that is not in them is refused.
type World struct {
	Pod         []netip.Addr
	ResolvConf  string
	TCP         map[netip.AddrPort]func(net.Conn)                      // servers; they own the connection
	UDP         map[netip.AddrPort]func(payload []byte) (reply []byte) // nil reply = silence
	Echo        map[netip.Addr]bool                                    // hosts that answer pings
	Silent      map[netip.Addr]bool                                    // black holes
	Unreachable map[netip.Addr]syscall.Errno                           // hosts that routers report
	Delay       map[netip.Addr]time.Duration                           // of whatever these hosts answer to a TCP connect
}

var _ agent.Network = (*World)(nil)

// Addrs implements agent.Network.
func (w *World) Addrs() ([]netip.Addr, error) { return w.Pod, nil }

// Resolv implements agent.Network.
func (w *World) Resolv() (string, error) { return w.ResolvConf, nil }

// DialTCP implements agent.Network. Connections are kernel sockets over
// loopback, so half-close and resets are the real ones.
func (w *World) DialTCP(ctx context.Context, dst netip.AddrPort) (relay.Conn, error) {
	if d := w.Delay[dst.Addr()]; d > 0 {
		select {
		case <-time.After(d):
		case <-ctx.Done():
			return nil, os.NewSyscallError("connect", syscall.ETIMEDOUT)
		}
	}
	if w.Silent[dst.Addr()] {
		<-ctx.Done()
		return nil, os.NewSyscallError("connect", syscall.ETIMEDOUT)
	}
	if errno, ok := w.Unreachable[dst.Addr()]; ok {
		return nil, os.NewSyscallError("connect", errno)
	}
	serve, ok := w.TCP[dst]
	if !ok {
		return nil, os.NewSyscallError("connect", syscall.ECONNREFUSED)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", ln.Addr().String())
	if err != nil {
		return nil, err
	}
	accepted, err := ln.Accept()
	if err != nil {
		conn.Close()
		return nil, err
	}
	go serve(accepted)
	return conn.(*net.TCPConn), nil
}

// ListenUDP implements agent.Network.
func (w *World) ListenUDP(netip.Addr) (agent.Datagrams, error) {
	return &datagrams{world: w, in: make(chan datagram, 64), done: make(chan struct{})}, nil
}

type datagram struct {
	src     netip.AddrPort
	payload []byte
	err     error
}

// datagrams is a UDP socket of a World.
type datagrams struct {
	world *World
	in    chan datagram
	once  sync.Once
	done  chan struct{} // closed by Close
}

func (d *datagrams) WriteTo(payload []byte, dst netip.AddrPort) error {
	if d.world.Silent[dst.Addr()] {
		return nil
	}
	if errno, ok := d.world.Unreachable[dst.Addr()]; ok {
		return errno
	}
	serve, ok := d.world.UDP[dst]
	if !ok {
		d.deliver(datagram{err: &agent.Unreachable{Dst: dst, Err: syscall.ECONNREFUSED}})
		return nil
	}
	if reply := serve(payload); reply != nil {
		d.deliver(datagram{src: dst, payload: reply})
	}
	return nil
}

func (d *datagrams) deliver(dg datagram) {
	select {
	case d.in <- dg:
	case <-d.done:
	default: // a full socket buffer loses datagrams
	}
}

func (d *datagrams) ReadFrom(buf []byte) (int, netip.AddrPort, error) {
	select {
	case dg := <-d.in:
		return copy(buf, dg.payload), dg.src, dg.err
	case <-d.done:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

func (d *datagrams) Close() error {
	d.once.Do(func() { close(d.done) })
	return nil
}

// ListenEcho implements agent.Network.
func (w *World) ListenEcho(netip.Addr) (agent.Echoes, error) {
	if w.Echo == nil {
		return nil, errors.New("ping socket: permission denied")
	}
	return &echoes{world: w, in: make(chan echo, 64), done: make(chan struct{})}, nil
}

type echo struct {
	src     netip.Addr
	seq     uint16
	payload []byte
}

// echoes is a ping socket of a World.
type echoes struct {
	world *World
	in    chan echo
	once  sync.Once
	done  chan struct{} // closed by Close
}

func (e *echoes) Request(dst netip.Addr, seq uint16, payload []byte) error {
	if e.world.Echo[dst] {
		select {
		case e.in <- echo{dst, seq, payload}:
		case <-e.done:
		default:
		}
	}
	return nil
}

func (e *echoes) Reply(buf []byte) (int, netip.Addr, uint16, error) {
	select {
	case r := <-e.in:
		return copy(buf, r.payload), r.src, r.seq, nil
	case <-e.done:
		return 0, netip.Addr{}, 0, net.ErrClosed
	}
}

func (e *echoes) Close() error {
	e.once.Do(func() { close(e.done) })
	return nil
}
