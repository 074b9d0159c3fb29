package netns

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	kindTUN  = "tun"
	kindVeth = "veth"

	// batchSize bounds the memory of readers: each packet may be 64 KiB.
	batchSize = 8
)

// Stats counts what went through the packet device since the start.
type Stats struct {
	Read    uint64 // packets out of the namespace
	Written uint64 // packets into it
	Dropped uint64 // packets the device did not take
}

// packets is the daemon's end of the packet device.
type packets struct {
	kind   string
	file   *os.File
	raw    syscall.RawConn
	to4    *unix.SockaddrLinklayer // veth: where IPv4 packets go
	to6    *unix.SockaddrLinklayer // veth: where IPv6 packets go
	closed atomic.Bool

	readMu sync.Mutex // one reader at a time

	read, written, dropped atomic.Uint64
}

// open takes ownership of fd, which is nonblocking.
func (p *packets) open(fd int, r ready) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return os.NewSyscallError("fcntl", err)
	}
	p.kind = r.Kind
	p.file = os.NewFile(uintptr(fd), r.Kind)
	raw, err := p.file.SyscallConn()
	if err != nil {
		p.file.Close()
		return fmt.Errorf("open packet device: %w", err)
	}
	p.raw = raw
	if r.Kind == kindVeth {
		p.to4 = linkAddr(r, unix.ETH_P_IP)
		p.to6 = linkAddr(r, unix.ETH_P_IPV6)
	}
	return nil
}

func linkAddr(r ready, proto uint16) *unix.SockaddrLinklayer {
	a := &unix.SockaddrLinklayer{Protocol: htons(proto), Ifindex: r.Index, Halen: uint8(len(r.Peer))}
	copy(a.Addr[:], r.Peer)
	return a
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// Kind is "tun" or "veth".
func (p *packets) Kind() string { return p.kind }

// BatchSize is the number of packets that Read returns at most.
func (p *packets) BatchSize() int { return batchSize }

// Stats returns the counters.
func (p *packets) Stats() Stats {
	return Stats{Read: p.read.Load(), Written: p.written.Load(), Dropped: p.dropped.Load()}
}

// Read waits for packets that leave the namespace and puts one into each of
// bufs at offset, as many as there are at once. It returns net.ErrClosed after
// Close; any other error means that the device is gone.
func (p *packets) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	p.readMu.Lock()
	defer p.readMu.Unlock()
	want := min(len(bufs), len(sizes), batchSize)
	n := 0
	var rerr error
	err := p.raw.Read(func(fd uintptr) bool {
		for n < want {
			m, err := unix.Read(int(fd), bufs[n][offset:])
			switch {
			case err == unix.EINTR:
				continue
			case err == unix.EAGAIN:
				return n > 0
			case err == unix.ENETDOWN:
				// A packet socket tells once that its interface went down.
				continue
			case err != nil:
				rerr = os.NewSyscallError("read", err)
				return true
			case m == 0:
				continue
			}
			sizes[n] = m
			n++
		}
		return true
	})
	if n > 0 {
		p.read.Add(uint64(n))
		return n, nil // an error comes again
	}
	return 0, p.deviceError("read", errors.Join(err, rerr))
}

// Write sends packets, each starting at offset of its buffer, into the
// namespace. It never waits: what the device does not take is dropped and
// counted. It returns how many went in.
func (p *packets) Write(bufs [][]byte, offset int) (int, error) {
	n := 0
	var werr error
	err := p.raw.Write(func(fd uintptr) bool {
		for _, b := range bufs {
			pkt := b[offset:]
			if len(pkt) == 0 {
				continue
			}
			switch err := p.writeOne(int(fd), pkt); {
			case err == nil:
				n++
			case err == unix.EBADFD, err == unix.EBADF, err == unix.ENXIO:
				werr = os.NewSyscallError("write", err)
				return true
			default:
				// EAGAIN, ENOBUFS, ENOMEM: full. EINVAL, EMSGSIZE: not a packet.
				// EIO, ENETDOWN: the interface is down.
				p.dropped.Add(1)
			}
		}
		return true
	})
	p.written.Add(uint64(n))
	if err = errors.Join(err, werr); err != nil {
		return n, p.deviceError("write", err)
	}
	return n, nil
}

func (p *packets) writeOne(fd int, pkt []byte) error {
	for {
		var err error
		switch {
		case p.kind == kindTUN:
			_, err = unix.Write(fd, pkt)
		case pkt[0]>>4 == 4:
			err = unix.Sendto(fd, pkt, unix.MSG_DONTWAIT, p.to4)
		case pkt[0]>>4 == 6:
			err = unix.Sendto(fd, pkt, unix.MSG_DONTWAIT, p.to6)
		default:
			err = unix.EINVAL
		}
		if err != unix.EINTR {
			return err
		}
	}
}

func (p *packets) deviceError(op string, err error) error {
	if p.closed.Load() {
		return net.ErrClosed
	}
	return fmt.Errorf("%s session packets: %w", op, err)
}

// close unblocks Read.
func (p *packets) close() error {
	p.closed.Store(true)
	if p.file == nil {
		return nil
	}
	if err := p.file.Close(); err != nil {
		return fmt.Errorf("close session packets: %w", err)
	}
	return nil
}
