// Package wg runs WireGuard between two peers over a link: IP packets in the clear on one side, the link's datagrams
// on the other.
//
// A Device is wireguard-go with one peer, whose tun.Device is a [Packets] and whose conn.Bind is a *link.Link. The link
// hides reconnects, so WireGuard sees a network that is sometimes slow and never fails. wireguard-go's own
// queues would hold hundreds of megabytes of jumbo packets; a window in each direction bounds what is inside it to
// about half a megabyte and so passes back-pressure through.
package wg

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/device"

	"github.com/borrownet/borrownet/netstack/link"
)

const (
	defaultMTU = 65440 // the largest multiple of 16 that fits, encrypted, a datagram of the link with room to spare
	minMTU     = 1280  // RFC 8200 §5
	maxMTU     = device.MaxContentSize &^ (device.PaddingMultiple - 1)

	minBatch = 8
	maxBatch = 16

	keepalive = 25 // seconds
)

// Packets is the plain side of a Device: where it reads IP packets to encrypt and writes those decrypted.
type Packets interface {
	// Read reads at least one packet, each at offset of a buffer; up to 16 buffers are passed.
	Read(bufs [][]byte, sizes []int, offset int) (int, error)
	// Write takes packets that begin at offset, up to 16. It may not keep them, and must not wait for Read's packets to be
	// sent: then both ends of a tunnel could wait for each other.
	Write(bufs [][]byte, offset int) (int, error)
	// BatchSize is how many packets a Read usually finds at once.
	BatchSize() int
	// Close makes Read and Write return. It may be called more than once.
	Close() error
}

// Config configures a Device.
type Config struct {
	Private  PrivateKey
	Peer     PublicKey
	MTU      int          // of the IP packets, 1280 to 65488; 0 = 65440
	Packets  Packets      // closed with the Device
	Link     *link.Link   // closed with the Device; its Run is the caller's
	Logger   *slog.Logger // nil discards
	Initiate bool         // start handshakes and keep the session alive: the client's side; the other only answers
	// Arrived, if not nil, is told that the first n packets that Packets.Read has returned have arrived at the other end, or
	// are lost. It must not block.
	Arrived func(n uint64)
}

// Stats are a Device's counters.
type Stats struct {
	LastHandshake time.Time
	BytesIn       uint64 // received from the peer, WireGuard's overhead included
	BytesOut      uint64 // sent to the peer, WireGuard's overhead included
	Oversize      uint64 // packets dropped because they exceeded the MTU
	Malformed     uint64 // packets dropped because they are neither IPv4 nor IPv6
}

// Device is one WireGuard peer-to-peer tunnel.
type Device struct {
	dev  *device.Device
	tun  *plainSide
	peer device.NoisePublicKey
}

// New brings a Device up. It owns cfg.Packets and cfg.Link from then on, and closes them if it fails.
func New(cfg Config) (_ *Device, err error) {
	defer func() {
		if err == nil {
			return
		}
		if cfg.Link != nil {
			cfg.Link.Close()
		}
		if cfg.Packets != nil {
			cfg.Packets.Close()
		}
	}()
	if cfg.MTU == 0 {
		cfg.MTU = defaultMTU
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("configure tunnel: %w", err)
	}

	in, out := newWindow[counterKey](inboundStall), newWindow[*byte](outboundStall)
	t := newPlainSide(cfg, in, out)
	b := &bind{link: cfg.Link, in: in, out: out, gone: &arrivals{tell: cfg.Arrived}, initiate: cfg.Initiate, session: t.start}
	cfg.Link.OnSettle(b.gone.settled)
	dev := device.NewDevice(t, b, wireguardLogger(cfg.Logger))
	if err := dev.IpcSet(cfg.uapi()); err != nil {
		dev.Close()
		return nil, fmt.Errorf("configure tunnel to %v: %w", cfg.Peer, err)
	}
	if err := dev.Up(); err != nil {
		dev.Close()
		return nil, fmt.Errorf("bring tunnel to %v up: %w", cfg.Peer, err)
	}
	if cfg.Initiate {
		t.start()
	}
	return &Device{dev: dev, tun: t, peer: device.NoisePublicKey(cfg.Peer)}, nil
}

func (cfg *Config) check() error {
	switch {
	case cfg.Packets == nil || cfg.Link == nil:
		return errors.New("packets or link missing")
	case cfg.Private.IsZero() || cfg.Peer.IsZero():
		return errors.New("key missing")
	case cfg.Private.Public() == cfg.Peer:
		return errors.New("peer has our own key")
	case cfg.MTU < minMTU || cfg.MTU > maxMTU:
		return fmt.Errorf("MTU %d is not within %d to %d", cfg.MTU, minMTU, maxMTU)
	}
	return nil
}

// uapi returns the configuration as wireguard-go takes it: https://www.wireguard.com/xplatform/#configuration-protocol
func (cfg *Config) uapi() string {
	var b strings.Builder
	fmt.Fprintf(&b, "private_key=%s\n", hex.EncodeToString(cfg.Private[:]))
	fmt.Fprintf(&b, "public_key=%s\n", hex.EncodeToString(cfg.Peer[:]))
	b.WriteString("endpoint=link\nallowed_ip=0.0.0.0/0\nallowed_ip=::/0\n")
	if cfg.Initiate {
		fmt.Fprintf(&b, "persistent_keepalive_interval=%d\n", keepalive)
	}
	return b.String()
}

// wireguardLogger sends all that wireguard-go logs to debug: its errors are ours to judge.
func wireguardLogger(log *slog.Logger) *device.Logger {
	logf := func(format string, args ...any) {
		if log.Enabled(context.Background(), slog.LevelDebug) {
			log.Debug("wireguard", "text", fmt.Sprintf(format, args...))
		}
	}
	return &device.Logger{Verbosef: logf, Errorf: logf}
}

// Renew agrees on a new session with the peer, which may have lost the current one: by itself WireGuard notices that
// after 15 s of silence. What is sent meanwhile is not held up. Within 5 s of an earlier attempt it does nothing.
func (d *Device) Renew() error {
	p := d.dev.LookupPeer(d.peer)
	if p == nil {
		return net.ErrClosed
	}
	if err := p.SendHandshakeInitiation(false); err != nil {
		return fmt.Errorf("begin handshake: %w", err)
	}
	return nil
}

// Close ends the tunnel within a second and closes its Packets and Link.
func (d *Device) Close() error {
	// wireguard-go's Close takes a lock that a Send in progress holds, so the link must let that return first.
	err := d.tun.Close()
	d.dev.Close()
	<-d.dev.Wait()
	return err
}

// Done is closed when the device has ended, by Close or by an error of Packets.Read.
func (d *Device) Done() <-chan struct{} { return d.dev.Wait() }

// Err returns the error of Packets.Read that ended the device, or nil.
func (d *Device) Err() error { return d.tun.failure() }

// LastHandshake returns when the current session was agreed; zero if none was.
func (d *Device) LastHandshake() time.Time { return d.Stats().LastHandshake }

// Stats returns the counters. Those of WireGuard are zero after Close.
func (d *Device) Stats() Stats {
	s := Stats{Oversize: d.tun.oversize.Load(), Malformed: d.tun.malformed.Load()}
	text, err := d.dev.IpcGet()
	if err != nil {
		return s // a write to memory: cannot fail
	}
	var sec, nsec int64
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), "=")
		n, _ := strconv.ParseUint(value, 10, 64)
		switch key {
		case "last_handshake_time_sec":
			sec = int64(n)
		case "last_handshake_time_nsec":
			nsec = int64(n)
		case "rx_bytes":
			s.BytesIn = n
		case "tx_bytes":
			s.BytesOut = n
		}
	}
	if sec != 0 || nsec != 0 {
		s.LastHandshake = time.Unix(sec, nsec)
	}
	return s
}
