package wire

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// records are one of each kind.
func records() []CaptureRecord {
	return []CaptureRecord{
		{Stats: &CaptureStats{Interfaces: []string{"lo", "eth0"}, Ports: []CapturedPort{{Port: 8080, Loopback: true}}, Dropped: 3}},
		{Iface: CapturePod, Time: time.Unix(1, 2), Wire: 1500, Data: []byte{0x45, 0, 0, 1}},
		{Client: netip.MustParseAddrPort("192.0.2.1:4000"), Server: netip.MustParseAddrPort("198.51.100.7:8080"), Packets: 7, Bytes: 1 << 40},
		{Client: netip.MustParseAddrPort("[2001:db8::1]:1"), Server: netip.MustParseAddrPort("[2001:db8::2]:65535"), Packets: 1},
		{Packets: 9},
	}
}

func encode(tb testing.TB, list []CaptureRecord) []byte {
	tb.Helper()
	var b []byte
	for _, r := range list {
		var err error
		if b, err = AppendCapture(b, r); err != nil {
			tb.Fatal(err)
		}
	}
	return b
}

func TestCaptureStream(t *testing.T) {
	want := records()
	stream := NewCaptureReader(bytes.NewReader(encode(t, want)))
	for i, w := range want {
		got, err := stream.Next()
		if err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
		if diff := cmp.Diff(w, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
			t.Errorf("record %d (-want +got):\n%s", i, diff)
		}
	}
	if _, err := stream.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v, want io.EOF", err)
	}
}

// A stream that is cut inside a record is not one that has ended.
func TestCaptureStreamCut(t *testing.T) {
	whole := encode(t, records()[1:2])
	for n := 1; n < len(whole); n++ {
		if _, err := NewCaptureReader(bytes.NewReader(whole[:n])).Next(); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%d of %d bytes: %v, want an error that is not io.EOF", n, len(whole), err)
		}
	}
}

func FuzzCaptureReader(f *testing.F) {
	f.Add(encode(f, records()))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 'p'})
	f.Add([]byte{0, 0, 0, 1, 'l'})
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := NewCaptureReader(bytes.NewReader(stream))
		for {
			rec, err := r.Next()
			if err != nil {
				return
			}
			if rec.Stats != nil {
				continue // JSON has many forms
			}
			b, err := AppendCapture(nil, rec)
			if err != nil {
				t.Fatalf("cannot encode what was decoded, %+v: %v", rec, err)
			}
			again, err := NewCaptureReader(bytes.NewReader(b)).Next()
			if diff := cmp.Diff(rec, again, cmpopts.EquateComparable(netip.AddrPort{})); err != nil || diff != "" {
				t.Fatalf("again: %v\n%s", err, diff)
			}
		}
	})
}
