package direct

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/borrownet/borrownet/netstack/link"
)

// ErrNoAnswer is wrapped by Dial's error if nobody answers: the pod cannot be reached from here, or its answers cannot.
var ErrNoAnswer = errors.New("no answer")

// ErrCertificate is wrapped by Dial's error if somebody else than the agent answers.
var ErrCertificate = errors.New("the certificate is not the agent's")

const (
	knockEvery = 250 * time.Millisecond
	maxKnocks  = 8
)

// Path is a way to an agent over UDP.
type Path struct {
	socket    net.PacketConn
	transport *quic.Transport
	conn      *quic.Conn
	once      sync.Once // of Close
}

// Dial knocks at addr, and makes a path if the agent, whose certificate has that sum, answers within two seconds. It
// closes socket, at the latest when the path is closed.
func Dial(ctx context.Context, socket net.PacketConn, addr netip.AddrPort, id link.Identity, sum []byte) (_ *Path, err error) {
	p := &Path{socket: socket}
	defer func() {
		if err != nil {
			p.Close()
			err = fmt.Errorf("reach agent at %v over UDP: %w", addr, err)
		}
	}()
	to := net.UDPAddrFromAddrPort(addr)
	if err := knock(ctx, socket, to, id); err != nil {
		return nil, err
	}
	p.transport = &quic.Transport{Conn: socket}
	if p.conn, err = p.transport.Dial(ctx, to, clientTLS(sum), config(-1)); err != nil {
		return nil, err
	}
	return p, nil
}

// knock sends knocks until one is answered.
func knock(ctx context.Context, socket net.PacketConn, to *net.UDPAddr, id link.Identity) error {
	var sent []*link.Knock
	buf := make([]byte, 2<<10)
	for range maxKnocks {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		k, err := link.NewKnock(id)
		if err != nil {
			return err
		}
		sent = append(sent, k)
		if _, err := socket.WriteTo(k.Datagram(), to); err != nil {
			return err
		}
		if err := socket.SetReadDeadline(time.Now().Add(knockEvery)); err != nil {
			return err
		}
		for {
			n, _, err := socket.ReadFrom(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return err
			}
			if isAnswer(sent, buf[:n]) {
				return socket.SetReadDeadline(time.Time{})
			}
		}
	}
	return ErrNoAnswer
}

// Open opens a carrier, which is to be proven.
func (p *Path) Open(ctx context.Context) (*Carrier, error) {
	stream, err := p.conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, fmt.Errorf("open carrier: %w", err)
	}
	return &Carrier{stream}, nil
}

// Done is closed when the path is lost.
func (p *Path) Done() <-chan struct{} { return p.conn.Context().Done() }

// Err says why it is lost.
func (p *Path) Err() error { return context.Cause(p.conn.Context()) }

// Close ends the path and its carriers. Only the first call does anything.
func (p *Path) Close() {
	p.once.Do(func() {
		if p.conn != nil {
			_ = p.conn.CloseWithError(0, "")
		}
		if p.transport != nil {
			_ = p.transport.Close()
		}
		p.socket.Close()
	})
}
