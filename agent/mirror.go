package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/borrownet/borrownet/agent/capture"
	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/netstack/flow"
)

// A Capturer is a Network whose inbound flows can be copied.
type Capturer interface {
	// Capture starts to copy. An error that is capture.ErrNotPermitted says who does not allow it.
	Capture(spec capture.Spec) (Capture, error)
}

// Capture copies packets. Its Run must be called once.
type Capture interface {
	// Run hands packets to push until ctx ends; their Data is valid during the call. lost is told of packets that did
	// not fit. Neither waits.
	Run(ctx context.Context, push func(capture.Packet), lost func(packets uint64)) error
	Interfaces() []string // names, indexed by capture.Packet.Iface
	Places() []capture.Place
	Counters() capture.Counters
}

const (
	// maxCaptures bounds the captures of a session: a mirror, and who records beside it.
	maxCaptures = 3
	// captureShare is the part of the agent's memory that each ring and each queue of a capture may have.
	captureShare = 8
	// captureBatch is how much is written to the client at once, in bytes.
	captureBatch = 64 << 10
	// statsPause is the time between two records of the counters.
	statsPause = time.Second
)

// isCapture tells the flows that carry captures, which everything else goes before.
func isCapture(f flow.Flow) bool {
	return f.Src == netip.AddrPortFrom(wire.AgentAddr, wire.CapturePort)
}

// serveCaptures serves captures to the client's stack.
func (s *session) serveCaptures() error {
	ln, err := s.stack.ListenTCP(netip.AddrPortFrom(wire.AgentAddr, wire.CapturePort))
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	running := make(chan struct{}, maxCaptures)
	mux.HandleFunc("GET "+wire.PathCapture, func(w http.ResponseWriter, r *http.Request) {
		select {
		case running <- struct{}{}:
			defer func() { <-running }()
			s.agent.capture(w, r)
		default:
			http.Error(w, fmt.Sprintf("%d captures are running already", maxCaptures), http.StatusTooManyRequests)
		}
	})
	s.serveHTTP(ln, mux, "captures")
	return nil
}

// serveHTTP serves h on ln until the session ends.
func (s *session) serveHTTP(ln net.Listener, h http.Handler, what string) {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return s.ctx },
	}
	s.wg.Go(func() {
		if err := srv.Serve(ln); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
			s.agent.log.Error(what+" end", "err", err)
		}
	})
	s.wg.Go(func() {
		<-s.ctx.Done()
		srv.Close()
	})
}

// capture answers wire.PathCapture.
func (a *Agent) capture(w http.ResponseWriter, r *http.Request) {
	spec, err := a.captureSpec(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	network, ok := a.cfg.Network.(Capturer)
	if !ok {
		http.Error(w, "this network cannot be captured", http.StatusNotImplemented)
		return
	}
	c, err := network.Capture(spec)
	if err != nil {
		code := http.StatusInternalServerError
		if errors.Is(err, capture.ErrNotPermitted) {
			code = http.StatusForbidden
		}
		a.log.Warn("capture refused", "err", err)
		http.Error(w, err.Error(), code)
		return
	}
	a.log.Info("capture starts", "loopback", spec.Loopback, "pod", spec.Pod, "responses", spec.Responses)
	ctx, cancel := context.WithCancel(r.Context())
	cs := &captureStream{capture: c, queue: capture.NewQueue(spec, a.captureBytes()), answer: w}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel()
		if err := c.Run(ctx, cs.queue.Push, cs.queue.DroppedByKernel); err != nil {
			a.log.Error("capture", "err", err)
		}
	})
	err = cs.write(ctx)
	cancel()
	wg.Wait()
	a.log.Info("capture ends", "err", err, "counters", cs.stats())
}

// captureBytes is what a ring, and what a queue, may hold.
func (a *Agent) captureBytes() int {
	if a.memory.budget == 0 {
		return DefaultMemory / captureShare
	}
	return int(a.memory.budget / captureShare)
}

func (a *Agent) captureSpec(query url.Values) (capture.Spec, error) {
	spec := capture.Spec{Addrs: a.addrs, Responses: query.Get("responses") == "full", Ring: a.captureBytes()}
	for key, ports := range map[string]*[]uint16{"lo": &spec.Loopback, "pod": &spec.Pod} {
		for _, text := range query[key] {
			n, err := strconv.ParseUint(text, 10, 16)
			if err != nil || n == 0 {
				return spec, fmt.Errorf("%q is no port", text)
			}
			*ports = append(*ports, uint16(n))
		}
	}
	if n := len(spec.Loopback) + len(spec.Pod); n == 0 || n > wire.MaxCapturePorts {
		return spec, fmt.Errorf("%d ports: 1 to %d can be captured", n, wire.MaxCapturePorts)
	}
	return spec, nil
}

// captureStream writes a capture to its client.
type captureStream struct {
	capture Capture
	queue   *capture.Queue
	answer  http.ResponseWriter
	buf     []byte
	told    time.Time // when the counters were written last
}

// write writes what the queue has until ctx ends or the client is gone. It waits for the client as long as that takes:
// the queue drops meanwhile.
func (c *captureStream) write(ctx context.Context) error {
	tick := time.NewTicker(statsPause)
	defer tick.Stop()
	for {
		if err := c.batch(); err != nil {
			return err
		}
		select {
		case <-c.queue.Ready():
		case <-tick.C:
			c.queue.Flush()
		case <-ctx.Done():
			c.queue.Flush()
			c.told = time.Time{}
			return c.batch() // what is lost since it was told last
		}
	}
}

// batch writes all that is queued, and the counters if they are due.
func (c *captureStream) batch() error {
	for more := true; more; {
		c.buf = c.buf[:0]
		var err error
		if time.Since(c.told) >= statsPause {
			c.told = time.Now()
			stats := c.stats()
			if c.buf, err = wire.AppendCapture(c.buf, wire.CaptureRecord{Stats: &stats}); err != nil {
				return err
			}
		}
		for more && len(c.buf) < captureBatch {
			var rec capture.Record
			if rec, more = c.queue.Pop(); !more {
				break
			}
			if c.buf, err = wire.AppendCapture(c.buf, onWire(rec)); err != nil {
				return err
			}
		}
		if len(c.buf) == 0 {
			break
		}
		if _, err := c.answer.Write(c.buf); err != nil {
			return fmt.Errorf("write capture: %w", err)
		}
	}
	if err := http.NewResponseController(c.answer).Flush(); err != nil {
		return fmt.Errorf("write capture: %w", err)
	}
	return nil
}

func onWire(r capture.Record) wire.CaptureRecord {
	if r.Data == nil {
		return wire.CaptureRecord{Client: r.Client, Server: r.Server, Packets: r.Loss.Packets, Bytes: r.Loss.Bytes}
	}
	return wire.CaptureRecord{Iface: r.Iface, Time: r.Time, Wire: r.Wire, Data: r.Data}
}

func (c *captureStream) stats() wire.CaptureStats {
	kernel, q := c.capture.Counters(), c.queue.Stats()
	out := wire.CaptureStats{
		Interfaces: c.capture.Interfaces(), Kernel: kernel.Packets, Dropped: kernel.Dropped,
		Unreadable: q.Unreadable, Packets: q.Packets, Bytes: q.Bytes,
		LostFlows: q.LostFlows, LostPackets: q.LostPackets, LostBytes: q.LostBytes,
	}
	for _, p := range c.capture.Places() {
		out.Ports = append(out.Ports, wire.CapturedPort{Port: p.Port, Loopback: p.On[capture.Loopback], Pod: p.On[capture.Pod], Why: p.Why})
	}
	return out
}
