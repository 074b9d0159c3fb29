package link

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// readAll reads frames until an error and returns each datagram's text form and each control frame's.
func readAll(r io.Reader, batch, bufSize int) (got []string, calls int, err error) {
	f := &frameReader{br: bufio.NewReaderSize(r, readBuffer), control: func(code byte, payload []byte) {
		got = append(got, fmt.Sprintf("control %d %x", code, payload))
	}}
	bufs := make([][]byte, batch)
	for i := range bufs {
		bufs[i] = make([]byte, bufSize)
	}
	sizes := make([]int, batch)
	for {
		n, err := f.read(bufs, sizes)
		for i, size := range sizes[:n] {
			got = append(got, fmt.Sprintf("%d:%x", size, bufs[i][:min(size, 4)]))
		}
		if err != nil {
			return got, calls, err
		}
		calls++
	}
}

func TestFrames(t *testing.T) {
	big := bytes.Repeat([]byte{7}, maxDatagram)
	var stream []byte
	stream = appendDatagram(stream, []byte{1})
	stream = appendControl(stream, codePing, []byte("12345678"))
	stream = appendDatagram(stream, big)
	stream = appendControl(stream, 200, nil) // unknown
	stream = appendControl(stream, 201, bytes.Repeat([]byte{1}, 255))
	stream = appendDatagram(stream, []byte{2, 3})
	want := []string{
		"1:01", "control 1 3132333435363738", "65535:07070707", "control 200 ",
		"control 201 " + fmt.Sprintf("%x", bytes.Repeat([]byte{1}, 255)), "2:0203",
	}
	readers := map[string]func(io.Reader) io.Reader{
		"whole":        func(r io.Reader) io.Reader { return r },
		"byte by byte": iotest.OneByteReader,
		"halves":       iotest.HalfReader,
		"error early":  iotest.DataErrReader,
	}
	for name, wrap := range readers {
		t.Run(name, func(t *testing.T) {
			got, _, err := readAll(wrap(bytes.NewReader(stream)), 1, maxDatagram)
			if err != io.EOF {
				t.Errorf("error %v, want EOF", err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("frames (-want +got):\n%s", d)
			}
		})
	}
	t.Run("one batch", func(t *testing.T) {
		f := &frameReader{br: bufio.NewReaderSize(bytes.NewReader(stream), readBuffer), control: func(byte, []byte) {}}
		bufs := [][]byte{make([]byte, maxDatagram), make([]byte, maxDatagram), make([]byte, maxDatagram), nil}
		sizes := make([]int, len(bufs))
		n, err := f.read(bufs, sizes)
		if n != 3 || err != nil || !cmp.Equal(sizes[:3], []int{1, maxDatagram, 2}) {
			t.Errorf("read = %d, %v, sizes %v; want all three that were there", n, err, sizes)
		}
	})
	t.Run("small buffer", func(t *testing.T) {
		got, _, err := readAll(bytes.NewReader(stream), 2, 100)
		want := []string{"control 1 3132333435363738", want[3], want[4], "1:01", "2:0203"}
		if err != io.EOF || !cmp.Equal(got, want) {
			t.Errorf("got %v, %v; want %v", got, err, want)
		}
	})
	t.Run("torn", func(t *testing.T) {
		for cut := range 20 {
			if _, _, err := readAll(bytes.NewReader(stream[:cut]), 4, maxDatagram); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("stream cut at %d: %v", cut, err)
			}
		}
	})
}

// FuzzFrames reads arbitrary bytes and checks that what comes out is the same however the bytes arrive, and
// that the datagrams framed anew are read alike.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0})
	f.Add([]byte{0, 0})
	f.Add([]byte{0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 9})
	f.Add([]byte{0, 0, 1, 255})
	f.Add(appendControl(nil, codeBye, nil))
	f.Add([]byte{255, 255, 1, 2, 3})
	f.Add(appendControl(appendDatagram(nil, []byte("datagram")), 77, []byte("later")))
	f.Fuzz(func(t *testing.T, stream []byte) {
		whole, _, err := readAll(bytes.NewReader(stream), 1, maxDatagram)
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("error %v", err)
		}
		dribbled, _, _ := readAll(iotest.OneByteReader(bytes.NewReader(stream)), 1, maxDatagram)
		if d := cmp.Diff(whole, dribbled); d != "" {
			t.Fatalf("whole against byte by byte:\n%s", d)
		}
		if len(stream) > 0 && len(stream) <= maxDatagram {
			again, _, _ := readAll(bytes.NewReader(appendDatagram(nil, stream)), 1, maxDatagram)
			if want := fmt.Sprintf("%d:%x", len(stream), stream[:min(len(stream), 4)]); len(again) != 1 || again[0] != want {
				t.Fatalf("framed and read: %v, want %s", again, want)
			}
		}
	})
}
