package demo

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"

	"github.com/borrownet/borrownet/hook/broker"
)

// dialContext is how calls connect: as any program does, or through useSession.
var dialContext = (&net.Dialer{}).DialContext

// useSession makes calls of this process go through the session's broker. The
// process makes one call.
func useSession(preload string) error {
	c, err := broker.NewClient(preload)
	if err != nil {
		return err
	}
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		near, far := net.Pipe()
		go serveQueries(ctx, c, far) // ends when the resolver closes near
		return near, nil
	}}
	dialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return nil, err
		}
		addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			return nil, err
		}
		var errs []error
		for _, a := range addrs {
			conn, err := c.Dial(ctx, network, netip.AddrPortFrom(a.Unmap(), uint16(n)))
			if err == nil {
				return conn, nil
			}
			errs = append(errs, err)
		}
		return nil, errors.Join(errs...)
	}
	return nil
}

// serveQueries answers a resolver's queries, each with its length in front as over
// TCP.
func serveQueries(ctx context.Context, c *broker.Client, conn net.Conn) {
	defer conn.Close()
	for {
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		reply, err := c.Resolve(ctx, query)
		if err != nil {
			return
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
			return
		}
	}
}
