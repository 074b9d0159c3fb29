package netstack

import (
	"errors"
	"io"
	"net/netip"
	"syscall"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/borrownet/borrownet/netstack/flow"
)

var (
	linkSrc = netip.MustParseAddr("192.0.2.1")
	linkDst = netip.MustParseAddr("198.51.100.1")
)

// outPacket returns a packet as gVisor sends it, with size bytes of payload
// that begin with mark.
func outPacket(proto tcpip.TransportProtocolNumber, srcPort uint16, size int, mark byte) *stack.PacketBuffer {
	return outSegment(proto, srcPort, uint32(mark)<<16, size, mark)
}

// outSegment is outPacket with a sequence number.
func outSegment(proto tcpip.TransportProtocolNumber, srcPort uint16, seq uint32, size int, mark byte) *stack.PacketBuffer {
	data := make([]byte, size)
	if size > 0 {
		data[0] = mark
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: header.IPv4MinimumSize + header.TCPMinimumSize,
		Payload:            buffer.MakeWithData(data),
	})
	header.TCP(pkt.TransportHeader().Push(header.TCPMinimumSize)).Encode(&header.TCPFields{
		SrcPort: srcPort, DstPort: 80, SeqNum: seq, DataOffset: header.TCPMinimumSize,
	})
	header.IPv4(pkt.NetworkHeader().Push(header.IPv4MinimumSize)).Encode(&header.IPv4Fields{
		TotalLength: uint16(pkt.Size()), Protocol: uint8(proto),
		SrcAddr: toAddress(linkSrc), DstAddr: toAddress(linkDst),
	})
	pkt.TransportProtocolNumber = proto
	pkt.NetworkProtocolNumber = header.IPv4ProtocolNumber
	return pkt
}

// writeAll writes packets like the given one until the link has no room, and
// returns how many there was room for.
func writeAll(t *testing.T, l *link, proto tcpip.TransportProtocolNumber, size int) int {
	t.Helper()
	for n := 0; ; n++ {
		pkt := outPacket(proto, 1, size, 0)
		err := l.write(pkt)
		pkt.DecRef()
		switch err.(type) {
		case nil:
		case *tcpip.ErrNoBufferSpace:
			return n
		default:
			t.Fatalf("write = %v", err)
		}
	}
}

func TestLinkDropsWhatMayNotWait(t *testing.T) {
	l := newLink(defaultMTU)
	if got, want := writeAll(t, l, header.UDPProtocolNumber, 1000), datagramBudget/1040; got != want {
		t.Errorf("room for %d datagrams, want %d", got, want)
	}
	if got, want := writeAll(t, l, header.TCPProtocolNumber, 0), reserveBudget/40; got != want {
		t.Errorf("room for %d pure ACKs, want %d", got, want)
	}
	if l.dropped[laneDatagram] != 1 || l.dropped[laneReserve] != 1 || l.waits != 0 {
		t.Errorf("dropped %v, %d waits", l.dropped, l.waits)
	}
}

// fill fills l's data lane, up to less than 32 KiB, and its reserve.
func fill(t *testing.T, l *link) {
	t.Helper()
	for range (dataBudget - l.used[laneData]) / (1 << 15) {
		pkt := outPacket(header.TCPProtocolNumber, 1, 1<<15-40, 0)
		if err := l.write(pkt); err != nil {
			t.Fatalf("write = %v", err)
		}
		pkt.DecRef()
	}
	writeAll(t, l, header.TCPProtocolNumber, 0)
}

// startWrite writes pkt and returns when the write waits.
func startWrite(t *testing.T, l *link, pkt *stack.PacketBuffer) <-chan tcpip.Error {
	t.Helper()
	l.mu.Lock()
	before := l.waits
	l.mu.Unlock()
	result := make(chan tcpip.Error, 1)
	go func() {
		err := l.write(pkt)
		pkt.DecRef()
		result <- err
	}()
	for {
		l.mu.Lock()
		waits := l.waits
		l.mu.Unlock()
		if waits > before {
			return result
		}
		select {
		case err := <-result:
			t.Fatalf("write did not wait: %v", err)
		default:
		}
	}
}

// marks reads n packets and returns the marks of those that have one.
func marks(t *testing.T, l *link, n int) (got []byte) {
	t.Helper()
	for n > 0 {
		bufs, sizes := make([][]byte, 4), make([]int, 4)
		for i := range bufs {
			bufs[i] = make([]byte, 1<<16)
		}
		k, err := l.readPackets(bufs, sizes, 10)
		if err != nil {
			t.Fatal(err)
		}
		for i := range k {
			if sizes[i] > 40 && bufs[i][50] != 0 {
				got = append(got, bufs[i][50])
			}
		}
		n -= k
	}
	return got
}

func queued(l *link) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue) - l.head
}

func TestLinkWaitersKeepOrder(t *testing.T) {
	l := newLink(defaultMTU)
	fill(t, l)
	before := queued(l)
	var results []<-chan tcpip.Error
	for i := range 5 {
		size := 40000
		if i == 2 {
			size = 1 // small data waits too if the reserve is full
		}
		results = append(results, startWrite(t, l, outPacket(header.TCPProtocolNumber, uint16(i), size, byte('a'+i))))
	}
	if got, want := string(marks(t, l, before+5)), "abcde"; got != want {
		t.Errorf("order %q, want %q", got, want)
	}
	for _, r := range results {
		if err := <-r; err != nil {
			t.Errorf("write = %v", err)
		}
	}
	if l.used != [lanes]int{} || len(l.waiters) != 0 {
		t.Errorf("empty link: used %v, %d waiters", l.used, len(l.waiters))
	}
}

func TestLinkHurry(t *testing.T) {
	l := newLink(defaultMTU)
	fill(t, l)
	f := flow.Flow{Proto: flow.TCP, Src: netip.AddrPortFrom(linkSrc, 8), Dst: netip.AddrPortFrom(linkDst, 80)}
	from := l.addSender(f)
	slow := startWrite(t, l, outPacket(header.TCPProtocolNumber, 7, 40000, 'a'))
	hurried := startWrite(t, l, outPacket(header.TCPProtocolNumber, 8, 40000, 'b'))
	l.hurry(from)
	if err := <-hurried; err != nil {
		t.Errorf("hurried write = %v", err)
	}
	// As long as the flow is in a hurry it does not wait.
	pkt := outPacket(header.TCPProtocolNumber, 8, 40000, 'c')
	if err := l.write(pkt); err != nil {
		t.Errorf("second hurried write = %v", err)
	}
	pkt.DecRef()
	l.relax(from)
	again := startWrite(t, l, outPacket(header.TCPProtocolNumber, 8, 40000, 'd'))
	if got, want := string(marks(t, l, queued(l)+2)), "bcad"; got != want {
		t.Errorf("order %q, want %q", got, want)
	}
	<-slow
	<-again
}

// TestLinkTakesAWindowAgain: a carrier that breaks loses a conn's window. Each
// part of it that is dropped here a second time costs a timeout of up to 10 s.
func TestLinkTakesAWindowAgain(t *testing.T) {
	l := newLink(defaultMTU)
	f := flow.Flow{Proto: flow.TCP, Src: netip.AddrPortFrom(linkSrc, 8), Dst: netip.AddrPortFrom(linkDst, 80)}
	from := l.addSender(f)
	defer l.removeSender(from)
	from.sent, from.next = true, maxBuffer // all of it was sent once
	const size = 60000
	for seq := uint32(0); seq+size+40 < maxBuffer-maxBuffer/size*40; seq += size {
		pkt := outSegment(header.TCPProtocolNumber, 8, seq, size, 'a')
		err := l.write(pkt)
		pkt.DecRef()
		if err != nil {
			t.Fatalf("write after %d bytes = %v", seq, err)
		}
	}
}

func TestLinkNeverBlocksRetransmissions(t *testing.T) {
	l := newLink(defaultMTU)
	f := flow.Flow{Proto: flow.TCP, Src: netip.AddrPortFrom(linkSrc, 8), Dst: netip.AddrPortFrom(linkDst, 80)}
	from := l.addSender(f)
	const seq, size = 1<<32 - 20000, 40000 // around the end of the numbers
	write := func(seq uint32, size int) tcpip.Error {
		pkt := outSegment(header.TCPProtocolNumber, 8, seq, size, 'a')
		defer pkt.DecRef()
		return l.write(pkt)
	}
	if err := write(seq, size); err != nil {
		t.Fatalf("write = %v", err)
	}
	fill(t, l)
	var err tcpip.Error
	n := 0
	for ; err == nil; n++ {
		err = write(seq, size)
	}
	if _, ok := err.(*tcpip.ErrNoBufferSpace); !ok || n-1 != againBudget/(size+40) {
		t.Errorf("%d retransmissions were queued, then %v", n-1, err)
	}
	if l.waits != 0 || l.dropped[laneAgain] != 1 {
		t.Errorf("dropped %v, %d waits", l.dropped, l.waits)
	}
	// What overlaps, but has new bytes, is new.
	overlap := uint32(seq)
	fresh := startWrite(t, l, outSegment(header.TCPProtocolNumber, 8, overlap+1, size, 'b'))
	marks(t, l, queued(l)+1)
	if err := <-fresh; err != nil {
		t.Errorf("write = %v", err)
	}
	other := l.addSender(f)
	l.removeSender(from)
	if l.senders[f] != other {
		t.Error("a removed sender takes its successor along")
	}
	l.removeSender(other)
	if len(l.senders) != 0 {
		t.Errorf("%d senders are left", len(l.senders))
	}
}

func TestLinkClose(t *testing.T) {
	l := newLink(defaultMTU)
	fill(t, l)
	waiting := startWrite(t, l, outPacket(header.TCPProtocolNumber, 7, 40000, 'a'))
	l.close()
	if _, ok := (<-waiting).(*tcpip.ErrClosedForSend); !ok {
		t.Error("a waiting write outlives the link")
	}
	pkt := outPacket(header.TCPProtocolNumber, 7, 1, 'a')
	defer pkt.DecRef()
	if _, ok := l.write(pkt).(*tcpip.ErrClosedForSend); !ok {
		t.Error("a closed link takes packets")
	}
}

func TestReadPacketsShortBuffer(t *testing.T) {
	l := newLink(defaultMTU)
	for range 2 {
		pkt := outPacket(header.TCPProtocolNumber, 7, 100, 'a')
		if err := l.write(pkt); err != nil {
			t.Fatalf("write = %v", err)
		}
		pkt.DecRef()
	}
	if _, err := l.readPackets(nil, nil, 0); !errors.Is(err, io.ErrShortBuffer) {
		t.Errorf("readPackets without buffers = %v, want io.ErrShortBuffer", err)
	}
	sizes := []int{-1, -1}
	n, err := l.readPackets([][]byte{make([]byte, 100), make([]byte, 150)}, sizes, 10)
	if n != 2 || !errors.Is(err, io.ErrShortBuffer) || sizes[0] != 0 || sizes[1] != 140 {
		t.Errorf("readPackets = %d, %v, sizes %v", n, err, sizes)
	}
}

func TestErrnoOf(t *testing.T) {
	tests := []struct {
		err  tcpip.Error
		want error
	}{
		{nil, nil},
		{&tcpip.ErrClosedForReceive{}, io.EOF},
		{&tcpip.ErrClosedForSend{}, syscall.EPIPE},
		{&tcpip.ErrConnectionRefused{}, syscall.ECONNREFUSED},
		{&tcpip.ErrConnectionReset{}, syscall.ECONNRESET},
		{&tcpip.ErrAborted{}, syscall.ECONNABORTED},
		{&tcpip.ErrTimeout{}, syscall.ETIMEDOUT},
		{&tcpip.ErrHostUnreachable{}, syscall.EHOSTUNREACH},
		{&tcpip.ErrNetworkUnreachable{}, syscall.ENETUNREACH},
		{&tcpip.ErrBadLocalAddress{}, syscall.EADDRNOTAVAIL},
		{&tcpip.ErrPortInUse{}, syscall.EADDRINUSE},
		{&tcpip.ErrNoBufferSpace{}, syscall.ENOBUFS},
		{&tcpip.ErrMessageTooLong{}, syscall.EMSGSIZE},
		{&tcpip.ErrNotConnected{}, syscall.ENOTCONN},
		{&tcpip.ErrWouldBlock{}, syscall.EAGAIN},
		{&tcpip.ErrNotPermitted{}, syscall.EPERM},
		{&tcpip.ErrInvalidEndpointState{}, syscall.EINVAL},
	}
	for _, tt := range tests {
		if got := errnoOf(tt.err); got != tt.want {
			t.Errorf("errnoOf(%T) = %v, want %v", tt.err, got, tt.want)
		}
	}
}
