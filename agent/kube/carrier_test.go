package kube

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/netstack/leaktest"
)

func protocols() []string { return []string{ProtocolSPDY, ProtocolWebSocket, ProtocolChannel} }

func dialVia(t *testing.T, c *Client, protocol string) Carrier {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel() // ctx bounds the dial only: what follows must not notice
	f, err := c.DialVia(ctx, target(), 40000, protocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if f.Protocol() != protocol {
		t.Errorf("protocol %s, want %s", f.Protocol(), protocol)
	}
	return f
}

func TestCarrierEcho(t *testing.T) {
	for _, protocol := range protocols() {
		t.Run(protocol, func(t *testing.T) {
			leaktest.Check(t)
			f := newFakeAPI(t)
			newForwarder(f)
			c := dialVia(t, f.client(), protocol)
			want := make([]byte, 3<<20+17)
			if _, err := rand.Read(want); err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				if n, err := c.Write(want); err != nil || n != len(want) {
					t.Errorf("wrote %d of %d: %v", n, len(want), err)
				}
			})
			got := make([]byte, len(want))
			if _, err := io.ReadFull(c, got); err != nil {
				t.Fatal(err)
			}
			wg.Wait()
			if !bytes.Equal(got, want) {
				t.Error("the echo differs")
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if err := c.Close(); err != nil {
				t.Error("second Close:", err)
			}
			if _, err := c.Read(got); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Read after Close: %v", err)
			}
			if _, err := c.Write(got[:1]); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Write after Close: %v", err)
			}
		})
	}
}

func TestCarrierRemoteError(t *testing.T) {
	for _, tt := range []struct {
		name, says, want string
		errno            error
	}{
		{"refused", "failed to connect to localhost:40000 inside namespace x: dial tcp4 127.0.0.1:40000: connect: connection refused", "nothing listens on port 40000 any more: the agent has ended", syscall.ECONNREFUSED},
		{"other", "sandbox is not running", "sandbox is not running", io.ErrUnexpectedEOF},
	} {
		for _, protocol := range protocols() {
			t.Run(tt.name+"-"+protocol, func(t *testing.T) {
				f := newFakeAPI(t)
				newForwarder(f).serve = func(httpstream.Stream, string) error { return errors.New(tt.says) }
				_, err := dialVia(t, f.client(), protocol).Read(make([]byte, 1))
				wantError(t, err, tt.want, "")
				if !errors.Is(err, tt.errno) {
					t.Errorf("error %v, want %v", err, tt.errno)
				}
			})
		}
	}
}

func TestCarrierEOF(t *testing.T) {
	f := newFakeAPI(t)
	newForwarder(f).serve = func(s httpstream.Stream, port string) error {
		_, err := io.WriteString(s, port)
		return err
	}
	b, err := io.ReadAll(dialVia(t, f.client(), ProtocolSPDY))
	if string(b) != "40000" || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
}

// The far side reads nothing: Write must block, and Close must end it.
func TestCarrierCloseUnblocks(t *testing.T) {
	for _, protocol := range protocols() {
		t.Run(protocol, func(t *testing.T) {
			leaktest.Check(t)
			f := newFakeAPI(t)
			stop := make(chan struct{})
			defer close(stop)
			newForwarder(f).serve = func(httpstream.Stream, string) error { <-stop; return nil }
			c := dialVia(t, f.client(), protocol)
			var wg sync.WaitGroup
			wg.Go(func() {
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
					t.Errorf("Read: %v", err)
				}
			})
			stuck := make(chan struct{})
			wg.Go(func() {
				var err error
				for i := 0; err == nil; i++ {
					if i == 100 {
						close(stuck) // 100 MiB: more than all buffers hold, if it gets here
					}
					_, err = c.Write(make([]byte, 1<<20))
				}
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("Write: %v", err)
				}
			})
			select {
			case <-stuck:
				t.Error("Write does not block")
			case <-time.After(300 * time.Millisecond):
			}
			start := time.Now()
			c.Close()
			wg.Wait()
			if took := time.Since(start); took > 20*time.Second { // what is stuck is so for good
				t.Errorf("Close took %v", took)
			}
		})
	}
}

// Nobody reads what the far side sends: Close must still end everything.
func TestCarrierCloseUnread(t *testing.T) {
	leaktest.Check(t)
	f := newFakeAPI(t)
	newForwarder(f).serve = func(s httpstream.Stream, _ string) error {
		// Like the agent, it says nothing before it is spoken to.
		if _, err := s.Read(make([]byte, 1)); err != nil {
			return err
		}
		for {
			if _, err := s.Write(make([]byte, 32<<10)); err != nil {
				return nil
			}
		}
	}
	c := dialVia(t, f.client(), ProtocolSPDY)
	if _, err := c.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { c.Close(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("Close hangs")
	}
}

func TestCarrierConnectionLost(t *testing.T) {
	f := newFakeAPI(t)
	newForwarder(f)
	c := dialVia(t, f.client(), ProtocolSPDY)
	time.AfterFunc(50*time.Millisecond, f.srv.CloseClientConnections)
	// Hijacked connections are the forwarder's: break it from this side's socket.
	time.AfterFunc(50*time.Millisecond, func() { c.(*carrier).conn.Close() })
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("Read: %v, want EOF", err)
	}
}

func TestDialFallsBack(t *testing.T) {
	answer := func(code int) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(code); return true }
	}
	denied := func(f *fakeAPI, verb string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			f.reply(w, status(403, metav1.StatusReasonForbidden, `pods "api-1" is forbidden: User "jane" cannot `+verb+` resource "pods/portforward" in API group "" in the namespace "shop"`))
			return true
		}
	}
	for _, tt := range []struct {
		name     string
		setUp    func(*fakeAPI, *forwarder)
		protocol string
		want     string
		hint     string
		tried    [2]int32
	}{
		{name: "spdy", setUp: func(*fakeAPI, *forwarder) {}, protocol: ProtocolSPDY, tried: [2]int32{1, 0}},
		{name: "bad-request", setUp: func(_ *fakeAPI, fw *forwarder) { fw.spdy = answer(400) }, protocol: ProtocolWebSocket, tried: [2]int32{1, 1}},
		{name: "plain-ok", setUp: func(_ *fakeAPI, fw *forwarder) { fw.spdy = answer(200) }, protocol: ProtocolWebSocket, tried: [2]int32{1, 1}},
		{name: "proxy-error", setUp: func(_ *fakeAPI, fw *forwarder) { fw.spdy = answer(502) }, protocol: ProtocolWebSocket, tried: [2]int32{1, 1}},
		{name: "create-denied-get-allowed", setUp: func(f *fakeAPI, fw *forwarder) { fw.spdy = denied(f, "create") }, protocol: ProtocolWebSocket, tried: [2]int32{1, 1}},
		{name: "both-denied", setUp: func(f *fakeAPI, fw *forwarder) { fw.spdy, fw.webSocket = denied(f, "create"), denied(f, "get") },
			want: "user jane may not create pods/portforward in namespace shop", hint: "borrownet rbac -n shop --workloads --subject user:jane", tried: [2]int32{1, 2}},
		{name: "pod-gone", setUp: func(f *fakeAPI, fw *forwarder) {
			fw.spdy = func(w http.ResponseWriter, _ *http.Request) bool {
				f.reply(w, status(404, metav1.StatusReasonNotFound, `pods "api-1" not found`))
				return true
			}
		}, want: "the pod no longer exists", hint: "borrownet up --pod deploy/api", tried: [2]int32{1, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeAPI(t)
			fw := newForwarder(f)
			tt.setUp(f, fw)
			c := f.client()
			carrier, err := c.Dial(context.Background(), target(), &Agent{Hello: wire.Hello{Port: 40000}}, ForBulk)
			if got := [2]int32{fw.tried[0].Load(), fw.tried[1].Load()}; got != tt.tried {
				t.Errorf("upgrades tried (SPDY, WebSocket): %v, want %v", got, tt.tried)
			}
			if tt.want != "" {
				wantError(t, err, tt.want, tt.hint)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer carrier.Close()
			if carrier.Protocol() != tt.protocol {
				t.Errorf("protocol %s, want %s", carrier.Protocol(), tt.protocol)
			}
			again, err := c.Dial(context.Background(), target(), &Agent{Hello: wire.Hello{Port: 40000}}, ForBulk)
			if err != nil {
				t.Fatal(err)
			}
			again.Close()
			if tt.protocol == ProtocolWebSocket && fw.tried[0].Load() != tt.tried[0] {
				t.Error("what did not work is tried first again")
			}
		})
	}
}

func TestDialBounded(t *testing.T) {
	for _, tt := range []struct {
		name  string
		setUp func(*forwarder)
	}{
		{"no-answer", func(fw *forwarder) { fw.spdy, fw.webSocket = fw.stuck, fw.stuck }},
		{"no-reply", func(fw *forwarder) { fw.serve = nil; fw.spdy, fw.webSocket = fw.upgradeOnly, fw.upgradeOnly }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			leaktest.Check(t)
			f := newFakeAPI(t)
			tt.setUp(newForwarder(f))
			c := f.client()
			ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
			defer cancel()
			start := time.Now()
			_, err := c.Dial(ctx, target(), &Agent{Hello: wire.Hello{Port: 40000}}, ForBulk)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v, want the deadline", err)
			}
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("took %v", took)
			}
			c.Close()
		})
	}
}

// upgradeOnly switches to SPDY and then never says a word.
func (fw *forwarder) upgradeOnly(w http.ResponseWriter, _ *http.Request) bool {
	conn, buf, err := w.(http.Hijacker).Hijack()
	if err != nil {
		fw.f.t.Error(err)
		return true
	}
	fw.f.t.Cleanup(func() { conn.Close() })
	_, _ = buf.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
	_ = buf.Flush()
	return true
}

func TestDialStreamRefused(t *testing.T) {
	leaktest.Check(t)
	f := newFakeAPI(t)
	newForwarder(f).silent = true
	c := f.client()
	_, err := c.Dial(context.Background(), target(), &Agent{Hello: wire.Hello{Port: 40000}}, ForBulk)
	if err == nil || !strings.Contains(err.Error(), "open stream") {
		t.Errorf("error %v", err)
	}
	c.Close()
}

type recorder struct {
	bytes.Buffer
	writes []int
}

func (r *recorder) Write(p []byte) (int, error) {
	r.writes = append(r.writes, len(p))
	return r.Buffer.Write(p)
}
func (r *recorder) Close() error { return nil }

func TestFrameConnWritesWholeFrames(t *testing.T) {
	r := &recorder{}
	c := newFrameConn(r)
	for _, piece := range []string{"\x00\x00\x00\x01", "\x00\x00\x00\x05", "he", "llo", "\x80\x03\x00\x06\x00\x00\x00\x04", "ping", "\x00\x00\x00\x01\x00\x00\x00\x00"} {
		if n, err := c.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Errorf("Write(%q) = %d, %v", piece, n, err)
		}
	}
	if want := []int{13, 12, 8}; len(r.writes) != 3 || r.writes[0] != want[0] || r.writes[1] != want[1] || r.writes[2] != want[2] {
		t.Errorf("wrote pieces of %v bytes, want %v", r.writes, want)
	}
}
