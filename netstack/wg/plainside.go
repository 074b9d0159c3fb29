package wg

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/borrownet/borrownet/netstack/link"
)

// plainSide is wireguard-go's tun.Device: a Packets behind the windows.
type plainSide struct {
	packets  Packets
	link     *link.Link
	in       *window[counterKey]
	out      *window[*byte]
	mtu      int
	batch    int
	ready    chan struct{} // closed by start
	starting sync.Once
	events   chan tun.Event
	once     sync.Once // of Close
	closeErr error     // of packets.Close; valid after once

	mean int    // size of the packets that Read found last; Read's own
	read uint64 // packets that Read has got from packets; Read's own

	mu  sync.Mutex
	err error // of packets.Read, guarded by mu

	oversize  atomic.Uint64
	malformed atomic.Uint64
}

var _ tun.Device = (*plainSide)(nil)

func newPlainSide(cfg Config, in *window[counterKey], out *window[*byte]) *plainSide {
	return &plainSide{
		packets: cfg.Packets,
		link:    cfg.Link,
		in:      in,
		out:     out,
		mtu:     cfg.MTU,
		batch:   min(max(cfg.Packets.BatchSize(), minBatch), maxBatch),
		ready:   make(chan struct{}),
		events:  make(chan tun.Event),
		mean:    1,
	}
}

// start lets Read begin: packets read before there is a peer would be lost.
func (t *plainSide) start() {
	t.starting.Do(func() { close(t.ready) })
}

// Read reads packets to encrypt, as soon as there is room for them. It takes so many at once as fill half of the
// window, so that reading, encrypting and sending overlap.
func (t *plainSide) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	select {
	case <-t.ready:
	case <-t.out.done:
		return 0, os.ErrClosed
	}
	if !t.out.wait() {
		return 0, os.ErrClosed
	}
	bufs = bufs[:min(len(bufs), max(1, windowBytes/2/t.mean))]
	n, err := t.packets.Read(bufs, sizes, offset)
	total := 0
	for i := range n {
		total += sizes[i]
		sizes[i] = t.admit(bufs[i][offset : offset+sizes[i]])
		t.read++
		if sizes[i] > 0 {
			t.out.enter(&bufs[i][0], sizes[i], t.read)
		}
	}
	if n > 0 {
		t.mean = max(1, total/n)
	}
	if err == nil {
		return n, nil
	}
	if t.out.closed() || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
		return n, os.ErrClosed
	}
	t.mu.Lock()
	t.err = err
	t.mu.Unlock()
	return n, err
}

// admit returns p's size, or 0 if WireGuard cannot carry p.
func (t *plainSide) admit(p []byte) int {
	switch {
	case len(p) > t.mtu:
		t.oversize.Add(1)
		return 0
	case len(p) >= 20 && p[0]>>4 == 4, len(p) >= 40 && p[0]>>4 == 6:
		return len(p)
	default:
		t.malformed.Add(1)
		return 0
	}
}

// failure returns the error of packets.Read that ended the device.
func (t *plainSide) failure() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// Write hands decrypted packets out. The header of their messages is still in front of them.
func (t *plainSide) Write(bufs [][]byte, offset int) (int, error) {
	last := headerKey(bufs[len(bufs)-1][offset-device.MessageTransportHeaderSize:])
	t.in.begin()
	defer t.in.end(last)
	return t.packets.Write(bufs, offset)
}

// Close unblocks everything that wireguard-go waits in. Its Device.Close calls this before it waits for a lock that a
// blocked Send holds.
func (t *plainSide) Close() error {
	t.once.Do(func() {
		t.link.Close()
		t.out.close()
		t.in.close()
		t.closeErr = t.packets.Close()
		close(t.events)
	})
	return t.closeErr
}

func (t *plainSide) MTU() (int, error)        { return t.mtu, nil }
func (t *plainSide) Name() (string, error)    { return "link", nil }
func (t *plainSide) File() *os.File           { return nil }
func (t *plainSide) Events() <-chan tun.Event { return t.events }
func (t *plainSide) BatchSize() int           { return t.batch }
