package router

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"time"

	"github.com/borrownet/borrownet/netstack/flow"
)

const (
	maxFragmented   = 256              // packets in pieces at a time
	fragmentTimeout = 30 * time.Second // Linux reassembles for 30 s (ipfrag_time)
)

// side is where a packet came from.
type side uint8

const (
	fromSession side = iota
	fromStack
	fromTunnel
	fromContainer
	numSides
)

// piece says which part of a packet a fragment is.
type piece struct {
	id     uint32
	offset int  // in bytes
	more   bool // not the last one
	size   int  // bytes of payload
	plain  bool // no IP options, and no extension headers but that of the fragment
}

// pieceOf reads the fragmentation of a packet that flow.Parse has accepted.
func pieceOf(pkt []byte) piece {
	if pkt[0]>>4 == 4 {
		hlen := int(pkt[0]&0xf) * 4
		f := binary.BigEndian.Uint16(pkt[6:])
		return piece{
			id:     uint32(binary.BigEndian.Uint16(pkt[4:])),
			offset: int(f&0x1fff) * 8,
			more:   f&0x2000 != 0,
			size:   int(binary.BigEndian.Uint16(pkt[2:])) - hlen,
			plain:  hlen == 20,
		}
	}
	const fragmentHeader = 44
	p := piece{plain: isTransport(pkt[6])}
	next, rest := pkt[6], pkt[40:40+int(binary.BigEndian.Uint16(pkt[4:]))]
	for hops := 0; len(rest) >= 8 && !isTransport(next); hops++ {
		if next == fragmentHeader {
			f := binary.BigEndian.Uint16(rest[2:])
			p.id, p.offset, p.more = binary.BigEndian.Uint32(rest[4:]), int(f&0xfff8), f&1 != 0
			p.size, p.plain = len(rest)-8, hops == 0 && isTransport(rest[0])
			return p
		}
		size := 8 + 8*int(rest[1])
		if next == 51 { // AH counts in other units
			size = 8 + 4*int(rest[1])
		}
		if size > len(rest) {
			break
		}
		next, rest = rest[0], rest[size:]
	}
	p.size = len(rest)
	return p
}

func isTransport(next byte) bool {
	switch flow.Proto(next) {
	case flow.TCP, flow.UDP, flow.ICMP, flow.ICMPv6:
		return true
	}
	return false
}

// whole names the packet that fragments belong to (RFC 791 §3.2, RFC 8200 §4.5).
type whole struct {
	proto    flow.Proto
	id       uint32
	src, dst netip.Addr
}

// fate is what was decided about a packet when its first fragment passed.
type fate struct {
	verdict Verdict
	end     int // of the first fragment, in bytes
	at      time.Duration
}

// fragments remembers the first fragments that passed from one side, so that the later ones, which have no ports, follow them.
type fragments struct {
	mu    sync.Mutex
	fates map[whole]fate
	order [maxFragmented]whole // ring of keys, oldest at next
	next  int
}

// pass notes the verdict about a first fragment.
func (f *fragments) pass(w whole, p piece, v Verdict, now time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fates == nil {
		f.fates = make(map[whole]fate, maxFragmented)
	}
	if _, ok := f.fates[w]; !ok {
		delete(f.fates, f.order[f.next])
		f.order[f.next] = w
		f.next = (f.next + 1) % maxFragmented
	}
	f.fates[w] = fate{verdict: v, end: p.size, at: now}
}

// follow returns the verdict about a later fragment. One that overlaps the first would rewrite the ports and flags that
// were looked at (RFC 1858 §3, RFC 5722).
func (f *fragments) follow(w whole, p piece, now time.Duration) Verdict {
	f.mu.Lock()
	defer f.mu.Unlock()
	first, ok := f.fates[w]
	if !ok || now-first.at >= fragmentTimeout || p.offset < first.end {
		return Drop
	}
	return first.verdict
}
