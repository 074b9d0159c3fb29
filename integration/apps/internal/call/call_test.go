package call_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/borrownet/borrownet/integration/apps/internal/call"
	"github.com/borrownet/borrownet/integration/apps/internal/observe"
	"github.com/borrownet/borrownet/integration/apps/internal/rpc"
)

// run starts a server of the apps on a port that is free and stops it with the test.
func run(t *testing.T, serve func(addr string) observe.Server) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = l.Addr().String()
	l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(addr)(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("server on %s: %v", addr, err)
		}
	})
	for {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return addr
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("server on %s: %v", addr, err)
		default:
		}
	}
}

func TestCalls(t *testing.T) {
	web := run(t, func(addr string) observe.Server { return observe.HTTP("orders", addr, nil) })
	streams := run(t, func(addr string) observe.Server { return rpc.Serve("orders", addr) })
	for _, tt := range []struct{ call, to, head, proto, path string }{
		{"get", "http://" + web + "/a?b=c", "200 OK HTTP/1.1", "HTTP/1.1", "/a?b=c"},
		{"h2c", "http://" + web + "/a", "200 OK HTTP/2.0", "HTTP/2.0", "/a"},
		{"ws", "ws://" + web + "/ws", "101 Switching Protocols, 3 messages echoed", "HTTP/1.1", "/ws"},
		{"grpc", streams, "status ok\nserver stream ok\nclient stream ok\nboth streams ok\nunary ok", "HTTP/2.0", "/grpc.testing.TestService/UnaryCall"},
	} {
		t.Run(tt.call, func(t *testing.T) {
			var out bytes.Buffer
			if err := call.Run(&out, []string{tt.call, tt.to}); err != nil {
				t.Fatal(err)
			}
			head, body, _ := strings.Cut(out.String(), "\n{")
			var seen observe.Seen
			if err := json.Unmarshal([]byte("{"+body), &seen); err != nil {
				t.Fatalf("%v: %s", err, out.String())
			}
			if head != tt.head || seen.App != "orders" || seen.Proto != tt.proto || seen.Path != tt.path || seen.Host == "" || len(seen.Headers["User-Agent"]) != 1 {
				t.Errorf("got %q and %+v, want %q, %s %s", head, seen, tt.head, tt.proto, tt.path)
			}
		})
	}
}

func TestHeaders(t *testing.T) {
	web := run(t, func(addr string) observe.Server { return observe.HTTP("orders", addr, nil) })
	var out bytes.Buffer
	if err := call.Run(&out, []string{"get", "http://" + web, "X-Lane:canary", "X-Lane:b:c"}); err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(out.String(), "\n")
	var seen observe.Seen
	if err := json.Unmarshal([]byte(body), &seen); err != nil || strings.Join(seen.Headers["X-Lane"], " ") != "canary b:c" {
		t.Errorf("got %v, %v", seen.Headers, err)
	}
}

func TestEchoAndLookup(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // ends with the connection
		if c, err := l.Accept(); err == nil {
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()
	for _, tt := range []struct{ call, to, want string }{
		{"tcp", l.Addr().String(), "hello\n"},
		{"lookup", "127.0.0.1", "127.0.0.1\n"},
	} {
		var out bytes.Buffer
		if err := call.Run(&out, []string{tt.call, tt.to}); err != nil || out.String() != tt.want {
			t.Errorf("%s: got %q, %v, want %q", tt.call, out.String(), err, tt.want)
		}
	}
}

// What nobody answers is an error, and so is an answer in another protocol.
func TestCallsFail(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	plain := httptest.NewServer(observe.Handler("orders"))
	defer plain.Close()
	other := strings.TrimPrefix(plain.URL, "http://")
	for _, args := range [][]string{
		{"get", "http://" + closed}, {"h2c", "http://" + closed}, {"ws", "ws://" + closed}, {"grpc", closed}, {"tcp", closed},
		{"h2c", plain.URL}, {"ws", "ws://" + other + "/"}, {"grpc", other},
		{"sing", closed}, {"get"}, {},
	} {
		if err := call.Run(io.Discard, args); err == nil {
			t.Errorf("call %q succeeded", args)
		}
	}
}
