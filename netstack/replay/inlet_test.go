package replay

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/netstack/http1"
	"github.com/borrownet/borrownet/netstack/mirror/mirrortest"
	"github.com/borrownet/borrownet/netstack/relay"
)

// steps is what an inlet makes of a client's bytes, given piece by piece: pieces of
// one kind in a row are one.
func steps(t testing.TB, pieces ...[]byte) []string {
	t.Helper()
	refuse := func(context.Context, Call) (relay.Conn, error) { return nil, syscall.ECONNREFUSED }
	r, err := New(Config{Ports: map[uint16]uint16{80: 80}, Dial: refuse})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	in := &inlet{r: r, out: newQueue(&r.budget, 1<<30)}
	r.budget.max = 1 << 30
	for _, p := range pieces {
		in.Data(p, false)
	}
	in.End(false)
	names := map[itemKind]string{
		itemBegin: "begin", itemBody: "body", itemEnd: "end", itemRaw: "raw", itemSwitched: "switched", itemCut: "cut", itemFin: "fin", itemReset: "reset",
	}
	var out []string
	last := itemFin
	for _, i := range in.out.close() {
		if i.kind == last && (i.kind == itemBody || i.kind == itemRaw || i.kind == itemSwitched) {
			out[len(out)-1] += string(i.data)
		} else {
			out = append(out, names[i.kind])
			if len(i.data) > 0 {
				out[len(out)-1] += " " + string(i.data)
			}
		}
		last = i.kind
	}
	return out
}

// bytewise splits b into its bytes.
func bytewise(b []byte) (out [][]byte) {
	for i := range b {
		out = append(out, b[i:i+1])
	}
	return out
}

func TestSteps(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     []string
	}{
		{"nothing", "", []string{"fin"}},
		{"get", get, []string{"begin " + get, "end", "fin"}},
		{"line-ends-without-cr", "GET / HTTP/1.1\nHost: a\n\n" + get, []string{"begin GET / HTTP/1.1\nHost: a\n\n", "end", "begin " + get, "end", "fin"}},
		{"body", post + post, []string{"begin " + post[:len(post)-4], "body body", "end", "begin " + post[:len(post)-4], "body body", "end", "fin"}},
		{"chunked-with-trailer", chunked + get, []string{
			"begin PUT /d HTTP/1.1\r\nHost: example.org\r\nTransfer-Encoding: chunked\r\n\r\n",
			"body 4;x=1\r\nbody\r\n00a\r\n0123456789\r\n0\r\nSum: 14\r\n\r\n", "end", "begin " + get, "end", "fin",
		}},
		{"empty-lines-between", get + "\r\n\r\n" + get, []string{"begin " + get, "end", "begin \r\n\r\n" + get, "end", "fin"}},
		{"head-without-an-end", get[:20], []string{"fin"}},
		{"body-without-an-end", post[:len(post)-1], []string{"begin " + post[:len(post)-4], "body bod", "cut", "fin"}},
		{"bad-chunk", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n" + get, []string{
			"begin POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "body xyz\r\n", "cut", "fin",
		}},
		{"http2", http1.Preface + "frames", []string{"fin"}}, // see TestMultiplex
		{"upgraded-to-http2", upgrade + http1.Preface + "frames", []string{"begin " + upgrade, "end", "switched " + http1.Preface + "frames", "fin"}},
		{"connect", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n\x01bytes", []string{"begin CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "end", "switched \x01bytes", "fin"}},
		{"other-version", "GET / HTTP/2.0\r\n\r\n", []string{"raw GET / HTTP/2.0\r\n\r\n", "fin"}},
		{"http09", "GET /\r\n", []string{"raw GET /\r\n", "fin"}},
		{"smtp", "EHLO me\r\n", []string{"raw EHLO me\r\n", "fin"}},
		{"redis", "*1\r\n$4\r\nPING\r\n", []string{"raw *1\r\n$4\r\nPING\r\n", "fin"}},
		{"head-without-bound", "GET /" + strings.Repeat("x", http1.MaxFirst) + " HTTP/1.1\r\n", []string{"raw GET /" + strings.Repeat("x", http1.MaxFirst) + " HTTP/1.1\r\n", "fin"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, steps(t, []byte(tt.in))); diff != "" {
				t.Errorf("at once (-want +got):\n%s", diff)
			}
			if len(tt.in) < http1.MaxFirst {
				if diff := cmp.Diff(tt.want, steps(t, bytewise([]byte(tt.in))...)); diff != "" {
					t.Errorf("byte by byte (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// FuzzInlet gives the bytes of anybody: where they are split makes no difference, and
// what is passed on is what came, in its order, and nothing else.
func FuzzInlet(f *testing.F) {
	for _, seed := range []string{get, post + chunked, upgrade + "\x81x", http1.Preface, get + "\r\n" + head, "\x16\x03\x01", "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"} {
		f.Add([]byte(seed), 3)
	}
	f.Fuzz(func(t *testing.T, in []byte, size int) {
		size = max(size, 1)
		pieces := slices.Collect(slices.Chunk(in, size))
		whole := steps(t, in)
		if diff := cmp.Diff(whole, steps(t, pieces...)); diff != "" {
			t.Errorf("in pieces of %d (-at once +so):\n%s", size, diff)
		}
		var passed []byte
		for _, s := range whole {
			_, text, _ := strings.Cut(s, " ")
			passed = append(passed, text...)
		}
		if !bytes.HasPrefix(in, passed) {
			t.Errorf("%q was passed on of %q", passed, in)
		}
	})
}

func TestSelection(t *testing.T) {
	filters := func(texts ...string) (out []Filter) {
		for _, text := range texts {
			f, err := ParseFilter(text)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, f)
		}
		return out
	}
	const ask = "GET /api/orders?id=1 HTTP/1.1\r\nHost: shop.example.org\r\nX-User: alice\r\nX-Tag: a\r\nX-Tag: b\r\n\r\n"
	for _, tt := range []struct {
		name string
		s    Selection
		want fate
	}{
		{"all", Selection{}, taken},
		{"method", Selection{Filters: filters("method=post,get")}, taken},
		{"other-method", Selection{Filters: filters("method=POST")}, filtered},
		{"path", Selection{Filters: filters("path=/api/orders")}, taken},
		{"path-prefix", Selection{Filters: filters("path=/api/*")}, taken},
		{"other-path", Selection{Filters: filters("path=/api")}, filtered},
		{"path-regex", Selection{Filters: filters("path~^/api/(orders|users)$")}, taken},
		{"not-path", Selection{Filters: filters("!path=/api/*")}, filtered},
		{"header", Selection{Filters: filters("header:x-user=alice")}, taken},
		{"header-is-there", Selection{Filters: filters("header:X-User")}, taken},
		{"header-is-not-there", Selection{Filters: filters("!header:X-Other")}, taken},
		{"header-regex", Selection{Filters: filters("header:x-tag~^b$")}, taken},
		{"host", Selection{Filters: filters("header:host=shop.example.org")}, taken},
		{"other-header", Selection{Filters: filters("header:x-user=bob")}, filtered},
		{"all-must-match", Selection{Filters: filters("method=GET", "header:x-user=bob")}, filtered},
		{"none-sampled", Selection{Percent: 1e-12}, sampled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := http1.ParseHead([]byte(ask))
			if err != nil {
				t.Fatal(err)
			}
			s := selector{Selection: tt.s}
			if got := s.take(r, time.Now()); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	for _, bad := range []string{"", "method", "method=", "path=orders", "path~(", "header:", "header:a~(", "body=x"} {
		if f, err := ParseFilter(bad); err == nil {
			t.Errorf("%q is filter %v", bad, f)
		}
	}
}

// TestFiltersKeepWholeRequests leaves out whole requests of a connection.
func TestFiltersKeepWholeRequests(t *testing.T) {
	p := start(t, answering)
	only, err := ParseFilter("method=GET,PUT")
	if err != nil {
		t.Fatal(err)
	}
	r := replaying(t, p, Config{Select: Selection{Filters: []Filter{only}}})
	c := mirrortest.New(client, server, r.Packet)
	c.Open()
	for _, ask := range []string{post, get, head, chunked, post + get} {
		c.Ask(ask)
		c.Answer("whatever")
	}
	c.Close()
	raw := mirrortest.New(other, server, r.Packet)
	raw.Open()
	raw.Ask("\x01cannot be filtered")
	raw.Close()
	s := settled(t, r)
	if want := (Outcomes{Seen: 6, Delivered: 3, Filtered: 3}); s.Requests != want {
		t.Errorf("requests %+v, want %+v", s.Requests, want)
	}
	if want := (Outcomes{Seen: 1, Filtered: 1}); s.Streams != want {
		t.Errorf("streams %+v, want %+v", s.Streams, want)
	}
	if diff := cmp.Diff([]string{get + chunked + get}, p.heard()); diff != "" {
		t.Errorf("the local program heard (-want +got):\n%s", diff)
	}
}

// TestRate caps requests in the time of the capture.
func TestRate(t *testing.T) {
	r, err := http1.ParseHead([]byte(get))
	if err != nil {
		t.Fatal(err)
	}
	s := selector{Selection: Selection{PerSecond: 10}}
	at, n := time.Unix(1, 0), 0
	for range 1000 { // 100 a second, for 10 s
		if s.take(r, at) == taken {
			n++
		}
		at = at.Add(10 * time.Millisecond)
	}
	if n < 100 || n > 110 {
		t.Errorf("%d of 1000 in 10 s, want 10 a second and a second's worth at once", n)
	}
}

func TestSample(t *testing.T) {
	r, err := http1.ParseHead([]byte(get))
	if err != nil {
		t.Fatal(err)
	}
	s, n := selector{Selection: Selection{Percent: 25}}, 0
	for range 10000 {
		if s.take(r, time.Time{}) == taken {
			n++
		}
	}
	if n < 2200 || n > 2800 { // seven standard deviations
		t.Errorf("%d of 10000, want about 2500", n)
	}
}

func TestStatsAdd(t *testing.T) {
	a := Stats{Opened: 1, Waiting: map[string]int64{"tls": 1}, Gaps: map[string]uint64{"hole": 1}, Requests: Outcomes{Seen: 1, Delivered: 1}}
	a.Packets = 5
	b := Stats{Opened: 2, Waiting: map[string]int64{"tls": 1, "http/2": 1}, Requests: Outcomes{Seen: 2, Cut: 2}, Problem: "now"}
	b.Packets = 7
	want := Stats{Opened: 3, Waiting: map[string]int64{"tls": 2, "http/2": 1}, Gaps: map[string]uint64{"hole": 1}, Requests: Outcomes{Seen: 3, Delivered: 1, Cut: 2}, Problem: "now"}
	want.Packets = 12
	if diff := cmp.Diff(fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", a.Add(b))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
