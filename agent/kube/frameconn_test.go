package kube

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"
)

// dataFrame returns a SPDY data frame.
func dataFrame(stream uint32, fin bool, data string) []byte {
	b := binary.BigEndian.AppendUint32(nil, stream)
	length := uint32(len(data))
	if fin {
		length |= 1 << 24
	}
	return append(binary.BigEndian.AppendUint32(b, length), data...)
}

// controlFrame returns a SPDY control frame.
func controlFrame(kind uint16, payload ...byte) []byte {
	b := []byte{0x80, 3, byte(kind >> 8), byte(kind)}
	return append(binary.BigEndian.AppendUint32(b, uint32(len(payload))), payload...)
}

// frames returns a frameConn of which stream 3 is direct, and the other end.
func frames(t *testing.T) (*frameConn, net.Conn) {
	near, far := net.Pipe()
	c := newFrameConn(near)
	c.direct, c.out = 3, 3
	t.Cleanup(func() { c.Close(); far.Close() })
	far.SetDeadline(time.Now().Add(time.Minute))
	return c, far
}

func TestDataGoesPastTheLibrary(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  []byte
	}{
		{"fin", dataFrame(3, true, "")},
		{"fin-with-data", dataFrame(3, true, "!")},
		{"reset", controlFrame(typeReset, 0, 0, 0, 3, 0, 0, 0, 5)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, far := frames(t)
			others := [][]byte{controlFrame(6, 0, 0, 0, 1), dataFrame(1, false, "an error"), controlFrame(typeReset, 0, 0, 0, 1, 0, 0, 0, 5)}
			data := "before anybody reads it, after, and in the end"
			go func() {
				far.Write(others[0])
				far.Write(dataFrame(3, false, data[:10]))
				far.Write(slices.Concat(others[1], dataFrame(3, false, ""), dataFrame(3, false, data[10:20]), dataFrame(3, false, data[20:])))
				far.Write(others[2])
				far.Write(tt.end)
			}()
			library := make(chan []byte, 1)
			want := slices.Concat(others...)
			go func() {
				got := make([]byte, len(want))
				n, _ := io.ReadFull(c, got)
				library <- got[:n]
			}()
			var got []byte
			for b := make([]byte, 7); ; {
				n, err := c.readData(b)
				got = append(got, b[:n]...)
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if tt.name == "fin-with-data" {
				data += "!"
			}
			if string(got) != data {
				t.Errorf("read %q, want %q", got, data)
			}
			if got := <-library; !bytes.Equal(got, want) {
				t.Errorf("the library got %x, want %x", got, want)
			}
		})
	}
}

// TestEndBeforeReading: the end that came while the library read the connection is seen though nothing follows it.
func TestEndBeforeReading(t *testing.T) {
	c, far := frames(t)
	other := controlFrame(6, 0, 0, 0, 1)
	go c.Read(make([]byte, len(other)))
	far.Write(dataFrame(3, true, ""))
	far.Write(other)
	go c.Read(make([]byte, 1)) // waits at the connection
	if n, err := c.readData(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("readData = %d, %v, want EOF", n, err)
	}
}

func TestWritesWholeFrames(t *testing.T) {
	c, far := frames(t)
	big := bytes.Repeat([]byte("0123456789abcdef"), 8<<10)
	ping := controlFrame(6, 0, 0, 0, 2)
	want := slices.Concat(ping, dataFrame(3, false, "small"), dataFrame(3, false, string(big)), dataFrame(3, false, ""))
	go func() {
		for i := range ping { // as the library does, in pieces
			c.Write(ping[i : i+1])
		}
		for _, p := range [][]byte{[]byte("small"), big, nil} {
			if err := c.writeData(p); err != nil {
				t.Error(err)
			}
		}
	}()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(far, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("other frames than were written")
	}
}

func TestFrameConnEnds(t *testing.T) {
	c, far := frames(t)
	errs := make(chan error, 2)
	go func() { _, err := c.Read(make([]byte, 1)); errs <- err }()
	go func() { _, err := c.readData(make([]byte, 1)); errs <- err }()
	far.Write(dataFrame(3, false, "")) // lets the library's Read go, if it has begun
	c.Close()
	for range 2 {
		if err := <-errs; err == nil {
			t.Error("a read succeeds after Close")
		}
	}
	if err := c.writeData([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("write = %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("Read succeeds after Close")
	}
}

func TestFramesAreBounded(t *testing.T) {
	c, far := frames(t)
	go far.Write([]byte{0, 0, 0, 1, 0, 0xff, 0xff, 0xff}) // 16 MiB on the error stream
	if _, err := c.readData(make([]byte, 1)); !errors.Is(err, io.ErrShortBuffer) {
		t.Errorf("readData = %v, want %v", err, io.ErrShortBuffer)
	}
}
