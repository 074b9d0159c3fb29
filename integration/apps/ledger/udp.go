package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/borrownet/borrownet/integration/apps/internal/observe"
)

// udpServer answers each datagram with what reply makes of it.
func udpServer(addr string, reply func(from netip.AddrPort, b []byte) []byte) observe.Server {
	return func(ctx context.Context) error {
		var lc net.ListenConfig
		c, err := lc.ListenPacket(ctx, "udp", addr)
		if err != nil {
			return err
		}
		return answerDatagrams(ctx, c.(*net.UDPConn), reply)
	}
}

func answerDatagrams(ctx context.Context, c *net.UDPConn, reply func(netip.AddrPort, []byte) []byte) error {
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	buf := make([]byte, 65535)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) && ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		// A lost answer is what UDP promises.
		_, _ = c.WriteToUDPAddrPort(reply(from, buf[:n]), from)
	}
}

func echoDatagram(_ netip.AddrPort, b []byte) []byte { return b }

func whoDatagram(from netip.AddrPort, _ []byte) []byte {
	return fmt.Appendln(nil, plain(from))
}
