package guard

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/netstack/leaktest"
)

// pair returns the two ends of a connection.
func pair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{c, d} {
		c.SetDeadline(time.Now().Add(30 * time.Second))
		t.Cleanup(func() { c.Close() })
	}
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

const (
	get   = "GET /a HTTP/1.1\r\nHost: shop\r\n\r\n"
	query = "GET /b HTTP/1.1\r\nHost: shop\r\nContent-Length: 4\r\n\r\nbody"
	post  = "POST /pay HTTP/1.1\r\nHost: shop\r\nContent-Length: 4\r\n\r\ncard"
)

func TestCopy(t *testing.T) {
	leaktest.Check(t)
	for _, tt := range []struct {
		name    string
		says    string
		heard   string // by the server
		answer  string // of the gate
		refusal string
	}{
		{"reads", get + query + "\r\n" + get, get + query + "\r\n" + get, "", ""},
		{"a-write", post, "", "403 Forbidden", "POST shop/pay"},
		{"a-write-behind-reads", get + query + post + get, get + query, "403 Forbidden", "POST shop/pay"},
		{"other-methods", strings.Replace(get, "GET", "PATCH", 1), "", "403 Forbidden", "PATCH shop/a"},
		{"unknown-methods", strings.Replace(get, "GET", "PURGE", 1), "", "403 Forbidden", "PURGE shop/a"},
		{"connect", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "", "403 Forbidden", "CONNECT a:1a:1"},
		{"malformed", "GET / HTTP/1.1\r\nbad header\r\n\r\n", "", "403 Forbidden", "a request that cannot be read "},
		{"http2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "", "", "HTTP/2, which is not looked into"},
		{"tls", "\x16\x03\x01\x00\x05hello", "\x16\x03\x01\x00\x05hello", "", ""},
		{"other-protocols", "*1\r\n$4\r\nPING\r\n", "*1\r\n$4\r\nPING\r\n", "", ""},
		{"never-a-request", "GET", "GET", "", ""},
		{"half-a-head", get[:20], "", "", ""},
		{"websocket", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05hello", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05hello", "", ""},
		{"a-write-behind-an-upgrade-that-was-declined", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + post, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "403 Forbidden", "POST shop/pay"},
	} {
		for size, how := range map[int]string{1 << 16: "at-once", 1: "byte-by-byte"} {
			t.Run(tt.name+"-"+how, func(t *testing.T) {
				program, near := pair(t)
				far, server := pair(t)
				done := make(chan error)
				go func() { done <- Copy(t.Context(), near, far) }()
				heard := make(chan string)
				go func() {
					b, _ := io.ReadAll(server) // ends with an error where the gate resets
					server.Close()
					heard <- string(b)
				}()
				for b := []byte(tt.says); len(b) > 0; {
					n := min(size, len(b))
					if _, err := program.Write(b[:n]); err != nil {
						break // refused already
					}
					b = b[n:]
				}
				program.CloseWrite()
				if tt.answer != "" && how == "at-once" {
					resp, err := http.ReadResponse(bufio.NewReader(program), nil)
					if err != nil || resp.Status != tt.answer || !resp.Close {
						t.Errorf("the answer is %+v, %v", resp, err)
					}
				}
				got := ""
				if err := <-done; err != nil {
					got = err.Error()
				}
				if got != tt.refusal {
					t.Errorf("refused %q, want %q", got, tt.refusal)
				}
				if diff := cmp.Diff(tt.heard, <-heard); diff != "" {
					t.Errorf("the server heard (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// TestAnswersPass lets a program and a server talk as long as only reads are asked for.
func TestAnswersPass(t *testing.T) {
	program, near := pair(t)
	far, server := pair(t)
	done := make(chan error)
	go func() { done <- Copy(t.Context(), near, far) }()
	served := make(chan error)
	go func() {
		r := bufio.NewReader(server)
		for {
			req, err := http.ReadRequest(r)
			if err == io.EOF {
				server.Close()
				served <- nil
				return
			} else if err != nil {
				served <- err
				return
			}
			fmt.Fprintf(server, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(req.URL.Path), req.URL.Path)
		}
	}()
	answers := bufio.NewReader(program)
	for i := range 20 {
		fmt.Fprintf(program, "GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", i)
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(resp.Body); err != nil || string(b) != fmt.Sprintf("/%d", i) {
			t.Fatalf("answer %q, %v", b, err)
		}
	}
	program.CloseWrite()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
