package broker

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/hook"
	"github.com/borrownet/borrownet/hook/farend"
	"github.com/borrownet/borrownet/hook/switchboard"
)

// sweepInterval is the pause between two looks for datagram sockets that programs
// have closed.
const sweepInterval = 10 * time.Second

// target finds the far end to which a datagram socket sends what is for dst, and
// makes it if need be. With connect the socket is connected to it.
func (f *flows) target(ctx context.Context, near farend.Socket, dst netip.AddrPort, connect bool) hook.Answer {
	if one := f.known(near, dst); one != nil {
		if connect {
			if err := unix.Connect(near.FD, farend.Sockaddr(near.Domain, one.far)); err != nil {
				return failed(switchboard.Errno(err))
			}
		}
		return hook.Answer{Verdict: hook.VerdictDone, Addr: one.far}
	}
	if f.full() {
		return failed(unix.ENOBUFS)
	}
	carry, err := f.handler.OpenUDP(ctx, dst)
	switch {
	case errors.Is(err, switchboard.ErrLocal):
		return hook.Answer{Verdict: hook.VerdictLocal}
	case err != nil:
		return failed(switchboard.Errno(err))
	}
	far, at, err := near.Meet(connect)
	if err != nil {
		f.log.Debug("far end of datagrams", "dst", dst.String(), "err", err)
		return failed(switchboard.Errno(err))
	}
	defer unix.Close(far)
	if err := f.carryUDP(near, dst, far, at, carry); err != nil {
		return failed(switchboard.Errno(err))
	}
	return hook.Answer{Verdict: hook.VerdictDone, Addr: at}
}

// known returns the flow of the socket to dst, nil if there is none.
func (f *flows) known(near farend.Socket, dst netip.AddrPort) *flow {
	at := farend.Name(near.FD)
	if at.Port() == 0 {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, loop := range []netip.Addr{at.Addr(), netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
		if one := f.byDst[route{netip.AddrPortFrom(loop, at.Port()), dst}]; one != nil {
			one.used = time.Now()
			return one
		}
	}
	return nil
}

// carryUDP carries datagrams to a far end until its socket has gone.
func (f *flows) carryUDP(near farend.Socket, dst netip.AddrPort, far int, at netip.AddrPort, carry func(context.Context, *net.UDPConn)) error {
	c, err := connOf(far)
	if err != nil {
		return err
	}
	udp, ok := c.(*net.UDPConn)
	if !ok {
		return errors.Join(unix.EINVAL, c.Close())
	}
	ctx, cancel := context.WithCancel(f.ctx)
	one := &flow{pair: pair{false, local(near, at.Addr()), at}, dst: dst, used: time.Now(), end: cancel}
	f.add(one)
	f.wg.Go(func() { // ends with ctx: at eviction, at the sweep, with the server
		defer udp.Close()
		defer f.remove(one)
		defer cancel()
		carry(ctx, udp)
	})
	return nil
}

// sweep ends the flows of datagram sockets that no program has any more.
func (f *flows) sweep() {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-f.ctx.Done():
			return
		case <-tick.C:
			f.sweepOnce()
		}
	}
}

func (f *flows) sweepOnce() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.byDst) == 0 {
		return
	}
	ports, err := datagramPorts()
	if err != nil {
		f.log.Debug("look for closed sockets", "err", err)
		return
	}
	for _, one := range f.byDst {
		if ports[one.near.Port()] {
			one.absent = 0
			continue
		}
		// The kernel's table may miss one while others come and go.
		if one.absent++; one.absent == 2 {
			f.removeLocked(one)
			one.end()
		}
	}
}

// datagramPorts returns the local ports of this network namespace's datagram
// sockets, proc_net(5).
func datagramPorts() (map[uint16]bool, error) {
	ports := map[uint16]bool{}
	for _, table := range []string{"/proc/self/net/udp", "/proc/self/net/udp6"} {
		file, err := os.Open(table)
		if errors.Is(err, os.ErrNotExist) && strings.HasSuffix(table, "6") {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(file)
		for lines.Scan() {
			fields := strings.Fields(lines.Text())
			if len(fields) < 2 {
				continue
			}
			if _, hex, ok := strings.Cut(fields[1], ":"); ok {
				if n, err := strconv.ParseUint(hex, 16, 16); err == nil {
					ports[uint16(n)] = true
				}
			}
		}
		err = errors.Join(lines.Err(), file.Close())
		if err != nil {
			return nil, err
		}
	}
	return ports, nil
}
