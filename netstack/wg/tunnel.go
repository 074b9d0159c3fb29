package wg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/borrownet/borrownet/netstack/fairqueue"
	"github.com/borrownet/borrownet/netstack/link"
)

// LanePackets is the plain side of a Tunnel: packets that leave are read by lane.
type LanePackets interface {
	// ReadLane is Packets.Read of one lane. Each lane has one reader.
	ReadLane(lane fairqueue.Lane, bufs [][]byte, sizes []int, offset int) (int, error)
	// Write is Packets.Write. It is called by both lanes at the same time.
	Write(bufs [][]byte, offset int) (int, error)
	// Split says whether there may be packets for the bulk lane.
	Split(on bool)
	// Strand says that what the bulk lane has, on its way or not, has to go by express: what has left by bulk is lost.
	Strand()
	// Arrived says that the first n packets that were ever read from a lane have arrived. It must not block.
	Arrived(lane fairqueue.Lane, n uint64)
	BatchSize() int
	Close() error
}

// TunnelConfig configures a Tunnel.
type TunnelConfig struct {
	Private PrivateKey
	Peer    PublicKey
	MTU     int         // as Config.MTU
	Packets LanePackets // closed with the Tunnel
	// Dial opens and proves a carrier for a lane; nil on the agent, which gets them by Attach.
	Dial    func(ctx context.Context, lane fairqueue.Lane) (io.ReadWriteCloser, error)
	OnState func(link.State) // of the express lane, see link.Config.OnState
	Grace   time.Duration    // of the express lane, see link.Config.Grace
	Logger  *slog.Logger     // nil discards
}

// Tunnel is the way to the other end: a link and a Device for each lane, so that bulk data waits nowhere in front of the
// rest. The express lane is the tunnel: with it the tunnel stands and falls. Without a carrier for the bulk lane
// all flows use express; those that were in it when it was lost do so after a while, in which it may come back.
//
// Two Devices have the same keys. That is sound: sessions are agreed by each on its own, and nothing of one is taken by
// the other.
type Tunnel struct {
	cfg     TunnelConfig
	links   [fairqueue.Lanes]*link.Link
	devices [fairqueue.Lanes]*Device
	begun   chan struct{} // closed when express has its first carrier
	once    sync.Once     // of begun
	single  chan struct{} // holds one: the bulk lane has no carrier any more
}

// bulkGrace is for ever: the bulk lane comes back when it can.
const bulkGrace = 1000 * time.Hour

// NewTunnel brings both Devices up. It owns cfg.Packets from then on, and closes it if it fails.
func NewTunnel(cfg TunnelConfig) (*Tunnel, error) {
	t := &Tunnel{cfg: cfg, begun: make(chan struct{}), single: make(chan struct{}, 1)}
	for lane := range fairqueue.Lanes {
		t.links[lane] = link.New(t.linkConfig(lane))
	}
	for lane := range fairqueue.Lanes {
		device, err := New(Config{
			Private: cfg.Private, Peer: cfg.Peer, MTU: cfg.MTU, Packets: lanePackets{cfg.Packets, lane}, Link: t.links[lane],
			Logger: cfg.Logger, Initiate: cfg.Dial != nil, Arrived: func(n uint64) { cfg.Packets.Arrived(lane, n) },
		})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%v lane: %w", lane, err), t.Close())
		}
		t.devices[lane] = device
	}
	return t, nil
}

func (t *Tunnel) linkConfig(lane fairqueue.Lane) link.Config {
	cfg := link.Config{Logger: t.cfg.Logger, OnState: t.expressState, Grace: t.cfg.Grace}
	if lane == fairqueue.Bulk {
		cfg.Grace, cfg.OnState = bulkGrace, t.bulkState
	}
	if t.cfg.Dial != nil {
		cfg.Dial = func(ctx context.Context) (io.ReadWriteCloser, error) { return t.cfg.Dial(ctx, lane) }
	}
	return cfg
}

func (t *Tunnel) expressState(s link.State) {
	if s == link.Up {
		t.once.Do(func() { close(t.begun) })
	}
	if t.cfg.OnState != nil {
		t.cfg.OnState(s)
	}
}

func (t *Tunnel) bulkState(s link.State) {
	t.cfg.Packets.Split(s == link.Up)
	if s != link.Up {
		select {
		case t.single <- struct{}{}:
		default:
		}
		return
	}
	if t.cfg.Dial == nil {
		return
	}
	// WireGuard's session of a lane that was away for long has ended, and the agent begins none.
	if err := t.devices[fairqueue.Bulk].Renew(); err != nil && t.cfg.Logger != nil {
		t.cfg.Logger.Debug("renew bulk lane", "err", err)
	}
}

const (
	// strandAfter is how long the bulk lane may be without a carrier while express has one, until what it holds is given
	// up. A carrier that can be dialled again is back by then.
	strandAfter = 5 * time.Second
	strandLook  = 500 * time.Millisecond
)

// watchBulk lets flows out of the bulk lane when that has lost its carrier and finds no other, until ctx ends.
func (t *Tunnel) watchBulk(ctx context.Context) {
	for {
		select {
		case <-t.single:
		case <-ctx.Done():
			return
		}
		if t.awaitStranded(ctx) && t.links[fairqueue.Bulk].Strand() {
			t.cfg.Packets.Strand()
		}
	}
}

// awaitStranded reports whether express has been alone for strandAfter; false means that there are both again.
func (t *Tunnel) awaitStranded(ctx context.Context) bool {
	look := time.NewTicker(strandLook)
	defer look.Stop()
	for alone := time.Duration(0); alone < strandAfter; {
		select {
		case <-look.C:
		case <-ctx.Done():
			return false
		}
		switch {
		case t.links[fairqueue.Bulk].Stats().Up:
			return false
		case t.links[fairqueue.Express].Stats().Up:
			alone += strandLook
		default:
			alone = 0
		}
	}
	return true
}

// Run keeps the links alive until ctx ends, Close is called or the express link gives up, whose error it returns. Call it
// once.
func (t *Tunnel) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var bulk sync.WaitGroup
	defer bulk.Wait()
	defer cancel()
	bulk.Go(func() { t.watchBulk(ctx) })
	bulk.Go(func() {
		// The second carrier must not delay the first.
		select {
		case <-t.begun:
		case <-ctx.Done():
			t.links[fairqueue.Bulk].Close()
			return
		}
		// It ends with the tunnel; its own error is of a dial that cannot be repeated.
		if err := t.links[fairqueue.Bulk].Run(ctx); err != nil && t.cfg.Logger != nil {
			t.cfg.Logger.Info("no bulk lane", "err", err)
		}
	})
	return t.links[fairqueue.Express].Run(ctx)
}

// Attach gives a lane a proven carrier, see [link.Link.Attach].
func (t *Tunnel) Attach(lane fairqueue.Lane, c io.ReadWriteCloser) { t.links[lane].Attach(c) }

// Redial is [link.Link.Redial] of both lanes.
func (t *Tunnel) Redial() {
	for _, l := range t.links {
		l.Redial()
	}
}

// Leave tells the other end that this one ends for good, see [link.Link.Leave].
func (t *Tunnel) Leave(ctx context.Context) { t.links[fairqueue.Express].Leave(ctx) }

// Stats returns the counters of a lane's link.
func (t *Tunnel) Stats(lane fairqueue.Lane) link.Stats { return t.links[lane].Stats() }

// Renew is [Device.Renew] of both Devices.
func (t *Tunnel) Renew() error {
	var errs []error
	for _, d := range t.devices {
		errs = append(errs, d.Renew())
	}
	return errors.Join(errs...)
}

// Done is closed when a Device has ended.
func (t *Tunnel) Done() <-chan struct{} { return t.devices[fairqueue.Express].Done() }

// Close ends the tunnel within a second and closes its links and Packets.
func (t *Tunnel) Close() error {
	var errs []error
	for lane := range fairqueue.Lanes {
		if t.devices[lane] != nil {
			errs = append(errs, t.devices[lane].Close())
		}
		t.links[lane].Close()
	}
	return errors.Join(errs...)
}

// lanePackets is one lane of a LanePackets.
type lanePackets struct {
	LanePackets
	lane fairqueue.Lane
}

func (p lanePackets) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	return p.ReadLane(p.lane, bufs, sizes, offset)
}
