package capture

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	// blockSize is what the kernel hands over at once: several of the largest packets.
	blockSize = 256 << 10
	// retire is after how many milliseconds it hands over a block that is not full.
	retire = 8
	// frameSize is no bound on packets, but the kernel asks for one.
	frameSize = 2048
)

// ring is a packet socket with a ring of blocks that the kernel fills (packet_mmap.rst in the kernel's documentation).
type ring struct {
	iface uint8
	file  *os.File
	raw   syscall.RawConn
	mem   []byte
	next  int // the block that the kernel fills next

	mu    sync.Mutex
	sum   Counters // guarded by mu; the kernel forgets what it has told
	ended bool
}

// newRing makes fd, which it owns unless it fails, receive what program lets pass on dev.
func newRing(fd int, iface uint8, dev net.Interface, program []bpf.RawInstruction, size int) (*ring, error) {
	if err := attach(fd, program); err != nil {
		return nil, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return nil, os.NewSyscallError("setsockopt PACKET_VERSION", err)
	}
	if iface == Loopback {
		// There each packet leaves and arrives; once is enough.
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
			return nil, os.NewSyscallError("setsockopt PACKET_IGNORE_OUTGOING", err)
		}
	}
	blocks := max(size/blockSize, 2)
	req := unix.TpacketReq3{
		Block_size: blockSize, Block_nr: uint32(blocks), Frame_size: frameSize, Frame_nr: uint32(blocks * (blockSize / frameSize)),
		Retire_blk_tov: retire,
	}
	if err := unix.SetsockoptTpacketReq3(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return nil, os.NewSyscallError("setsockopt PACKET_RX_RING", err)
	}
	mem, err := unix.Mmap(fd, 0, blocks*blockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	// ETH_P_ALL, or what the pod sends would not be seen.
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: dev.Index}); err != nil {
		_ = unix.Munmap(mem) // cannot fail: it is what Mmap returned
		return nil, fmt.Errorf("capture on %s: %w", dev.Name, os.NewSyscallError("bind", err))
	}
	r := &ring{iface: iface, file: os.NewFile(uintptr(fd), "packets of "+dev.Name), mem: mem}
	if r.raw, err = r.file.SyscallConn(); err != nil {
		_ = unix.Munmap(mem)
		return nil, err
	}
	return r, nil
}

// attach puts the filter on the socket.
func attach(fd int, program []bpf.RawInstruction) error {
	code := make([]unix.SockFilter, len(program))
	for i, ins := range program {
		code[i] = unix.SockFilter{Code: ins.Op, Jt: ins.Jt, Jf: ins.Jf, K: ins.K}
	}
	prog := &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, prog))
}

// setFilter replaces the filter. What the old one let pass is in the ring already.
func (r *ring) setFilter(program []bpf.RawInstruction) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return
	}
	_ = r.raw.Control(func(fd uintptr) { _ = attach(int(fd), program) }) // see refilter
}

// Offsets in a block's header, struct tpacket_block_desc with tpacket_hdr_v1.
const (
	blockStatus  = 8
	blockPackets = 12
	blockFirst   = 16
)

// status is that of the block that comes next: the kernel's, or ours when it has TP_STATUS_USER.
func (r *ring) status() *uint32 {
	return (*uint32)(unsafe.Pointer(&r.mem[r.next*blockSize+blockStatus]))
}

// run hands packets on until the ring is closed.
func (r *ring) run(push func(Packet), lost func(uint64)) error {
	var told uint64
	for {
		err := r.raw.Read(func(uintptr) bool { return atomic.LoadUint32(r.status())&unix.TP_STATUS_USER != 0 })
		if err != nil {
			if r.isClosed() {
				return nil
			}
			return fmt.Errorf("wait for packets: %w", err)
		}
		if n := r.counters().Dropped; n > told {
			lost(n - told)
			told = n
		}
		r.block(r.mem[r.next*blockSize:][:blockSize], push)
		atomic.StoreUint32(r.status(), unix.TP_STATUS_KERNEL)
		r.next = (r.next + 1) % (len(r.mem) / blockSize)
	}
}

// block hands the packets of a block on.
func (r *ring) block(b []byte, push func(Packet)) {
	n := binary.NativeEndian.Uint32(b[blockPackets:])
	at := binary.NativeEndian.Uint32(b[blockFirst:])
	for range n {
		h := (*unix.Tpacket3Hdr)(unsafe.Pointer(&b[at]))
		start := int(at) + int(h.Mac)
		push(Packet{
			Time: time.Unix(int64(h.Sec), int64(h.Nsec)), Iface: r.iface,
			Data: b[start : start+int(h.Snaplen)], Wire: int(h.Len),
		})
		at += h.Next_offset
	}
}

// counters asks the kernel.
func (r *ring) counters() Counters {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return r.sum
	}
	_ = r.raw.Control(func(fd uintptr) {
		n, err := unix.GetsockoptTpacketStatsV3(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err == nil { // there is nothing in it that can fail
			r.sum.Packets += uint64(n.Packets)
			r.sum.Dropped += uint64(n.Drops)
		}
	})
	return r.sum
}

// close makes run return; the counters stay. It may be called again.
func (r *ring) close() error {
	r.counters()
	r.mu.Lock()
	ended := r.ended
	r.ended = true
	r.mu.Unlock()
	if ended {
		return nil
	}
	return r.file.Close()
}

func (r *ring) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended
}

// unmap gives the memory back, once nobody reads it.
func (r *ring) unmap() error { return os.NewSyscallError("munmap", unix.Munmap(r.mem)) }
