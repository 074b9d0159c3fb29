package stdio

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/borrownet/borrownet/agent/stdio/stdiotest"
	"github.com/borrownet/borrownet/netstack/leaktest"
)

func newContainer(t *testing.T) (*stdiotest.Container, *Listener) {
	t.Helper()
	leaktest.Check(t)
	c := stdiotest.Start()
	l := Listen(c.In, c.Out, []byte("hello"))
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return c, l
}

// pair opens a stream and returns both ends.
func pair(t *testing.T, c *stdiotest.Container, l *Listener) (*Stream, *Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, greeting, err := Open(ctx, c.Attach())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if string(greeting) != "hello" {
		t.Errorf("greeting %q", greeting)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return s, conn
}

// transfer checks that what is written to w arrives at r.
func transfer(t *testing.T, w io.Writer, r io.Reader, size int) {
	t.Helper()
	want := make([]byte, size)
	rand.Read(want)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if n, err := w.Write(want); n != size || err != nil {
			t.Errorf("wrote %d of %d: %v", n, size, err)
		}
	})
	got := make([]byte, size)
	if n, err := io.ReadFull(r, got); err != nil {
		t.Errorf("read %d of %d: %v", n, size, err)
	} else if !bytes.Equal(got, want) {
		t.Errorf("%d bytes arrived changed", size)
	}
}

func TestBothDirections(t *testing.T) {
	c, l := newContainer(t)
	s, conn := pair(t, c, l)
	var wg sync.WaitGroup
	wg.Go(func() { transfer(t, s, conn, 1<<20+17) })
	transfer(t, conn, s, 1<<20+17)
	wg.Wait()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the agent read %v behind the client's Close", err)
	}
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read after Close: %v", err)
	}
	if _, err := s.Write(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write after Close: %v", err)
	}
}

// TestLogIsText: what the agent writes is in the container's log, which people and their tools read.
func TestLogIsText(t *testing.T) {
	c, l := newContainer(t)
	s, conn := pair(t, c, l)
	transfer(t, conn, s, 300<<10)
	for line := range strings.Lines(c.Log()) {
		if len(line) > maxLine {
			t.Errorf("a line of %d bytes", len(line))
		}
		if i := strings.IndexFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 {
			t.Fatalf("byte %#x in the log", line[i])
		}
	}
}

// TestRemainsOfOlderConnections: what a connection that broke has sent arrives behind what its successor sends, cut
// anywhere. It ends the streams that it damages, and no other one.
func TestRemainsOfOlderConnections(t *testing.T) {
	c, l := newContainer(t)
	first, _ := pair(t, c, l)
	var e encoder
	remains := e.append(nil, record{first.id, 1, kindData, bytes.Repeat([]byte("x"), 5000)})
	if err := c.Type(remains[:1234]); err != nil {
		t.Fatal(err)
	}
	c.Cut()
	second, conn := pair(t, c, l)
	transfer(t, second, conn, 100<<10)
	if err := c.Type(append(remains[1234:], "no record\n~AAAA\n"...)); err != nil {
		t.Fatal(err)
	}
	transfer(t, second, conn, 100<<10)

	// Now in the midst of a line.
	line := e.append(nil, record{second.id, second.wrote, kindData, []byte("lost")})
	for _, b := range [][]byte{line[:10], remains, line[10:], e.append(nil, record{second.id, second.wrote + 1, kindData, []byte("behind")})} {
		if err := c.Type(b); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := conn.Read(make([]byte, 10)); n != 0 || !errors.Is(err, errGap) {
		t.Errorf("read %d bytes behind a gap, error %v", n, err)
	}
	c.Cut()
	third, conn := pair(t, c, l)
	transfer(t, third, conn, 1000)
}

// TestAttachedInTheMiddle: a client that attaches while another's data goes by gets its own.
func TestAttachedInTheMiddle(t *testing.T) {
	c, l := newContainer(t)
	first, conn := pair(t, c, l)
	var wg sync.WaitGroup
	wg.Go(func() { transfer(t, conn, first, 2<<20) })
	second, other := pair(t, c, l)
	go func() { _, _ = io.Copy(io.Discard, second) }() // ends with Close
	wg.Wait()
	transfer(t, second, other, 1000)
	var e encoder
	if r, ok := newDecoder(nil).parse(e.append(nil, record{1, 2, kindData, nil})); !ok || r.number != 2 {
		t.Error("an empty record is none")
	}
}

// TestCloseUnblocks: neither end waits for a writer or a reader that nobody serves.
func TestCloseUnblocks(t *testing.T) {
	for _, end := range []string{"client", "agent", "listener"} {
		t.Run(end, func(t *testing.T) {
			c, l := newContainer(t)
			s, conn := pair(t, c, l)
			var wg sync.WaitGroup
			wg.Go(func() { // nobody reads conn: standard input fills
				if _, err := s.Write(make([]byte, 1<<20)); err == nil {
					t.Error("the client's write to nobody ended well")
				}
			})
			wg.Go(func() { // nobody reads s: standard output fills
				if _, err := conn.Write(make([]byte, 1<<20)); err == nil && end != "client" {
					t.Error("the agent's write to nobody ended well")
				}
			})
			switch end {
			case "client":
				s.Close()
				conn.Close()
				c.In.Close()
			case "agent":
				c.In.Close() // else the client's write goes on behind conn's end
				conn.Close()
				s.Close()
			case "listener":
				if err := l.Close(); err != nil {
					t.Error(err)
				}
				c.Cut()
			}
			wg.Wait()
		})
	}
}

// slowly is a connection on which a write takes long.
type slowly struct {
	*stdiotest.Attached
	pause time.Duration
}

func (s *slowly) Write(p []byte) (int, error) {
	time.Sleep(s.pause)
	return s.Attached.Write(p)
}

// TestCloseDuringAWrite: the agent hears of the end also if the client was about to write. It would wait for
// that client else, until it takes the silence for its end.
func TestCloseDuringAWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := stdiotest.Start()
		l := Listen(c.In, c.Out, nil)
		defer l.Close()
		s, _, err := Open(t.Context(), &slowly{c.Attach(), goodbye / 4})
		if err != nil {
			t.Fatal(err)
		}
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		heard := make(chan string)
		go func() { // ends with the stream
			text, err := io.ReadAll(conn)
			heard <- fmt.Sprintf("%s, %v", text, err)
		}()
		go func() {
			if _, err := s.Write([]byte("last")); err != nil {
				t.Errorf("the write under way: %v", err)
			}
		}()
		synctest.Wait() // it is under way
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if got := <-heard; got != "last, <nil>" {
			t.Errorf("the agent heard %s", got)
		}
	})
}

// TestBounded: who opens streams without end gets some, and none of them takes memory from others.
func TestBounded(t *testing.T) {
	c, l := newContainer(t)
	a := c.Attach()
	go func() { _, _ = io.Copy(io.Discard, a) }() // ends with Close
	t.Cleanup(func() { a.Close() })
	var e encoder
	for i := range uint64(4 * maxConns) {
		if err := c.Type(e.append(nil, record{stream: i, kind: kindOpen})); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Type([]byte("\n")); err != nil { // all before it is read
		t.Fatal(err)
	}
	for range maxConns {
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	if len(l.accepted) > 0 || len(l.conns) > 0 {
		t.Errorf("%d streams more were opened", len(l.accepted)+len(l.conns))
	}
	s, conn := pair(t, c, l)
	transfer(t, s, conn, 1000)
}

func TestOpenEndsWithItsContext(t *testing.T) {
	c, _ := newContainer(t)
	a := c.Attach()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe() // nobody answers
	defer w.Close()
	go cancel()
	_, _, err := Open(ctx, struct {
		io.Reader
		io.Writer
		io.Closer
	}{r, io.Discard, r})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("opened with %v", err)
	}
	a.Close()
}

func FuzzDecoder(f *testing.F) {
	var e encoder
	f.Add(e.append(nil, record{1, 2, kindData, []byte("payload")}))
	f.Add([]byte("~AAAA\n~\n\n~====\nhello"))
	f.Fuzz(func(t *testing.T, input []byte) {
		d := newDecoder(bytes.NewReader(input))
		for {
			r, err := d.next()
			if err != nil {
				return
			}
			again, ok := d.parse(e.append(nil, r))
			if !ok || again.stream != r.stream || again.number != r.number || again.kind != r.kind || len(again.payload) != len(r.payload) {
				t.Fatalf("%+v became %+v", r, again)
			}
		}
	})
}
