// Package recording writes files of captured packets, pcapng, reads them and pcap
// too, and replays them to a local program.
package recording

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/borrownet/borrownet/netstack/mirror"
)

// A File is a recording that is read from its beginning.
type File struct {
	f    *os.File
	next func() (data []byte, ci gopacket.CaptureInfo, link layers.LinkType, err error)
}

var _ mirror.Source = (*File)(nil)

// pcapngMagic begins a pcapng file: its first block's type, a palindrome.
const pcapngMagic = "\x0a\x0d\x0d\x0a"

// Open opens a recording.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	r := &File{f: f}
	if err := r.begin(); err != nil {
		f.Close()
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return r, nil
}

// begin reads the head of the file.
func (r *File) begin() error {
	b := bufio.NewReaderSize(r.f, 1<<20)
	magic, err := b.Peek(len(pcapngMagic))
	if err != nil {
		return errors.New("too short for a recording")
	}
	if string(magic) != pcapngMagic {
		return r.beginPcap(b)
	}
	ng, err := pcapgo.NewNgReader(b, pcapgo.NgReaderOptions{WantMixedLinkType: true, SkipUnknownVersion: true})
	if err != nil {
		return fmt.Errorf("no pcapng file: %w", err)
	}
	r.next = func() ([]byte, gopacket.CaptureInfo, layers.LinkType, error) {
		data, ci, err := ng.ReadPacketData()
		link := layers.LinkTypeNull
		if err == nil && len(ci.AncillaryData) > 0 {
			link, _ = ci.AncillaryData[0].(layers.LinkType)
		}
		return data, ci, link, err
	}
	return nil
}

func (r *File) beginPcap(b *bufio.Reader) error {
	old, err := pcapgo.NewReader(b)
	if err != nil {
		return errors.New("neither a pcapng nor a pcap file")
	}
	r.next = func() ([]byte, gopacket.CaptureInfo, layers.LinkType, error) {
		data, ci, err := old.ReadPacketData()
		return data, ci, old.LinkType(), err
	}
	return nil
}

// Next implements mirror.Source. What is no IP packet is left out.
func (r *File) Next(ctx context.Context) (mirror.Packet, error) {
	for ctx.Err() == nil {
		data, ci, link, err := r.next()
		switch {
		case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
			return mirror.Packet{}, io.EOF
		case err != nil:
			return mirror.Packet{}, fmt.Errorf("read %s: %w", r.f.Name(), err)
		}
		ip, ok := packetIn(link, data)
		if !ok {
			continue
		}
		return mirror.Packet{
			Time: ci.Timestamp, Iface: uint8(ci.InterfaceIndex), Data: ip, Wire: ci.Length - (len(data) - len(ip)),
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
func packetIn(link layers.LinkType, b []byte) ([]byte, bool) {
	switch link {
	case layers.LinkTypeRaw, layers.LinkTypeIPv4, layers.LinkTypeIPv6:
		return b, true
	case layers.LinkTypeNull, layers.LinkTypeLoop:
		return after(b, 4)
	case layers.LinkTypeEthernet:
		return behindEthertype(b, 12)
	case layers.LinkTypeLinuxSLL:
		return behindEthertype(b, 14)
	case layers.LinkTypeLinuxSLL2:
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
