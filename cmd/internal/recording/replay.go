package recording

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/borrownet/borrownet/netstack/flow"
	"github.com/borrownet/borrownet/netstack/mirror"
	"github.com/borrownet/borrownet/netstack/relay"
	"github.com/borrownet/borrownet/netstack/replay"
)

// Asap is the speed at which nothing waits but for the program.
const Asap = 0

// ParseSpeed reads how fast to replay: "2x", "0.5x" or "asap".
func ParseSpeed(text string) (float64, error) {
	if text == "asap" {
		return Asap, nil
	}
	f, err := strconv.ParseFloat(strings.TrimSuffix(text, "x"), 64)
	if err != nil || !(f > 0) || f > 1e6 {
		return 0, fmt.Errorf("%q is no speed: 1x, 2x, 0.5x or asap", text)
	}
	return f, nil
}

// Config says how to replay a recording.
type Config struct {
	Path string
	// To is the local program.
	To netip.AddrPort
	// Port of the recorded program; 0 = all that connections were opened to.
	Port uint16
	// Speed is a factor of the recorded one, or Asap.
	Speed  float64
	Select replay.Selection
	// OnRequest is told what has become of each request. It may be nil.
	OnRequest func(replay.Request)
	// OnDifference is told how the answers differ from the recorded ones. Nil: they are
	// not compared. Ignore says what is not.
	OnDifference func(replay.Difference)
	Ignore       replay.Ignore
	// Linger bounds the wait for answers when the recording is over; zero means one
	// minute.
	Linger time.Duration
	Logger *slog.Logger
}

// ErrNoServer says that a recording does not show whom its connections were opened
// to.
var ErrNoServer = errors.New("no connection to a server is opened in it")

// Replay does to the local program what the recording shows, and says what became
// of it, also when it fails.
func Replay(ctx context.Context, cfg Config) (replay.Stats, error) {
	servers, err := serversIn(ctx, cfg)
	if err != nil {
		return replay.Stats{}, err
	}
	ports := map[uint16]uint16{}
	var addrs []netip.Addr
	for _, s := range servers {
		ports[s.Port()] = cfg.To.Port()
		addrs = append(addrs, s.Addr())
	}
	var dialer net.Dialer
	r, err := replay.New(replay.Config{
		Ports: ports, Servers: addrs, Select: cfg.Select, OnRequest: cfg.OnRequest, OnDifference: cfg.OnDifference, Ignore: cfg.Ignore, Wait: true, Linger: cfg.Linger, Logger: cfg.Logger,
		Dial: func(ctx context.Context, _ replay.Call) (relay.Conn, error) {
			c, err := dialer.DialContext(ctx, "tcp", cfg.To.String())
			if err != nil {
				return nil, err
			}
			return c.(*net.TCPConn), nil
		},
	})
	if err != nil {
		return replay.Stats{}, err
	}
	stop := context.AfterFunc(ctx, func() { r.Close() }) // Packet may wait for the program
	defer stop()
	err = feed(ctx, cfg, r)
	if err == nil {
		err = r.Drain(ctx)
	}
	if closeErr := r.Close(); closeErr != nil && !errors.Is(closeErr, net.ErrClosed) {
		err = errors.Join(err, closeErr)
	}
	return r.Stats(), err
}

// feed gives r the packets of the recording, in time.
func feed(ctx context.Context, cfg Config, r mirror.Replayer) error {
	f, err := Open(cfg.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	var first time.Time
	begun := time.Now()
	for {
		p, err := f.Next(ctx)
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
		if first.IsZero() {
			first = p.Time
		}
		if cfg.Speed != Asap {
			due := time.Duration(float64(p.Time.Sub(first)) / cfg.Speed)
			if err := sleep(ctx, due-time.Since(begun)); err != nil {
				return err
			}
		}
		r.Packet(p)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// serversIn finds the addresses that connections were opened to, or those with the
// port that is named.
func serversIn(ctx context.Context, cfg Config) ([]netip.AddrPort, error) {
	f, err := Open(cfg.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var found []netip.AddrPort
	note := func(a netip.AddrPort) {
		if !slices.Contains(found, a) {
			found = append(found, a)
		}
	}
	for {
		p, err := f.Next(ctx)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		seg, err := flow.ParseSegment(p.Data)
		if err != nil {
			continue
		}
		switch syn := seg.Flags & (flow.SYN | flow.ACK); {
		case cfg.Port != 0 && seg.Flow.Dst.Port() == cfg.Port:
			note(seg.Flow.Dst)
		case cfg.Port != 0 && seg.Flow.Src.Port() == cfg.Port:
			note(seg.Flow.Src)
		case cfg.Port != 0:
		case syn == flow.SYN:
			note(seg.Flow.Dst)
		case syn == flow.SYN|flow.ACK:
			note(seg.Flow.Src)
		}
	}
	if len(found) == 0 {
		return nil, ErrNoServer
	}
	return found, nil
}
