package recording

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/borrownet/borrownet/agent/wire"
)

// TestWriter reads back what was written: packets with their interface, time and length, and what was lost.
func TestWriter(t *testing.T) {
	var file bytes.Buffer
	w, err := NewWriter(&file, wire.CaptureStats{Interfaces: []string{"lo", "eth0"}}, "borrownet test")
	if err != nil {
		t.Fatal(err)
	}
	packets := []wire.CaptureRecord{
		{Iface: 1, Time: time.Unix(1700000000, 123456789), Wire: 1500, Data: bytes.Repeat([]byte{0x45}, 128)},
		{Iface: 0, Time: time.Unix(1700000001, 0), Wire: 41, Data: bytes.Repeat([]byte{0x60}, 41)},
	}
	for _, p := range packets {
		if err := w.Packet(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Packet(wire.CaptureRecord{Iface: 2, Data: []byte{1}, Wire: 1}); err == nil {
		t.Error("a packet of an unknown interface was taken")
	}
	w.Stats(wire.CaptureStats{Dropped: 3, LostPackets: 4, LostFlows: 1})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := pcapgo.NewNgReader(&file, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range packets {
		data, ci, err := r.ReadPacketData()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(data, want.Data) || !ci.Timestamp.Equal(want.Time) || ci.Length != want.Wire || ci.InterfaceIndex != int(want.Iface) {
			t.Errorf("packet %d: %d bytes, %+v", i, len(data), ci)
		}
	}
	if _, _, err := r.ReadPacketData(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	for i, name := range []string{"lo", "eth0"} {
		intf, err := r.Interface(i)
		if err != nil || intf.Name != name || intf.LinkType != layers.LinkTypeRaw {
			t.Errorf("interface %d: %+v, %v", i, intf, err)
		}
		if i == 0 && (intf.Statistics.PacketsDropped != 7 || intf.Statistics.PacketsReceived != 9 ||
			!strings.Contains(intf.Statistics.Comment, "3 packets were dropped by the kernel, 4 with 1 flows") || !intf.Statistics.LastUpdate.Equal(packets[1].Time)) {
			t.Errorf("statistics %+v", intf.Statistics)
		}
	}
}
