// Package wg runs WireGuard over a link.
package wg

import (
	"errors"
	"log/slog"
	"time"

	"github.com/borrownet/borrownet/netstack/link"
)

// Packets is the plain side of a Device: where it reads IP packets to encrypt and writes those decrypted.
type Packets interface {
	// Read reads at least one packet, each at offset of a buffer; up to 16 buffers are passed.
	Read(bufs [][]byte, sizes []int, offset int) (int, error)
	// Write takes packets that begin at offset. It may not keep them, and must not wait for Read's packets to be sent.
	Write(bufs [][]byte, offset int) (int, error)
	// BatchSize is how many packets a Read usually finds at once.
	BatchSize() int
	// Close makes Read and Write return.
	Close() error
}

// Config configures a Device.
type Config struct {
	Private  PrivateKey
	Peer     PublicKey
	MTU      int          // of the IP packets; 0 = 65440
	Packets  Packets      // closed with the Device
	Link     *link.Link   // closed with the Device; its Run is the caller's
	Logger   *slog.Logger // nil discards
	Initiate bool         // start the handshake now and keep the session alive: the client's side
}

// Stats are a Device's counters.
type Stats struct {
	LastHandshake time.Time
	BytesIn       uint64 // received from the peer, WireGuard's overhead included
	BytesOut      uint64 // sent to the peer, WireGuard's overhead included
	Oversize      uint64 // packets dropped because they exceeded the MTU
}

// Device is one WireGuard peer-to-peer tunnel.
type Device struct{}

// New brings a Device up.
func New(cfg Config) (*Device, error) { return nil, errors.ErrUnsupported }

// Close ends the tunnel within a second.
func (d *Device) Close() error { return nil }

// Done is closed when the device has ended, also by an error of Packets.Read.
func (d *Device) Done() <-chan struct{} { return nil }

// LastHandshake returns when the current session was agreed; zero if none was.
func (d *Device) LastHandshake() time.Time { return time.Time{} }

// Stats returns the counters.
func (d *Device) Stats() Stats { return Stats{} }
