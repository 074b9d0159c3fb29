package dnsproxy

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/borrownet/borrownet/dnsproxy/dnsproxytest"
)

// serve starts ServeTCP on one end of a pipe and returns the other, and a channel that is closed when it returned.
func serve(ctx context.Context, p *Proxy) (net.Conn, chan struct{}) {
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.ServeTCP(ctx, server)
	}()
	return client, done
}

func send(t *testing.T, c net.Conn, name string, id uint16) {
	t.Helper()
	m := question(name, dns.TypeA)
	m.Id = id
	wire, err := m.Pack()
	if err == nil {
		err = writeFrame(c, wire)
	}
	if err != nil {
		t.Fatalf("send: %v", err)
	}
}

func receive(t *testing.T, c net.Conn) *dns.Msg {
	t.Helper()
	buf, err := readFrame(c)
	m := new(dns.Msg)
	if err == nil {
		err = m.Unpack(buf)
	}
	if err != nil {
		t.Fatalf("receive: %v", err)
	}
	return m
}

func TestServeTCP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := dnsproxytest.New(t, world()...)
		srv.Handle(func(q dnsproxytest.Query, reply *dns.Msg) []*dns.Msg {
			if strings.HasPrefix(q.Msg.Question[0].Name, "www.") {
				time.Sleep(time.Second)
			}
			return []*dns.Msg{reply}
		})
		p := newTestProxy(t, srv, podConf())
		c, done := serve(t.Context(), p)
		send(t, c, "www.example.org.", 1)
		send(t, c, "orders.", 2)
		send(t, c, "gone.", 3)
		seen := map[uint16]int{}
		for i := range 3 {
			m := receive(t, c)
			seen[m.Id] = m.Rcode
			if i == 2 && m.Id != 1 {
				t.Errorf("last answer: got %d, want the slow one", m.Id)
			}
		}
		if len(seen) != 3 || seen[1] != dns.RcodeSuccess || seen[2] != dns.RcodeSuccess || seen[3] != dns.RcodeNameError {
			t.Errorf("got %v", seen)
		}
		time.Sleep(idleTimeout - time.Second)
		send(t, c, "orders.", 4) // still there
		receive(t, c)
		start := time.Now()
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("read: got %v, want EOF", err)
		}
		<-done
		if idle := time.Since(start); idle != idleTimeout {
			t.Errorf("closed after %v, want %v", idle, idleTimeout)
		}
	})
}

func TestServeTCPEnds(t *testing.T) {
	tests := []struct {
		name string
		end  func(p *Proxy, c net.Conn, cancel context.CancelFunc) error
	}{
		{"client-closes", func(_ *Proxy, c net.Conn, _ context.CancelFunc) error { return c.Close() }},
		{"proxy-closes", func(p *Proxy, _ net.Conn, _ context.CancelFunc) error { return p.Close() }},
		{"context-ends", func(_ *Proxy, _ net.Conn, cancel context.CancelFunc) error { cancel(); return nil }},
		{"no-DNS", func(_ *Proxy, c net.Conn, _ context.CancelFunc) error { return writeFrame(c, []byte("GET /")) }},
		{"frame-cut", func(_ *Proxy, c net.Conn, _ context.CancelFunc) error {
			_, err := c.Write([]byte{0, 9, 1})
			return errors.Join(err, c.Close())
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := dnsproxytest.New(t, world()...)
				srv.Handle(func(dnsproxytest.Query, *dns.Msg) []*dns.Msg { return nil })
				p := newTestProxy(t, srv, podConf())
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				c, done := serve(ctx, p)
				defer c.Close()
				send(t, c, "orders.", 1) // in flight
				synctest.Wait()
				start := time.Now()
				if err := tt.end(p, c, cancel); err != nil {
					t.Errorf("end: %v", err)
				}
				<-done
				// A client that closed may have done so for its sending side only: its answer is waited for.
				if took := time.Since(start); took > 4*time.Second {
					t.Errorf("ended after %v", took)
				}
			})
		})
	}
}

// TestServeTCPSlowReader checks that a client that does not read its answers cannot hold a connection for ever, and that
// no more than maxPipelined of its queries are taken.
func TestServeTCPSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := dnsproxytest.New(t, world()...)
		p := newTestProxy(t, srv, podConf())
		c, done := serve(t.Context(), p)
		defer c.Close()
		sent := make(chan int)
		go func() {
			n := 0
			wire, err := question("orders.", dns.TypeA).Pack()
			for ; err == nil; n++ {
				err = writeFrame(c, wire)
			}
			sent <- n
		}()
		start := time.Now()
		<-done
		if took := time.Since(start); took != writeTimeout {
			t.Errorf("ended after %v, want %v", took, writeTimeout)
		}
		if n := <-sent; n > maxPipelined+60 { // what fits into the read buffer comes on top
			t.Errorf("%d queries were taken", n)
		}
	})
}

func TestServeTCPBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestProxy(t, dnsproxytest.New(t), podConf())
		for range maxConns {
			c, _ := serve(t.Context(), p)
			defer c.Close()
		}
		synctest.Wait()
		c, done := serve(t.Context(), p)
		<-done
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("one too many: got %v, want EOF", err)
		}
	})
}
