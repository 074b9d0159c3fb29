package demo

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/borrownet/borrownet/dnsproxy/zone"
	"github.com/borrownet/borrownet/netstack"
)

const (
	// maxConns bounds the connections of one port; later ones wait in its
	// backlog.
	maxConns = 1024
	// maxSource bounds what the source says to one client.
	maxSource = 1 << 30
	// idleConn ends a connection without a byte for so long.
	idleConn = 10 * time.Minute
	// maxDatagram is the largest UDP payload over IPv4.
	maxDatagram = 65507
)

// Seen is the answer of orders to any request: the request as it saw it.
type Seen struct {
	App     string      `json:"app"`
	Remote  string      `json:"remote"` // who called
	Host    string      `json:"host"`
	Method  string      `json:"method"`
	Path    string      `json:"path"`
	Headers http.Header `json:"headers"`
}

// Digest is what the sink has heard.
type Digest struct {
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// services are the servers of the world. Each ends with the stack it serves on.
type services struct {
	log *slog.Logger
	wg  sync.WaitGroup
}

// orders answers HTTP on port 80.
func (s *services) orders(stack *netstack.Stack) error {
	ln, err := stack.ListenTCP(netip.AddrPortFrom(netip.Addr{}, 80))
	if err != nil {
		return err
	}
	srv := &http.Server{
		Handler:           http.HandlerFunc(see),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	s.wg.Go(func() {
		_ = srv.Serve(ln) // returns when the stack is closed
		srv.Close()
	})
	return nil
}

func see(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	// The only failure left is a client that is gone.
	_ = e.Encode(Seen{App: "orders", Remote: r.RemoteAddr, Host: r.Host, Method: r.Method, Path: r.URL.RequestURI(), Headers: r.Header})
}

// ledger serves plain TCP and UDP.
func (s *services) ledger(stack *netstack.Stack, addrs ...netip.Addr) error {
	for port, handle := range map[uint16]func(*netstack.TCPConn) error{EchoPort: echo, SinkPort: sink, WhoPort: who, SourcePort: source} {
		if err := s.tcp(stack, port, handle); err != nil {
			return err
		}
	}
	for _, a := range addrs {
		// A socket of an address of its own answers from that address.
		if err := s.udp(stack, netip.AddrPortFrom(a, EchoPort), func(in []byte, _ net.Addr) []byte { return in }); err != nil {
			return err
		}
		if err := s.udp(stack, netip.AddrPortFrom(a, WhoPort), func(in []byte, from net.Addr) []byte {
			return fmt.Appendf(nil, "%s from %s\n", strings.TrimSpace(string(in[:min(len(in), 512)])), from)
		}); err != nil {
			return err
		}
	}
	return nil
}

// dns answers for the cluster.
func (s *services) dns(ctx context.Context, stack *netstack.Stack) error {
	z, err := zone.New(records()...)
	if err != nil {
		return err
	}
	at := netip.AddrPortFrom(dnsAddr, 53)
	pc, err := stack.ListenUDP(at)
	if err != nil {
		return err
	}
	ln, err := stack.ListenTCP(at)
	if err != nil {
		return errors.Join(err, pc.Close())
	}
	s.wg.Go(func() {
		if err := z.Serve(ctx, pc, ln); err != nil {
			s.log.Warn("cluster DNS ends", "err", err)
		}
	})
	return nil
}

// tcp serves each connection to a port with handle, in a goroutine that ends
// with the connection or the stack.
func (s *services) tcp(stack *netstack.Stack, port uint16, handle func(*netstack.TCPConn) error) error {
	ln, err := stack.ListenTCP(netip.AddrPortFrom(netip.Addr{}, port))
	if err != nil {
		return err
	}
	slots := make(chan struct{}, maxConns)
	s.wg.Go(func() {
		for {
			slots <- struct{}{}
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() {
				defer func() { <-slots }()
				s.serve(c.(*netstack.TCPConn), handle)
			})
		}
	})
	return nil
}

func (s *services) serve(c *netstack.TCPConn, handle func(*netstack.TCPConn) error) {
	defer c.Close()
	if err := handle(c); err != nil {
		s.log.Debug("connection to a service ends", "src", c.RemoteAddr(), "dst", c.LocalAddr(), "err", err)
	}
}

// patient is a conn whose reads and writes fail once nothing has moved for
// idleConn.
type patient struct{ *netstack.TCPConn }

func (p patient) Read(b []byte) (int, error) {
	p.SetReadDeadline(time.Now().Add(idleConn))
	return p.TCPConn.Read(b)
}

func (p patient) Write(b []byte) (int, error) {
	p.SetWriteDeadline(time.Now().Add(idleConn))
	return p.TCPConn.Write(b)
}

func echo(c *netstack.TCPConn) error {
	if _, err := io.Copy(patient{c}, patient{c}); err != nil {
		return err
	}
	return c.CloseWrite()
}

func sink(c *netstack.TCPConn) error {
	h := sha256.New()
	n, err := io.Copy(h, patient{c})
	if err != nil {
		return err
	}
	if err := json.NewEncoder(patient{c}).Encode(Digest{Bytes: n, SHA256: hex.EncodeToString(h.Sum(nil))}); err != nil {
		return err
	}
	return c.CloseWrite()
}

func who(c *netstack.TCPConn) error {
	if _, err := fmt.Fprintf(patient{c}, "%s\n", c.RemoteAddr()); err != nil {
		return err
	}
	return c.CloseWrite()
}

func source(c *netstack.TCPConn) error {
	line, err := bufio.NewReaderSize(patient{c}, 64).ReadSlice('\n')
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(line)), 10, 64)
	if err != nil || n < 0 || n > maxSource {
		return fmt.Errorf("asked for %q bytes", line)
	}
	if _, err := io.Copy(patient{c}, pattern(n)); err != nil {
		return err
	}
	return c.CloseWrite()
}

// pattern is what the source says: n bytes of which no two blocks are alike.
func pattern(n int64) io.Reader { return io.LimitReader(&counting{}, n) }

type counting struct{ next uint64 }

func (c *counting) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(c.next ^ c.next>>8 ^ c.next>>16)
		c.next++
	}
	return len(b), nil
}

// udp answers datagrams at addr.
func (s *services) udp(stack *netstack.Stack, addr netip.AddrPort, answer func([]byte, net.Addr) []byte) error {
	c, err := stack.ListenUDP(addr)
	if err != nil {
		return err
	}
	s.wg.Go(func() {
		buf := make([]byte, maxDatagram)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			if _, err := c.WriteTo(answer(buf[:n], from), from); err != nil {
				s.log.Debug("answer datagram", "dst", from, "err", err)
			}
		}
	})
	return nil
}
