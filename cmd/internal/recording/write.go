package recording

import (
	"fmt"
	"io"
	"time"

	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/cmd/internal/pcapng"
)

// Writer writes one capture to a pcapng file, as Wireshark, tshark and tcpdump read
// it. Its packets begin with their IP header.
type Writer struct {
	ng    *pcapng.Writer
	last  wire.CaptureStats
	at    time.Time // of the last packet
	count uint64
}

// NewWriter begins a file with the interfaces of stats, the first record of a capture. application is who captures.
func NewWriter(w io.Writer, stats wire.CaptureStats, application string) (*Writer, error) {
	var interfaces []pcapng.Interface
	for _, name := range stats.Interfaces {
		interfaces = append(interfaces, pcapng.Interface{Name: name, Link: pcapng.LinkRaw, MaxPacket: wire.MaxCapturePacket})
	}
	if len(interfaces) == 0 {
		return nil, fmt.Errorf("write pcapng: the capture has no interface")
	}
	ng, err := pcapng.NewWriter(w, application, interfaces)
	if err != nil {
		return nil, fmt.Errorf("write pcapng: %w", err)
	}
	return &Writer{ng: ng, last: stats}, nil
}

// Packet writes a packet.
func (w *Writer) Packet(r wire.CaptureRecord) error {
	p := pcapng.Packet{Time: r.Time, Interface: int(r.Iface), Length: r.Wire, Data: r.Data}
	if err := w.ng.Packet(p); err != nil {
		return fmt.Errorf("write pcapng: %w", err)
	}
	w.at = r.Time
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
	stats := pcapng.Statistics{Time: w.at, Received: w.count + lost, Dropped: lost}
	if lost > 0 {
		stats.Comment = fmt.Sprintf("of all interfaces: %d packets were dropped by the kernel, %d with %d flows that were given up", w.last.Dropped, w.last.LostPackets, w.last.LostFlows)
	}
	if err := w.ng.Statistics(0, stats); err != nil {
		return fmt.Errorf("write pcapng: %w", err)
	}
	return w.ng.Flush()
}
