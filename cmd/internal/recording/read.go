// Package recording writes files of captured packets, pcapng, reads them and pcap
// too, and replays them to a local program.
package recording

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/borrownet/borrownet/cmd/internal/pcapng"
	"github.com/borrownet/borrownet/netstack/mirror"
)

// A File is a recording that is read from its beginning.
type File struct {
	f *os.File
	r *pcapng.Reader
}

var _ mirror.Source = (*File)(nil)

// Open opens a recording.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	r, err := pcapng.NewReader(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return &File{f: f, r: r}, nil
}

// Next implements mirror.Source. What is no IP packet is left out.
func (r *File) Next(ctx context.Context) (mirror.Packet, error) {
	for ctx.Err() == nil {
		p, err := r.r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return mirror.Packet{}, io.EOF
		case err != nil:
			return mirror.Packet{}, fmt.Errorf("read %s: %w", r.f.Name(), err)
		}
		ip, ok := packetIn(p.Link, p.Data)
		if !ok {
			continue
		}
		return mirror.Packet{
			Time: p.Time, Iface: uint8(p.Interface), Data: ip, Wire: p.Length - (len(p.Data) - len(ip)),
		}, nil
	}
	return mirror.Packet{}, context.Cause(ctx)
}

// Close closes the file.
func (r *File) Close() error { return r.f.Close() }

// Ethertypes.
const (
	etherIPv4 = 0x0800
	etherVLAN = 0x8100
	etherQinQ = 0x88a8
	etherIPv6 = 0x86dd
)

// packetIn returns the IP packet in a frame of a link.
func packetIn(link pcapng.Link, b []byte) ([]byte, bool) {
	switch link {
	case pcapng.LinkRaw, pcapng.LinkIPv4, pcapng.LinkIPv6:
		return b, true
	case pcapng.LinkNull, pcapng.LinkLoop:
		return after(b, 4)
	case pcapng.LinkEthernet:
		return behindEthertype(b, 12)
	case pcapng.LinkLinuxSLL:
		return behindEthertype(b, 14)
	case pcapng.LinkLinuxSLL2:
		if len(b) < 20 || !isIP(b) {
			return nil, false
		}
		return b[20:], true
	}
	return nil, false
}

func after(b []byte, n int) ([]byte, bool) {
	if len(b) < n {
		return nil, false
	}
	return b[n:], true
}

// isIP reports whether an ethertype at the beginning of b is that of IP.
func isIP(b []byte) bool {
	t := int(b[0])<<8 | int(b[1])
	return t == etherIPv4 || t == etherIPv6
}

// behindEthertype returns the packet behind the ethertype at an offset, and the tags
// of virtual networks before it.
func behindEthertype(b []byte, at int) ([]byte, bool) {
	for len(b) >= at+2 {
		if isIP(b[at:]) {
			return b[at+2:], true
		}
		if t := int(b[at])<<8 | int(b[at+1]); t != etherVLAN && t != etherQinQ {
			break
		}
		at += 4
	}
	return nil, false
}
