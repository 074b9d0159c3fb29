package recording

import (
	"fmt"
	"io"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/borrownet/borrownet/agent/wire"
)

// Writer writes one capture to a pcapng file, as Wireshark, tshark and tcpdump read
// it. Its packets begin with their IP header.
type Writer struct {
	ng    *pcapgo.NgWriter
	last  wire.CaptureStats
	count uint64
}

// NewWriter begins a file with the interfaces of stats, the first record of a capture. application is who captures.
func NewWriter(w io.Writer, stats wire.CaptureStats, application string) (*Writer, error) {
	options := pcapgo.DefaultNgWriterOptions
	options.SectionInfo = pcapgo.NgSectionInfo{Application: application}
	out := &Writer{last: stats}
	for i, name := range stats.Interfaces {
		intf := pcapgo.NgInterface{Name: name, LinkType: layers.LinkTypeRaw, SnapLength: wire.MaxCapturePacket}
		var err error
		if i == 0 {
			out.ng, err = pcapgo.NewNgWriterInterface(w, intf, options)
		} else {
			_, err = out.ng.AddInterface(intf)
		}
		if err != nil {
			return nil, fmt.Errorf("write pcapng: %w", err)
		}
	}
	if out.ng == nil {
		return nil, fmt.Errorf("write pcapng: the capture has no interface")
	}
	return out, nil
}

// Packet writes a packet.
func (w *Writer) Packet(r wire.CaptureRecord) error {
	if int(r.Iface) >= len(w.last.Interfaces) {
		return fmt.Errorf("write pcapng: packet of interface %d of %d", r.Iface, len(w.last.Interfaces))
	}
	ci := gopacket.CaptureInfo{Timestamp: r.Time, CaptureLength: len(r.Data), Length: r.Wire, InterfaceIndex: int(r.Iface)}
	if err := w.ng.WritePacket(ci, r.Data); err != nil {
		return fmt.Errorf("write pcapng: %w", err)
	}
	w.count++
	return nil
}

// Stats notes the counters, which the file ends with.
func (w *Writer) Stats(s wire.CaptureStats) { w.last = s }

// Count returns how many packets were written.
func (w *Writer) Count() uint64 { return w.count }

// Flush hands on what is buffered.
func (w *Writer) Flush() error { return w.ng.Flush() }

// Close ends the file with what was lost. It does not close what is below.
func (w *Writer) Close() error {
	lost := w.last.Dropped + w.last.LostPackets
	stats := pcapgo.NgInterfaceStatistics{PacketsReceived: w.count + lost, PacketsDropped: lost}
	if lost > 0 {
		stats.Comment = fmt.Sprintf("of all interfaces: %d packets were dropped by the kernel, %d with %d flows that were given up", w.last.Dropped, w.last.LostPackets, w.last.LostFlows)
	}
	if err := w.ng.WriteInterfaceStats(0, stats); err != nil {
		return fmt.Errorf("write pcapng: %w", err)
	}
	return w.ng.Flush()
}
