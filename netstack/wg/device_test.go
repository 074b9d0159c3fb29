package wg

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/borrownet/borrownet/netstack/leaktest"
	"github.com/borrownet/borrownet/netstack/link"
	"github.com/borrownet/borrownet/netstack/link/linktest"
)

// channels is a Packets made of two channels.
type channels struct {
	toTunnel   chan []byte
	fromTunnel chan []byte
	done       chan struct{}
	once       sync.Once
	fail       chan error // what Read is to return
}

func newChannels() *channels {
	return &channels{
		toTunnel:   make(chan []byte),
		fromTunnel: make(chan []byte),
		done:       make(chan struct{}),
		fail:       make(chan error, 1),
	}
}

func (c *channels) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	select {
	case p := <-c.toTunnel:
		sizes[0] = copy(bufs[0][offset:], p)
	case err := <-c.fail:
		return 0, err
	case <-c.done:
		return 0, net.ErrClosed
	}
	n := 1
	for n < len(bufs) {
		select {
		case p := <-c.toTunnel:
			sizes[n] = copy(bufs[n][offset:], p)
			n++
			continue
		default:
		}
		break
	}
	return n, nil
}

func (c *channels) Write(bufs [][]byte, offset int) (int, error) {
	for i, b := range bufs {
		select {
		case c.fromTunnel <- bytes.Clone(b[offset:]):
		case <-c.done:
			return i, net.ErrClosed
		}
	}
	return len(bufs), nil
}

func (c *channels) BatchSize() int { return 8 }

func (c *channels) Close() error {
	c.once.Do(func() { close(c.done) })
	return nil
}

// put hands a packet to the tunnel and reports false when it is closed.
func (c *channels) put(p []byte) bool {
	select {
	case c.toTunnel <- p:
		return true
	case <-c.done:
		return false
	}
}

// ipv4 returns an IPv4 packet of size bytes that carries number.
func ipv4(size int, number uint64) []byte {
	p := make([]byte, size)
	p[0] = 0x45
	binary.BigEndian.PutUint16(p[2:], uint16(size))
	p[9] = 17
	copy(p[12:], []byte{192, 0, 2, 1})
	copy(p[16:], []byte{198, 51, 100, 1})
	binary.BigEndian.PutUint64(p[20:], number)
	for i := 28; i < size; i++ {
		p[i] = byte(number)
	}
	return p
}

// ipv6 returns an IPv6 packet of size bytes that carries number.
func ipv6(size int, number uint64) []byte {
	p := make([]byte, size)
	p[0] = 0x60
	binary.BigEndian.PutUint16(p[4:], uint16(size-40))
	p[6] = 17
	copy(p[8:], []byte{0x20, 0x01, 0x0d, 0xb8, 15: 1})
	copy(p[24:], []byte{0x20, 0x01, 0x0d, 0xb8, 15: 2})
	binary.BigEndian.PutUint64(p[40:], number)
	for i := 48; i < size; i++ {
		p[i] = byte(number)
	}
	return p
}

// tunnel is two Devices whose links are joined as client and agent join theirs.
type tunnel struct {
	client, agent         *Device
	clientSide, agentSide *channels

	mu      sync.Mutex
	carrier io.Closer // guarded by mu
}

// kill closes the carrier in use.
func (tn *tunnel) kill() {
	tn.mu.Lock()
	defer tn.mu.Unlock()
	if tn.carrier != nil {
		tn.carrier.Close()
	}
}

// open makes a tunnel over what pair makes.
func open(t testing.TB, pair func() (client, agent io.ReadWriteCloser)) *tunnel {
	t.Helper()
	client, agent := newChannels(), newChannels()
	tn := openOver(t, pair, client, agent)
	tn.clientSide, tn.agentSide = client, agent
	return tn
}

// openOver makes a tunnel between two Packets.
func openOver(t testing.TB, pair func() (client, agent io.ReadWriteCloser), client, agent Packets) *tunnel {
	t.Helper()
	tn := new(tunnel)
	clientKey, agentKey := NewPrivateKey(), NewPrivateKey()
	verifier, err := link.NewVerifier(agentKey, clientKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	agentLink := link.New(link.Config{})
	clientLink := link.New(link.Config{Dial: func(ctx context.Context) (io.ReadWriteCloser, error) {
		c, a := pair()
		go func() {
			if _, _, err := verifier.Verify(context.Background(), a); err == nil {
				agentLink.Attach(a)
			}
		}()
		if err := link.Prove(ctx, c, link.Identity{Private: clientKey, Peer: agentKey.Public()}); err != nil {
			return nil, err
		}
		tn.mu.Lock()
		tn.carrier = c
		tn.mu.Unlock()
		return c, nil
	}})
	var running sync.WaitGroup
	for _, l := range []*link.Link{clientLink, agentLink} {
		running.Go(func() { l.Run(context.Background()) })
	}
	t.Cleanup(running.Wait)
	tn.agent, err = New(Config{Private: agentKey, Peer: clientKey.Public(), Packets: agent, Link: agentLink})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tn.agent.Close() })
	tn.client, err = New(Config{Private: clientKey, Peer: agentKey.Public(), Packets: client, Link: clientLink, Initiate: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tn.client.Close() })
	return tn
}

// patience is how long what takes milliseconds may take on a machine that is busy.
const patience = 30 * time.Second

func TestPacketsPassBothWays(t *testing.T) {
	leaktest.Check(t)
	tn := open(t, linktest.Pipes)
	for _, dir := range []struct{ from, to *channels }{{tn.clientSide, tn.agentSide}, {tn.agentSide, tn.clientSide}} {
		for i, p := range [][]byte{
			ipv4(28, 1), ipv4(29, 2), ipv4(1280, 3), ipv4(65439, 4), ipv4(defaultMTU, 5),
			ipv6(48, 6), ipv6(1399, 7), ipv6(defaultMTU, 8),
		} {
			linktest.Within(t, patience, "passing a packet", func() {
				dir.from.put(p)
				if got := <-dir.to.fromTunnel; !bytes.Equal(got, p) {
					t.Errorf("packet %d of %d bytes arrived as another of %d", i, len(p), len(got))
				}
			})
		}
	}
	if at := tn.client.LastHandshake(); time.Since(at) > time.Minute || tn.agent.LastHandshake().IsZero() {
		t.Errorf("LastHandshake: client %v, agent %v", at, tn.agent.LastHandshake())
	}
	c, a := tn.client.Stats(), tn.agent.Stats()
	if c.BytesOut == 0 || c.BytesIn == 0 || a.BytesIn == 0 || a.BytesOut == 0 {
		t.Errorf("stats: client %+v, agent %+v", c, a)
	}
	select {
	case <-tn.client.Done():
		t.Error("client's device is done")
	default:
	}
	linktest.Within(t, patience, "Close", func() { tn.client.Close() })
	if <-tn.client.Done(); tn.client.Err() != nil {
		t.Errorf("Err after Close = %v", tn.client.Err())
	}
	linktest.Within(t, patience, "second Close", func() { tn.client.Close() })
	if s := tn.client.Stats(); s.BytesIn != 0 && s.BytesOut == 0 {
		t.Errorf("stats after Close: %+v", s)
	}
}

func TestUnfitPacketsAreCounted(t *testing.T) {
	leaktest.Check(t)
	tn := open(t, linktest.Pipes)
	for _, p := range [][]byte{ipv4(defaultMTU+1, 1), ipv4(65500, 1), {1, 2, 3}, bytes.Repeat([]byte{0x50}, 100), ipv6(48, 0)[:39]} {
		tn.clientSide.put(p)
	}
	want := ipv4(100, 7)
	tn.clientSide.put(want)
	linktest.Within(t, patience, "passing a packet", func() {
		if got := <-tn.agentSide.fromTunnel; !bytes.Equal(got, want) {
			t.Errorf("got %x", got)
		}
	})
	if s := tn.client.Stats(); s.Oversize != 2 || s.Malformed != 3 {
		t.Errorf("stats %+v, want 2 oversize and 3 malformed", s)
	}
}

// TestKilledCarriers kills the carrier while packets flow both ways: traffic resumes, and what arrives is whole.
func TestKilledCarriers(t *testing.T) {
	for name, pair := range map[string]func(testing.TB) func() (client, agent io.ReadWriteCloser){
		"pipe": func(testing.TB) func() (client, agent io.ReadWriteCloser) { return linktest.Pipes },
		"tcp":  linktest.TCPPairs,
	} {
		t.Run(name, func(t *testing.T) {
			leaktest.Check(t)
			tn := open(t, pair(t))
			var received [2]atomic.Uint64
			var flows sync.WaitGroup
			for i, dir := range []struct{ from, to *channels }{{tn.clientSide, tn.agentSide}, {tn.agentSide, tn.clientSide}} {
				flows.Go(func() {
					for n := uint64(1); dir.from.put(ipv4(28+int(n*7919%60000), n)); n++ {
					}
				})
				flows.Go(func() { receiveNumbered(t, dir.to, &received[i]) })
			}
			for range 5 {
				for i := range received {
					mark := received[i].Load()
					linktest.Within(t, time.Minute, "getting over a lost carrier", func() {
						for received[i].Load() < mark+30 {
							time.Sleep(100 * time.Microsecond)
						}
					})
				}
				tn.kill()
			}
			linktest.Within(t, patience, "Close", func() {
				tn.client.Close()
				tn.agent.Close()
				flows.Wait()
			})
		})
	}
}

func receiveNumbered(t *testing.T, side *channels, received *atomic.Uint64) {
	seen := make(map[uint64]bool)
	for {
		select {
		case p := <-side.fromTunnel:
			number := binary.BigEndian.Uint64(p[20:])
			if !bytes.Equal(p, ipv4(28+int(number*7919%60000), number)) {
				t.Errorf("packet %d of %d bytes was not sent so", number, len(p))
				return
			}
			// Not in order: two goroutines of wireguard-go empty the queue of what waited for the handshake.
			if seen[number] {
				t.Errorf("packet %d arrived twice", number)
				return
			}
			seen[number] = true
			received.Add(1)
		case <-side.done:
			return
		}
	}
}

// TestCloseWhileSaturated fills both directions with nobody reading at either end, so that everything inside is
// blocked, and closes.
func TestCloseWhileSaturated(t *testing.T) {
	for name, pair := range map[string]func(testing.TB) func() (client, agent io.ReadWriteCloser){
		"pipe": func(testing.TB) func() (client, agent io.ReadWriteCloser) { return linktest.Pipes },
		"tcp":  linktest.TCPPairs,
	} {
		t.Run(name, func(t *testing.T) {
			leaktest.Check(t)
			tn := open(t, pair(t))
			var sent atomic.Int64
			var flows sync.WaitGroup
			for _, from := range []*channels{tn.clientSide, tn.agentSide} {
				flows.Go(func() {
					for from.put(ipv4(60000, 1)) {
						sent.Add(1)
					}
				})
			}
			for before := int64(-1); before != sent.Load(); time.Sleep(100 * time.Millisecond) {
				before = sent.Load() // until all are blocked
			}
			// What wireguard-go holds is bounded by the windows; the rest is in sockets.
			for _, d := range []*Device{tn.client, tn.agent} {
				d.tun.out.mu.Lock()
				if n := d.tun.out.bytes; n > 2*windowBytes {
					t.Errorf("%d bytes wait to be sent inside", n)
				}
				d.tun.out.mu.Unlock()
				d.tun.in.mu.Lock()
				if n := d.tun.in.bytes; n > 2*windowBytes {
					t.Errorf("%d bytes wait to be delivered inside", n)
				}
				d.tun.in.mu.Unlock()
			}
			linktest.Within(t, patience, "Close of both", func() {
				tn.client.Close()
				tn.agent.Close()
			})
			flows.Wait()
		})
	}
}

// TestSaturatedWithoutReaderRecovers stops one reader for a while: nothing is lost.
func TestSaturatedWithoutReaderRecovers(t *testing.T) {
	leaktest.Check(t)
	tn := open(t, linktest.TCPPairs(t))
	const packets = 1000
	// The first packet waits for the handshake; wireguard-go may reorder what waits with it.
	tn.clientSide.put(ipv4(60000, 0))
	<-tn.agentSide.fromTunnel
	go func() {
		for n := uint64(1); n < packets; n++ {
			tn.clientSide.put(ipv4(60000, n))
		}
	}()
	time.Sleep(3 * inboundStall) // a reader that is slow is no reason to forget what waits for it
	linktest.Within(t, patience, "receiving", func() {
		for n := uint64(1); n < packets; n++ {
			if got := binary.BigEndian.Uint64((<-tn.agentSide.fromTunnel)[20:]); got != n {
				t.Errorf("packet %d, want %d", got, n)
				return
			}
		}
	})
}

func TestCloseWithoutCarrier(t *testing.T) {
	leaktest.Check(t)
	key, peer := NewPrivateKey(), NewPrivateKey()
	side := newChannels()
	l := link.New(link.Config{})
	d, err := New(Config{Private: key, Peer: peer.Public(), Packets: side, Link: l, Initiate: true})
	if err != nil {
		t.Fatal(err)
	}
	for n := range uint64(4) {
		side.put(ipv4(60000, n))
	}
	linktest.Within(t, patience, "Close", func() { d.Close() })
	if side.put(nil) {
		t.Error("Packets are open after Close")
	}
	if err := l.Send([][]byte{{1}}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("link is open after Close: %v", err)
	}
}

// TestLateCarrier brings the carrier only after packets waited for it: the handshake that was due goes out first.
func TestLateCarrier(t *testing.T) {
	leaktest.Check(t)
	release := make(chan struct{})
	tn := open(t, func() (client, agent io.ReadWriteCloser) {
		<-release
		return net.Pipe()
	})
	want := ipv4(1000, 1)
	tn.clientSide.put(want)
	time.Sleep(50 * time.Millisecond)
	close(release)
	linktest.Within(t, 4500*time.Millisecond, "the first packet", func() { // a lost handshake would be sent again after 5 s
		if got := <-tn.agentSide.fromTunnel; !bytes.Equal(got, want) {
			t.Error("another packet")
		}
	})
}

func TestReadErrorEndsDevice(t *testing.T) {
	leaktest.Check(t)
	tn := open(t, linktest.Pipes)
	gone := errors.New("helper is gone")
	tn.clientSide.fail <- gone
	linktest.Within(t, patience, "the end of the device", func() { <-tn.client.Done() })
	if !errors.Is(tn.client.Err(), gone) {
		t.Errorf("Err = %v, want %v", tn.client.Err(), gone)
	}
	linktest.Within(t, patience, "Close", func() { tn.client.Close() })
}

func TestNewRefuses(t *testing.T) {
	leaktest.Check(t)
	key, peer := NewPrivateKey(), NewPrivateKey().Public()
	tests := []struct {
		name string
		edit func(*Config)
	}{
		{"no private key", func(c *Config) { c.Private = PrivateKey{} }},
		{"no peer", func(c *Config) { c.Peer = PublicKey{} }},
		{"peer is self", func(c *Config) { c.Peer = key.Public() }},
		{"no packets", func(c *Config) { c.Packets = nil }},
		{"no link", func(c *Config) { c.Link = nil }},
		{"MTU too small", func(c *Config) { c.MTU = 1279 }},
		{"MTU too large", func(c *Config) { c.MTU = maxMTU + 1 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			side, l := newChannels(), link.New(link.Config{})
			cfg := Config{Private: key, Peer: peer, Packets: side, Link: l}
			tt.edit(&cfg)
			if d, err := New(cfg); err == nil {
				d.Close()
				t.Fatal("no error")
			}
			if cfg.Packets != nil && side.put(nil) {
				t.Error("Packets stay open")
			}
			if cfg.Link == nil {
				l.Close()
			}
			if err := l.Send([][]byte{{1}}); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Send on the link = %v", err)
			}
		})
	}
}
