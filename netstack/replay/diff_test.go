package replay

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/netstack/flow"
	"github.com/borrownet/borrownet/netstack/mirror/mirrortest"
)

func zipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write([]byte(text))
	z.Close()
	return b.String()
}

func TestCompare(t *testing.T) {
	answer := func(status int, body string, headers ...string) *Answer {
		a := &Answer{Status: status, Body: []byte(body), Header: http.Header{}}
		for i := 0; i < len(headers); i += 2 {
			a.Header.Add(headers[i], headers[i+1])
		}
		return a
	}
	for _, tt := range []struct {
		name        string
		live, local *Answer
		ignore      []string
		want        []Differs
	}{
		{"same", answer(200, "a", "X-A", "1"), answer(200, "a", "X-A", "1"), nil, nil},
		{"status", answer(200, ""), answer(500, ""), nil, []Differs{{"status", "200", "500"}}},
		{"headers", answer(200, "", "X-A", "1", "X-B", "1", "X-B", "2"), answer(200, "", "X-A", "2", "X-C", "3"), nil,
			[]Differs{{"header:X-A", "1", "2"}, {"header:X-B", "1, 2", ""}, {"header:X-C", "", "3"}}},
		{"headers-that-always-differ", answer(200, "", "Date", "a", "X-Request-Id", "b"), answer(200, "", "Date", "c"), nil, nil},
		{"ignored-header", answer(200, "", "X-A", "1"), answer(200, "", "X-A", "2"), []string{"x-a"}, nil},
		{"text", answer(200, "hello world"), answer(200, "hello there"), nil,
			[]Differs{{"body", `11 bytes, from 6 on "world"`, `11 bytes, from 6 on "there"`}}},
		{"json-in-another-order", answer(200, `{"a":1,"b":[1,2]}`), answer(200, `{ "b": [1, 2], "a": 1 }`), nil, nil},
		{"json", answer(200, `{"a":1,"b":[{"id":1},2],"c":null}`), answer(200, `{"a":"1","b":[{"id":2},2,3],"d":{}}`), nil,
			[]Differs{{"$.a", "1", `"1"`}, {"$.b[0].id", "1", "2"}, {"$.b[2]", "", "3"}, {"$.c", "null", ""}, {"$.d", "", "{}"}}},
		{"ignored-places", answer(200, `{"at":1,"b":[{"id":1,"x":1}]}`), answer(200, `{"at":2,"b":[{"id":2,"x":2}]}`), []string{"$.at", "$.b[*].id"},
			[]Differs{{"$.b[0].x", "1", "2"}}},
		{"compressed", answer(200, zipped(`{"a":1}`), "Content-Encoding", "gzip"), answer(200, `{"a":1}`), []string{"content-encoding"}, nil},
		{"one-is-missing", answer(200, "a"), &Answer{Missing: "refused"}, nil, []Differs{{"answer", "200", "refused"}}},
		{"both-are-missing", &Answer{Missing: "a"}, &Answer{Missing: "b"}, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var ignore Ignore
			for _, text := range tt.ignore {
				if err := ignore.Add(text); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(tt.want, compare(tt.live, tt.local, &ignore)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	for _, bad := range []string{"", "a b", "a: b"} {
		if err := new(Ignore).Add(bad); err == nil {
			t.Errorf("%q is ignored", bad)
		}
	}
}

// TestDifferences compares the answers of a connection, whatever their form, with
// those of a local program that says hello to all but /other.
func TestDifferences(t *testing.T) {
	p := start(t, func(c *net.TCPConn, r *bufio.Reader) {
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			body := "hello"
			if req.URL.Path == "/other" {
				body = "other"
			}
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(body))
			if req.Method != http.MethodHead {
				fmt.Fprint(c, body)
			}
		}
	})
	told := make(chan Difference, 10)
	r := replaying(t, p, Config{OnDifference: func(d Difference) { told <- d }})
	c := mirrortest.New(client, server, r.Packet)
	c.Open()
	ask := func(line, answer string) {
		c.Ask(line + " HTTP/1.1\r\nHost: a\r\n\r\n")
		for len(answer) > 7 {
			c.Answer(answer[:7])
			answer = answer[7:]
		}
		c.Answer(answer)
	}
	ask("GET /1", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
	ask("GET /2", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")
	c.Ask(health)
	c.Answer("HTTP/1.1 204 No Content\r\n\r\n")
	ask("HEAD /3", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
	ask("GET /other", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
	ask("GET /5", "HTTP/1.1 200 OK\r\n\r\nhello")
	c.FromServer(flow.FIN|flow.ACK, "")
	c.FromClient(flow.FIN|flow.ACK, "")
	c.FromServer(flow.ACK, "")
	settled(t, r)
	got := map[string][]Differs{}
	for range 5 {
		select {
		case d := <-told:
			got[d.Target] = d.Differs
		case <-time.After(patience):
			t.Fatalf("only %d comparisons", len(got))
		}
	}
	want := map[string][]Differs{
		"/1": nil, "/2": nil, "/3": nil, "/5": nil,
		"/other": {{"body", `5 bytes, from 0 on "hello"`, `5 bytes, from 0 on "other"`}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestDifferencesOfAnIncompleteCapture say what is missing.
func TestDifferencesOfAnIncompleteCapture(t *testing.T) {
	p := start(t, answering)
	told := make(chan Difference, 10)
	r := replaying(t, p, Config{OnDifference: func(d Difference) { told <- d }})
	c := mirrortest.New(client, server, r.Packet)
	c.Open()
	c.Ask(get)
	c.FromServer(flow.ACK, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
	c.Server += 5
	c.FromClient(flow.ACK, "")
	c.Ask(post)
	c.Answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	c.Close()
	for range 2 {
		select {
		case d := <-told:
			if d.Live.Missing == "" || d.Local.Status != 200 || len(d.Differs) != 1 {
				t.Errorf("got %+v", d)
			}
		case <-time.After(patience):
			t.Fatal("nothing was told")
		}
	}
}

// FuzzOutlet gives the bytes of any server: where they are split makes no difference.
func FuzzOutlet(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 204 No\r\n\r\n"), 3)
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n0\r\n\r\n"), 1)
	f.Fuzz(func(t *testing.T, in []byte, size int) {
		size = max(size, 1)
		answers := func(size int) (out []string) {
			o := &outlet{}
			for range 3 {
				o.expect("GET", &exchange{local: &Answer{}, compare: func(live, _ *Answer) {
					out = append(out, fmt.Sprintf("%d %q %s", live.Status, live.Body, live.Missing))
				}})
			}
			for b := in; len(b) > 0; {
				n := min(size, len(b))
				o.Data(b[:n], false)
				b = b[n:]
			}
			o.End(false)
			return out
		}
		whole, split := answers(len(in)+1), answers(size)
		if len(whole) != 3 || !cmp.Equal(whole, split) {
			t.Errorf("at once %s\nin pieces of %d %s", strings.Join(whole, "; "), size, strings.Join(split, "; "))
		}
	})
}
