package replay

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/netstack/leaktest"
	"github.com/borrownet/borrownet/netstack/mirror/mirrortest"
	"github.com/borrownet/borrownet/netstack/relay"
)

// closingWhenAsked answers one request, and closes the connection when the next one
// begins: what a client sees of it is what it sees of a program that has closed an idle
// connection while a request was on its way.
func closingWhenAsked(c *net.TCPConn, r *bufio.Reader) {
	if _, err := http.ReadRequest(r); err != nil {
		return
	}
	fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
	_, _ = r.Peek(1)
}

// closingHalfway does so too, but begins to answer.
func closingHalfway(c *net.TCPConn, r *bufio.Reader) {
	closingWhenAsked(c, r)
	fmt.Fprint(c, "HTTP/1.1 200 O")
	_ = c.CloseWrite()
	_, _ = io.Copy(io.Discard, r)
}

// TestReusedConnection: the local program closes a connection between two requests.
func TestReusedConnection(t *testing.T) {
	leaktest.Check(t)
	const empty = "POST /c HTTP/1.1\r\nHost: example.org\r\nContent-Length: 0\r\n\r\n"
	for _, tt := range []struct {
		name, second string
		serve        func(*net.TCPConn, *bufio.Reader)
		heard        []string // nil: as much as it had time for
		want         Stats
	}{
		{"safe", head, closingWhenAsked, []string{get + head, head}, Stats{Requests: Outcomes{Seen: 2, Delivered: 2}, Repeated: 1}},
		{"unsafe", empty, closingWhenAsked, []string{get + empty}, Stats{Requests: Outcomes{Seen: 2, Delivered: 1, Broken: 1}}},
		{"with-a-body", post, closingWhenAsked, nil, Stats{Requests: Outcomes{Seen: 2, Delivered: 1, Broken: 1}}},
		{"answer-begun", head, closingHalfway, []string{get + head}, Stats{Requests: Outcomes{Seen: 2, Delivered: 2}, Unanswered: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := start(t, tt.serve)
			r := replaying(t, p, Config{})
			c := mirrortest.New(client, server, r.Packet)
			c.Open()
			c.Ask(get)
			c.Answer("whatever")
			c.Ask(tt.second)
			s := settled(t, r)
			got := Stats{Requests: s.Requests, Repeated: s.Repeated, Unanswered: s.Unanswered}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("stats (-want +got):\n%s", diff)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.heard, p.heard()); diff != "" && tt.heard != nil {
				t.Errorf("the program heard (-want +got):\n%s", diff)
			}
		})
	}
}

// breaking is a connection that takes so many writes, and is then found closed.
type breaking struct {
	relay.Conn
	writes int
}

func (b *breaking) Write(p []byte) (int, error) {
	if b.writes--; b.writes < 0 {
		return 0, net.ErrClosed
	}
	return b.Conn.Write(p)
}

// TestNothingWritten: nothing of a request was written when its connection was found
// closed, so it is sent on a new one, whatever it does; but only once.
func TestNothingWritten(t *testing.T) {
	leaktest.Check(t)
	for _, tt := range []struct {
		name   string
		second int // writes that the second connection takes
		heard  []string
		want   Stats
	}{
		{"new-connection-holds", 9, []string{get, post}, Stats{Requests: Outcomes{Seen: 2, Delivered: 2}, Repeated: 1}},
		{"new-connection-breaks", 0, []string{get}, Stats{Requests: Outcomes{Seen: 2, Delivered: 1, Broken: 1}, Repeated: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := start(t, answering)
			writes := []int{1, tt.second}
			r := replaying(t, p, Config{Dial: func(ctx context.Context, call Call) (relay.Conn, error) {
				c, err := p.dial(ctx, call)
				if err != nil {
					return nil, err
				}
				b := &breaking{c, writes[0]} // there is one player
				writes = writes[1:]
				return b, nil
			}})
			c := mirrortest.New(client, server, r.Packet)
			c.Open()
			c.Ask(get)
			c.Answer("whatever")
			c.Ask(post)
			s := settled(t, r)
			got := Stats{Requests: s.Requests, Repeated: s.Repeated, Unanswered: s.Unanswered}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("stats (-want +got):\n%s", diff)
			}
			var heard []string
			for _, h := range p.heard() {
				if h != "" {
					heard = append(heard, h)
				}
			}
			if diff := cmp.Diff(tt.heard, heard); diff != "" {
				t.Errorf("the program heard (-want +got):\n%s", diff)
			}
		})
	}
}
