package netstack

import (
	"errors"
	"io"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/borrownet/borrownet/netstack/fairqueue"
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
	if got, want := writeAll(t, l, header.TCPProtocolNumber, 0), controlBudget/40; got != want {
		t.Errorf("room for %d pure ACKs, want %d", got, want)
	}
	if l.dropped[budgetDatagram] != 1 || l.dropped[budgetControl] != 1 || l.waits != 0 {
		t.Errorf("dropped %v, %d waits", l.dropped, l.waits)
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
		k, err := l.readPackets(fairqueue.Express, bufs, sizes, 10)
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

func linkFlow(port uint16) flow.Flow {
	return flow.Flow{Proto: flow.TCP, Src: netip.AddrPortFrom(linkSrc, port), Dst: netip.AddrPortFrom(linkDst, 80)}
}

// fillFlow queues data of a flow until it may write no more, and returns how many packets.
func fillFlow(t *testing.T, l *link, port uint16) (n int) {
	t.Helper()
	for {
		room, ok := l.admit(linkFlow(port))
		if !ok {
			l.abandon(room)
			return n
		}
		pkt := outPacket(header.TCPProtocolNumber, port, 60000, byte(port))
		if err := l.write(pkt); err != nil {
			t.Fatalf("write = %v", err)
		}
		pkt.DecRef()
		n++
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestLinkAdmits(t *testing.T) {
	l := newLink(defaultMTU)
	if n := fillFlow(t, l, 1); n != connQueue/60040+1 {
		t.Errorf("a conn has room for %d packets", n)
	}
	before := l.queue.Len()
	if fillFlow(t, l, 2); l.queue.Len() == before {
		t.Error("a conn waits for another one's queue")
	}
	var flows uint16 = 3
	for ; l.queue.Bytes() < stackQueue; flows++ {
		fillFlow(t, l, flows)
	}
	if n := fillFlow(t, l, flows); n != 1 {
		t.Errorf("a conn may queue %d packets in a full link, want 1", n)
	}
	one, _ := l.admit(linkFlow(1))
	two, _ := l.admit(linkFlow(2))
	gone, _ := l.admit(linkFlow(2))
	l.abandon(gone)
	if isClosed(one) || isClosed(two) {
		t.Error("admitted before there is room")
	}
	for l.queue.Len() > 0 {
		marks(t, l, 1)
	}
	if !isClosed(one) || !isClosed(two) || isClosed(gone) || len(l.waiters) != 0 {
		t.Errorf("%d conns wait for an empty link", len(l.waiters))
	}
	if l.used != [budgets]int{} {
		t.Errorf("empty link: used %v", l.used)
	}
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

func TestLinkDropsRetransmissions(t *testing.T) {
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
	var err tcpip.Error
	n := 0
	for ; err == nil; n++ {
		err = write(seq, size)
	}
	if _, ok := err.(*tcpip.ErrNoBufferSpace); !ok || n-1 != againBudget/(size+40) {
		t.Errorf("%d retransmissions were queued, then %v", n-1, err)
	}
	if l.dropped[budgetAgain] != 1 {
		t.Errorf("dropped %v", l.dropped)
	}
	// What overlaps, but has new bytes, is new.
	overlap := uint32(seq)
	if err := write(overlap+1, size); err != nil {
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
	fillFlow(t, l, 7)
	room, _ := l.admit(linkFlow(7))
	l.close()
	if !isClosed(room) {
		t.Error("a waiting conn outlives the link")
	}
	if _, ok := l.admit(linkFlow(7)); !ok {
		t.Error("a closed link makes conns wait")
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
	if _, err := l.readPackets(fairqueue.Express, nil, nil, 0); !errors.Is(err, io.ErrShortBuffer) {
		t.Errorf("readPackets without buffers = %v, want io.ErrShortBuffer", err)
	}
	sizes := []int{-1, -1}
	n, err := l.readPackets(fairqueue.Express, [][]byte{make([]byte, 100), make([]byte, 150)}, sizes, 10)
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

// acknowledging makes a packet of outSegment acknowledge.
func acknowledging(pkt *stack.PacketBuffer, number uint32) *stack.PacketBuffer {
	h := header.TCP(pkt.TransportHeader().Slice())
	h.SetFlags(uint8(header.TCPFlagAck))
	h.SetAckNumber(number)
	return pkt
}

// TestAcksWaitForCompany: of a patient link an acknowledgement leaves with the answer that follows, or by itself in the
// end; of another one at once.
func TestAcksWaitForCompany(t *testing.T) {
	for _, patient := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			l := newLink(defaultMTU)
			l.patient = patient
			defer l.close()
			write := func(pkt *stack.PacketBuffer) {
				t.Helper()
				defer pkt.DecRef()
				if err := l.write(pkt); err != nil {
					t.Fatalf("write = %v", err)
				}
			}
			read := func() int {
				t.Helper()
				bufs, sizes := [][]byte{make([]byte, 1<<16), make([]byte, 1<<16), make([]byte, 1<<16)}, make([]int, 3)
				n, err := l.readPackets(fairqueue.Express, bufs, sizes, 0)
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			start := time.Now()
			write(acknowledging(outSegment(header.TCPProtocolNumber, 1, 7, 0, 0), 1))
			if n, waited := read(), time.Since(start); n != 1 || (waited > 0) != patient || waited > fairqueue.AckDelay {
				t.Errorf("patient %v: %d packets after %v", patient, n, waited)
			}
			write(acknowledging(outSegment(header.TCPProtocolNumber, 1, 7, 0, 0), 2))
			write(acknowledging(outSegment(header.TCPProtocolNumber, 1, 7, 100, 1), 3))
			if n := read(); n != 2 {
				t.Errorf("%d packets leave at once, want the acknowledgement and the answer", n)
			}
			if l.used != [budgets]int{} || l.queue.Len() != 0 {
				t.Errorf("patient %v: %v in use, %d packets queued", patient, l.used, l.queue.Len())
			}
		})
	}
}

// A flow that yields is let in only while nothing of others is queued, and is woken when that has left.
func TestLinkYields(t *testing.T) {
	l := newLink(defaultMTU)
	low := linkFlow(81)
	l.yields = func(f flow.Flow) bool { return f == low }
	push := func(port uint16) {
		t.Helper()
		pkt := outPacket(header.TCPProtocolNumber, port, 1000, 1)
		defer pkt.DecRef()
		if err := l.write(pkt); err != nil {
			t.Fatal(err)
		}
	}
	push(81)
	if _, ok := l.admit(low); !ok {
		t.Error("a yielding flow waits for itself")
	}
	push(82)
	room, ok := l.admit(low)
	if ok {
		t.Fatal("a yielding flow was let in before another one's packet has left")
	}
	if _, ok := l.admit(linkFlow(83)); !ok {
		t.Error("other flows wait too")
	}
	marks(t, l, 2)
	select {
	case <-room:
	default:
		t.Error("the yielding flow was not woken")
	}
	if _, ok := l.admit(low); !ok {
		t.Error("the yielding flow is kept out of an empty queue")
	}
}
