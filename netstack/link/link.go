// Package link carries datagrams over one reliable byte stream at a time and hides that the stream is lost and replaced.
package link

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"
)

// State says whether a Link has a carrier.
type State uint8

// The states of a Link.
const (
	Down State = iota // no carrier: Send and Receive wait
	Up                // a carrier is in place
)

// Config configures a Link. Zero fields mean the defaults.
type Config struct {
	// Dial opens and proves a new carrier; nil on the agent, which gets carriers by Attach. It must honour ctx.
	Dial      func(ctx context.Context) (io.ReadWriteCloser, error)
	Heartbeat time.Duration // between pings; 5 s
	Dead      time.Duration // a carrier silent for so long is closed; 15 s
	Grace     time.Duration // Run gives up after so long without a carrier; 180 s
	Logger    *slog.Logger  // nil discards
	OnState   func(State)   // called from Run's goroutine on each change, must not block; may be nil
}

// Stats are a Link's counters.
type Stats struct {
	Up          bool
	RTT         time.Duration // of the last heartbeat answered; 0 until then
	BytesIn     uint64        // of datagrams received
	BytesOut    uint64        // of datagrams written
	Redials     uint64        // carriers after the first
	LastReceive time.Time     // when bytes last arrived; zero if never
}

// ErrPermanent, when an error of Config.Dial wraps it, makes Run return that error at once.
var ErrPermanent = errors.New("cannot be retried")

// ErrGrace is returned by Run when Config.Grace passed without a carrier.
var ErrGrace = errors.New("no carrier within the grace period")

// Link is a packet pipe between client and agent.
type Link struct{}

// New returns a Link that has no carrier yet.
func New(cfg Config) *Link { return &Link{} }

// Run keeps the link alive until ctx ends or Close.
func (l *Link) Run(ctx context.Context) error { return errors.ErrUnsupported }

// Attach makes c, a proven carrier, the link's carrier.
func (l *Link) Attach(c io.ReadWriteCloser) {}

// Send writes pkts, waiting for a carrier if there is none.
func (l *Link) Send(pkts [][]byte) error { return errors.ErrUnsupported }

// Receive reads at least one datagram into bufs.
func (l *Link) Receive(bufs [][]byte, sizes []int) (int, error) { return 0, errors.ErrUnsupported }

// Close ends the link; Send, Receive and Run return.
func (l *Link) Close() error { return nil }

// Stats returns the counters.
func (l *Link) Stats() Stats { return Stats{} }
