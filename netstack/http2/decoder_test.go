package http2

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// heard writes down what it is told; bytes of a body in a row are one.
type heard struct {
	lines []string
	data  uint32 // the stream whose body the last line is; 0 = it is none
}

func (h *heard) say(data uint32, format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if data != 0 && data == h.data {
		h.lines[len(h.lines)-1] += line
	} else {
		if data != 0 {
			line = fmt.Sprintf("%d says %s", data, line)
		}
		h.lines = append(h.lines, line)
	}
	h.data = data
}

func (h *heard) Head(stream uint32, fields []Field, end bool) {
	var text []string
	for _, f := range fields {
		text = append(text, f.Name+"="+f.Value)
	}
	h.say(0, "%d head %s end=%v", stream, strings.Join(text, " "), end)
}

func (h *heard) Data(stream uint32, b []byte, end bool) {
	if len(b) > 0 {
		h.say(stream, "%s", b)
	}
	if end {
		h.say(0, "%d ends", stream)
	}
}

func (h *heard) Reset(stream uint32) { h.say(0, "%d reset", stream) }

// decode tells what a client says, given in pieces of a size.
func decode(in []byte, size int) ([]string, error) {
	h := &heard{}
	d := NewDecoder(h, true)
	for piece := range slices.Chunk(in, size) {
		if err := d.Decode(piece); err != nil {
			return h.lines, err
		}
	}
	return h.lines, nil
}

// client makes what a client says.
type client struct {
	bytes.Buffer
	*http2.Framer
	block bytes.Buffer
	enc   *hpack.Encoder
}

func newClient() *client {
	c := &client{}
	c.WriteString(http2.ClientPreface)
	c.Framer = http2.NewFramer(&c.Buffer, nil)
	c.enc = hpack.NewEncoder(&c.block)
	return c
}

// fields compresses fields; they are given as name, value, name, value.
func (c *client) fields(kv ...string) []byte {
	c.block.Reset()
	for i := 0; i < len(kv); i += 2 {
		c.enc.WriteField(hpack.HeaderField{Name: kv[i], Value: kv[i+1]}) // into memory
	}
	return bytes.Clone(c.block.Bytes())
}

func TestDecoder(t *testing.T) {
	c := newClient()
	c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.fields(":method", "GET", "a", "b"), EndStream: true, EndHeaders: true})
	block := c.fields(":method", "POST", "a", "b", "c", strings.Repeat("d", 100))
	c.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: block[:7], PadLength: 9, Priority: http2.PriorityParam{Weight: 7, StreamDep: 1}})
	c.WriteContinuation(3, false, block[7:20])
	c.WriteContinuation(3, true, block[20:])
	c.WritePing(false, [8]byte{1})
	c.WriteDataPadded(3, false, []byte("hello "), make([]byte, 200))
	c.WriteDataPadded(3, false, nil, make([]byte, 3))
	c.WriteData(3, false, []byte("world"))
	c.WriteWindowUpdate(0, 1000)
	c.WriteHeaders(http2.HeadersFrameParam{StreamID: 5, BlockFragment: c.fields(":method", "POST"), EndHeaders: true})
	c.WriteData(5, true, []byte("body"))
	c.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: c.fields("sum", "11"), EndStream: true, EndHeaders: true})
	c.WriteRawFrame(77, 0xff, 3, []byte("unknown"))
	c.WriteRSTStream(5, http2.ErrCodeCancel)
	c.WriteGoAway(0, http2.ErrCodeNo, nil)
	want := []string{
		"1 head :method=GET a=b end=true",
		"3 head :method=POST a=b c=" + strings.Repeat("d", 100) + " end=false",
		"3 says hello world",
		"5 head :method=POST end=false",
		"5 says body", "5 ends",
		"3 head sum=11 end=true",
		"5 reset",
	}
	for _, size := range []int{1, 2, 9, 10, 1 << 20} {
		got, err := decode(c.Bytes(), size)
		if err != nil {
			t.Fatalf("in pieces of %d: %v after %q", size, err, got)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("in pieces of %d (-want +got):\n%s", size, diff)
		}
	}
}

// TestPromises: what a server promises changes what later fields mean.
func TestPromises(t *testing.T) {
	c := newClient()
	c.Reset()
	c.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: c.fields("x-name", "value"), EndHeaders: true, PadLength: 4})
	c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.fields(":status", "200", "x-name", "value"), EndHeaders: true})
	h := &heard{}
	if err := NewDecoder(h, false).Decode(c.Bytes()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"1 head :status=200 x-name=value end=false"}, h.lines); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestMalformed(t *testing.T) {
	frame := func(kind http2.FrameType, flags http2.Flags, stream uint32, payload string) func(*client) {
		return func(c *client) {
			c.AllowIllegalWrites = true
			c.WriteRawFrame(kind, flags, stream, []byte(payload))
		}
	}
	for _, tt := range []struct {
		name string
		play func(*client)
	}{
		{"data-of-no-stream", frame(http2.FrameData, 0, 0, "x")},
		{"head-of-no-stream", frame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 0, "")},
		{"padding-without-its-length", frame(http2.FrameData, http2.FlagDataPadded, 1, "")},
		{"more-padding-than-data", frame(http2.FrameData, http2.FlagDataPadded, 1, "\x05abcd")},
		{"more-padding-than-fields", frame(http2.FrameHeaders, http2.FlagHeadersPadded|http2.FlagHeadersEndHeaders, 1, "\x05abcd")},
		{"continued-from-nothing", frame(http2.FrameContinuation, http2.FlagContinuationEndHeaders, 1, "")},
		{"something-within-a-head", func(c *client) { frame(http2.FrameHeaders, 0, 1, "")(c); frame(http2.FramePing, 0, 0, "12345678")(c) }},
		{"another-streams-continuation", func(c *client) { frame(http2.FrameHeaders, 0, 1, "")(c); frame(http2.FrameContinuation, 0, 3, "")(c) }},
		{"no-fields", frame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")},
		{"fields-that-grow", func(c *client) {
			block := c.fields("x", strings.Repeat("y", 3000)) // and then the same entry of the table again and again
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: append(block, bytes.Repeat([]byte{0xbe}, 5000)...), EndHeaders: true})
		}},
		{"a-long-head", func(c *client) {
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: make([]byte, 1<<14)})
			for range MaxHead >> 14 {
				c.WriteContinuation(1, false, make([]byte, 1<<14))
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient()
			tt.play(c)
			if got, err := decode(c.Bytes(), 1<<20); err != ErrMalformed {
				t.Errorf("got %v after %q, want %v", err, got, ErrMalformed)
			}
		})
	}
	if _, err := decode([]byte("PRI * HTTP/1.1\r\n"), 1<<20); err != ErrMalformed {
		t.Errorf("another preface: %v", err)
	}
}

func TestRequestOf(t *testing.T) {
	fields := func(kv ...string) (out []Field) {
		for i := 0; i < len(kv); i += 2 {
			out = append(out, Field{Name: kv[i], Value: kv[i+1]})
		}
		return out
	}
	r, err := RequestOf(fields(":method", "POST", ":scheme", "http", ":authority", "example.org", ":path", "/a%2Fb?c=d", "cookie", "a=1", "cookie", "b=2", "content-length", "7"))
	if err != nil {
		t.Fatal(err)
	}
	if r.Method != "POST" || r.Host != "example.org" || r.RequestURI != "/a%2Fb?c=d" || r.ContentLength != 7 || !slices.Equal(r.Header["Cookie"], []string{"a=1", "b=2"}) {
		t.Errorf("got %+v", r)
	}
	if r, err = RequestOf(fields(":method", "CONNECT", ":authority", "example.org:443")); err != nil || r.RequestURI != "example.org:443" {
		t.Errorf("CONNECT: %+v, %v", r, err)
	}
	if r, err = RequestOf(fields(":method", "GET", ":path", "/", "host", "example.org")); err != nil || r.Host != "example.org" || r.Header["Host"] != nil {
		t.Errorf("with a Host: %+v, %v", r, err)
	}
	for _, bad := range [][]Field{
		nil, fields(":method", "GET"), fields(":path", "/"), fields(":method", "GET", ":path", "a"), fields(":method", "GET", ":path", "/", ":x", "y"),
		fields(":method", "GET", ":path", "/", "content-length", "-1"), fields(":method", "GET", ":path", "/", "", "y"),
	} {
		if r, err := RequestOf(bad); err == nil {
			t.Errorf("%v is the request %+v", bad, r)
		}
	}
}

// FuzzDecoder gives the bytes of anybody: where they are split makes no difference.
func FuzzDecoder(f *testing.F) {
	c := newClient()
	c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.fields(":method", "GET"), EndHeaders: true, PadLength: 1})
	c.WriteDataPadded(1, true, []byte("body"), []byte{0, 0})
	c.WriteRSTStream(1, 0)
	f.Add(bytes.Clone(c.Bytes()[len(http2.ClientPreface):]), 3)
	f.Fuzz(func(t *testing.T, in []byte, size int) {
		in = append([]byte(http2.ClientPreface), in...)
		whole, err := decode(in, len(in))
		pieces, inPieces := decode(in, max(size, 1))
		if diff := cmp.Diff(whole, pieces); diff != "" || err != inPieces {
			t.Errorf("in pieces of %d (-at once +so), %v and %v:\n%s", size, err, inPieces, diff)
		}
	})
}
