package wire

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"
)

// CapturePort is the TCP port, on the agent's address, of captures: a flow of its own that everything else goes before.
const CapturePort = 81

// PathCapture streams a capture on CapturePort until either side ends it.
//
// GET ?lo=PORT&pod=PORT&responses=full: the ports of the pod to capture, each as often as it takes, on the loopback
// (behind a mesh's proxy) or on the pod's interface. Of what servers answer only headers come, unless responses=full.
// The answer is a stream of records, of which the first is a CaptureStats. 403 says that the agent may not capture.
const PathCapture = "/v1/capture"

// Bounds of a capture.
const (
	MaxCapturePorts  = 16
	MaxCapturePacket = 256 << 10 // bytes of an IP packet
)

// The interfaces of a capture, as its packets name them.
const (
	CaptureLoopback uint8 = iota // plaintext between a mesh's proxy and the application
	CapturePod                   // the pod's interface
)

// CaptureStats are the exact counters of one capture.
type CaptureStats struct {
	Interfaces []string       `json:"interfaces"` // names, indexed by CaptureLoopback and CapturePod
	Ports      []CapturedPort `json:"ports"`
	Kernel     uint64         `json:"kernel"`     // packets that the filter let pass
	Dropped    uint64         `json:"dropped"`    // of these, dropped by the kernel for want of room; of which flow nobody knows
	Unreadable uint64         `json:"unreadable"` // packets whose headers make no sense
	Packets    uint64         `json:"packets"`    // captured
	Bytes      uint64         `json:"bytes"`      // payload bytes to the server among them, retransmissions included

	LostFlows   uint64 `json:"lostFlows"`   // times that a flow was given up
	LostPackets uint64 `json:"lostPackets"` // packets of such flows
	LostBytes   uint64 `json:"lostBytes"`   // that clients have sent of them and nobody got, each once
}

// CapturedPort says where a port is captured.
type CapturedPort struct {
	Port     uint16 `json:"port"`
	Loopback bool   `json:"loopback,omitempty"`
	Pod      bool   `json:"pod,omitempty"`
	Why      string `json:"why,omitempty"` // it is captured elsewhere than asked
}

// CaptureRecord is one record of a capture's stream: a packet if Data is set, the counters if Stats is, else a loss.
type CaptureRecord struct {
	Iface uint8
	Time  time.Time
	Wire  int    // bytes of the packet in the pod; more than len(Data) if it was cut
	Data  []byte // an IP packet, the reader's to keep

	Stats *CaptureStats

	// A loss: Packets of a flow, with Bytes of payload to the server, that were captured and given up. Without ends
	// nobody knows whose they were: the kernel dropped them, or there were more flows than the agent counts.
	Client, Server netip.AddrPort
	Packets, Bytes uint64
}

// Kinds of records. A record is its length in four bytes, big-endian as all numbers, its kind and its body.
const (
	recordPacket = 'p' // interface (1), time (8, nanoseconds since 1970), length on the wire (4), IP packet
	recordLost   = 'l' // packets (8), bytes (8), two ends: each the length of its netip form (1) and that
	recordStats  = 's' // JSON
)

const packetHead = 1 + 8 + 4

// AppendCapture appends r to b.
func AppendCapture(b []byte, r CaptureRecord) ([]byte, error) {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	switch {
	case r.Stats != nil:
		text, err := json.Marshal(r.Stats)
		if err != nil {
			return b[:start], fmt.Errorf("encode capture's counters: %w", err)
		}
		b = append(append(b, recordStats), text...)
	case r.Data != nil:
		b = append(b, recordPacket, r.Iface)
		b = binary.BigEndian.AppendUint64(b, uint64(r.Time.UnixNano()))
		b = binary.BigEndian.AppendUint32(b, uint32(r.Wire))
		b = append(b, r.Data...)
	default:
		b = append(b, recordLost)
		b = binary.BigEndian.AppendUint64(b, r.Packets)
		b = binary.BigEndian.AppendUint64(b, r.Bytes)
		for _, end := range []netip.AddrPort{r.Client, r.Server} {
			text, err := end.MarshalBinary()
			if err != nil {
				return b[:start], fmt.Errorf("encode end %v of a lost flow: %w", end, err)
			}
			b = append(append(b, byte(len(text))), text...)
		}
	}
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	return b, nil
}

// errRecord says that a capture's stream is not one.
var errRecord = errors.New("malformed record in a capture")

// maxRecord bounds a record behind its length.
const maxRecord = 1 + packetHead + MaxCapturePacket

// A CaptureReader reads the stream of a capture. It trusts no byte of it.
type CaptureReader struct{ r *bufio.Reader }

// NewCaptureReader returns a reader of the stream r.
func NewCaptureReader(r io.Reader) *CaptureReader {
	return &CaptureReader{r: bufio.NewReaderSize(r, 128<<10)}
}

// Next returns the next record. io.EOF: the capture ended between two.
func (c *CaptureReader) Next() (CaptureRecord, error) {
	var head [4]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return CaptureRecord{}, io.EOF
		}
		return CaptureRecord{}, fmt.Errorf("read capture: %w", err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > maxRecord {
		return CaptureRecord{}, fmt.Errorf("%w: %d bytes long", errRecord, n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c.r, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // the record has begun
		}
		return CaptureRecord{}, fmt.Errorf("read capture: %w", err)
	}
	return parseRecord(body[0], body[1:])
}

func parseRecord(kind byte, body []byte) (r CaptureRecord, err error) {
	switch kind {
	case recordPacket:
		if len(body) <= packetHead {
			return r, fmt.Errorf("%w: packet of %d bytes", errRecord, len(body))
		}
		r.Iface = body[0]
		r.Time = time.Unix(0, int64(binary.BigEndian.Uint64(body[1:])))
		r.Wire = int(binary.BigEndian.Uint32(body[9:]))
		r.Data = body[packetHead:]
		if r.Wire < len(r.Data) {
			return r, fmt.Errorf("%w: %d bytes of a packet of %d", errRecord, len(r.Data), r.Wire)
		}
		return r, nil
	case recordLost:
		return parseLost(body)
	case recordStats:
		r.Stats = new(CaptureStats)
		if err := json.Unmarshal(body, r.Stats); err != nil {
			return r, fmt.Errorf("%w: %w", errRecord, err)
		}
		return r, nil
	}
	return r, fmt.Errorf("%w: kind %q", errRecord, kind)
}

func parseLost(body []byte) (r CaptureRecord, err error) {
	if len(body) < 18 {
		return r, fmt.Errorf("%w: loss of %d bytes", errRecord, len(body))
	}
	r.Packets, r.Bytes = binary.BigEndian.Uint64(body), binary.BigEndian.Uint64(body[8:])
	body = body[16:]
	for _, end := range []*netip.AddrPort{&r.Client, &r.Server} {
		if len(body) == 0 || len(body) < 1+int(body[0]) {
			return r, fmt.Errorf("%w: ends of a lost flow", errRecord)
		}
		if err := end.UnmarshalBinary(body[1 : 1+body[0]]); err != nil {
			return r, fmt.Errorf("%w: end of a lost flow: %w", errRecord, err)
		}
		body = body[1+body[0]:]
	}
	return r, nil
}
