package main

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/cmd/internal/recording"
)

// TestCopyRecords makes a file of a capture's stream that replay can read.
func TestCopyRecords(t *testing.T) {
	packet := append([]byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 6}, make([]byte, 18)...)
	var stream []byte
	for _, r := range []wire.CaptureRecord{
		{Stats: &wire.CaptureStats{Interfaces: []string{"lo", "eth0"}}},
		{Iface: wire.CapturePod, Time: time.Unix(7, 0), Wire: 1000, Data: packet},
		{Client: netip.MustParseAddrPort("192.0.2.1:1"), Server: netip.MustParseAddrPort("192.0.2.2:2"), Packets: 5, Bytes: 9},
		{Stats: &wire.CaptureStats{Interfaces: []string{"lo", "eth0"}, LostPackets: 5, LostFlows: 1}},
		{Iface: wire.CaptureLoopback, Time: time.Unix(8, 0), Wire: len(packet), Data: packet},
	} {
		var err error
		if stream, err = wire.AppendCapture(stream, r); err != nil {
			t.Fatal(err)
		}
	}
	var file bytes.Buffer
	written, err := copyRecords(t.Context(), &file, wire.NewCaptureReader(bytes.NewReader(stream)), "test")
	if err != nil || written != 2 {
		t.Fatalf("%d packets, %v", written, err)
	}
	path := filepath.Join(t.TempDir(), "x.pcapng")
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := recording.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, want := range []struct {
		iface uint8
		wire  int
	}{{wire.CapturePod, 1000}, {wire.CaptureLoopback, len(packet)}} {
		p, err := f.Next(t.Context())
		if err != nil || p.Iface != want.iface || p.Wire != want.wire || !bytes.Equal(p.Data, packet) {
			t.Errorf("%+v, %v, want %+v", p, err, want)
		}
	}
	for _, bad := range [][]byte{nil, stream[len(stream)-20:]} {
		if _, err := copyRecords(t.Context(), &bytes.Buffer{}, wire.NewCaptureReader(bytes.NewReader(bad)), "test"); err == nil {
			t.Errorf("no error from a stream of %d bytes that is none", len(bad))
		}
	}
}
