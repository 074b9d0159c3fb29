package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/netstack/flow"
	netmirror "github.com/borrownet/borrownet/netstack/mirror"
	"github.com/borrownet/borrownet/netstack/replay"
)

// Mirror is a port of the pod whose inbound flows are copied to a program of this machine.
type Mirror struct {
	Port uint16 `json:"port"`
	To   uint16 `json:"to"` // the program's port
}

// MirrorStatus is how the copying goes. Its counters are exact.
type MirrorStatus struct {
	Ports   []Mirror           `json:"ports"`
	Running bool               `json:"running"`
	Problem *fault.Error       `json:"problem,omitempty"` // why it is not running
	Starts  uint64             `json:"starts"`            // of the capture: one, and one for each time that it was lost
	Capture *wire.CaptureStats `json:"capture,omitempty"` // in the pod, since the last start
	Replay  replay.Stats       `json:"replay"`            // on this machine, since the session began
}

const (
	// mirrorPatience bounds the wait for the first word of a capture when a session starts.
	mirrorPatience = 10 * time.Second
	// mirrorPause is the time between two starts of a capture.
	mirrorPause = time.Second
)

// capturePorts are ports by the interface of the pod on which their flows are plain.
type capturePorts struct{ loopback, pod []uint16 }

// capturePortsOf tells the ports of t's pod that its mesh's proxy stands before from others.
func capturePortsOf(t *kube.Target, list []Mirror) (p capturePorts) {
	for _, m := range list {
		if t.Mesh.Serves(m.Port) {
			p.loopback = append(p.loopback, m.Port)
		} else {
			p.pod = append(p.pod, m.Port)
		}
	}
	return p
}

func (p capturePorts) query() url.Values {
	q := url.Values{}
	for key, ports := range map[string][]uint16{"lo": p.loopback, "pod": p.pod} {
		for _, port := range ports {
			q.Add(key, strconv.Itoa(int(port)))
		}
	}
	return q
}

// mirroring copies inbound flows of the pod for as long as the session lives.
type mirroring struct {
	session *Session
	first   chan struct{} // closed at the first word of the first capture, or when there will be none
	once    sync.Once     // of first

	mu       sync.Mutex
	running  bool
	problem  *fault.Error
	starts   uint64
	capture  *wire.CaptureStats
	replayer *replay.Replayer // of the capture that runs
	before   replay.Stats     // of those that have ended
}

// openMirror starts to mirror what the request asks for. A session goes on without if that cannot be.
func (s *Session) openMirror(ctx context.Context) error {
	if len(s.req.Mirror) == 0 {
		return nil
	}
	m := &mirroring{session: s, first: make(chan struct{})}
	if last := s.now.Load().mirror; last != nil { // at the pod that the session was at before
		m.before, m.starts = last.total()
	}
	s.mirror = m
	if s.mirrorRefused != nil {
		m.end(s.mirrorRefused)
		return nil
	}
	s.step(s.log)("mirroring " + mirrorText(s.req.Mirror))
	s.wg.Go(m.run)
	patience := time.NewTimer(mirrorPatience)
	defer patience.Stop()
	select {
	case <-m.first:
	case <-patience.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

func mirrorText(list []Mirror) string {
	var parts []string
	for _, m := range list {
		parts = append(parts, fmt.Sprintf("port %d to %d", m.Port, m.To))
	}
	return strings.Join(parts, ", ")
}

// run captures until the session ends. A capture that is lost is begun anew: what was under way is lost with it.
func (m *mirroring) run() {
	ctx := m.session.ctx
	for {
		err := m.capturing(ctx)
		if ctx.Err() != nil {
			return
		}
		if refused, ok := errors.AsType[*captureRefused](err); ok && refused.code != http.StatusTooManyRequests {
			m.end(m.refusal(refused))
			return
		}
		m.session.log.Info("no capture", "err", err)
		m.fail(m.fault(fmt.Sprintf("the copy was lost, trying again: %v", err), ""))
		select {
		case <-time.After(mirrorPause):
		case <-ctx.Done():
			return
		}
	}
}

// capturing runs one capture to its end.
func (m *mirroring) capturing(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := m.session
	body, err := s.control.capture(ctx, capturePortsOf(s.target, s.req.Mirror), false)
	if err != nil {
		return err
	}
	defer body.Close()
	r, err := s.newReplayer()
	if err != nil {
		return err
	}
	defer m.stop(r)
	stream := wire.NewCaptureReader(body)
	for {
		rec, err := stream.Next()
		if err != nil {
			return err
		}
		switch {
		case rec.Stats != nil:
			m.told(r, rec.Stats)
		case rec.Data != nil:
			r.Packet(netmirror.Packet{Time: rec.Time, Iface: rec.Iface, Data: rec.Data, Wire: rec.Wire})
		default:
			lost := netmirror.Lost{Packets: rec.Packets, Bytes: rec.Bytes}
			if rec.Server.IsValid() {
				lost.Flow = flow.Flow{Proto: flow.TCP, Src: rec.Client, Dst: rec.Server}
			}
			r.Lost(lost)
		}
	}
}

// Record starts a capture of what the session mirrors, with the answers, which ends with ctx or with Close of what is
// returned: the stream of wire.PathCapture.
func (s *Session) Record(ctx context.Context) (io.ReadCloser, error) {
	s = s.now.Load()
	m := s.mirror
	if m == nil {
		return nil, &fault.Error{Code: fault.Usage, Op: "record session", Object: s.name, Reason: "it mirrors no port",
			Hint: "borrownet down " + s.name + ", then " + s.req.again(s.target) + " --mirror PORT"}
	}
	if s.mirrorRefused != nil {
		return nil, s.mirrorRefused // by the cluster
	}
	body, err := s.control.capture(ctx, capturePortsOf(s.target, s.req.Mirror), true)
	if refused, ok := errors.AsType[*captureRefused](err); ok {
		return nil, m.refusal(refused)
	}
	if err != nil {
		return nil, m.fault(err.Error(), "borrownet status "+s.name)
	}
	return body, nil
}

// newReplayer makes what turns the packets of one capture into connections to programs.
func (s *Session) newReplayer() (*replay.Replayer, error) {
	ports := make(map[uint16]uint16)
	for _, m := range s.req.Mirror {
		ports[m.Port] = m.To
	}
	selection, err := s.req.Select.parse()
	if err != nil {
		return nil, err
	}
	return replay.New(replay.Config{
		Ports: ports, Servers: s.target.PodIPs, Select: selection, Dial: s.deliver, OnRequest: s.watchers.tell, Logger: s.log,
	})
}

// told notes what the agent says of the capture whose packets r replays.
func (m *mirroring) told(r *replay.Replayer, stats *wire.CaptureStats) {
	m.mu.Lock()
	if m.replayer != r {
		m.replayer = r
		m.starts++
	}
	m.running, m.problem, m.capture = true, nil, stats
	m.mu.Unlock()
	m.once.Do(func() { close(m.first) })
}

// stop ends a replayer and keeps its counters.
func (m *mirroring) stop(r *replay.Replayer) {
	if err := r.Close(); err != nil {
		m.session.log.Debug("end replay", "err", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.before = m.before.Add(r.Stats())
	if m.replayer == r {
		m.replayer = nil
	}
	m.running = false
}

// fail notes why there is no capture now.
func (m *mirroring) fail(problem *fault.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running, m.problem = false, problem
}

// end notes why there will be none.
func (m *mirroring) end(problem *fault.Error) {
	m.fail(problem)
	m.once.Do(func() { close(m.first) })
}

func (m *mirroring) fault(reason, hint string) *fault.Error {
	s := m.session
	return &fault.Error{Code: fault.Agent, Op: "mirror " + mirrorText(s.req.Mirror) + " of", Object: "pod " + s.target.Namespace + "/" + s.target.Pod, Reason: reason, Hint: hint}
}

// refusal explains what the agent said.
func (m *mirroring) refusal(r *captureRefused) *fault.Error {
	s := m.session
	hint := ""
	if r.code == http.StatusForbidden {
		hint = fmt.Sprintf("the agent's image must be one of `make agent-image`, copied with its extended attributes, and the node's runtime must give NET_RAW: "+
			"kubectl -n %s get pod %s -o yaml shows what the container %s asked for", s.target.Namespace, s.target.Pod, s.agent.Container)
	}
	return m.fault(r.reason, hint)
}

// status is nil if nothing is to be mirrored.
func (m *mirroring) status() *MirrorStatus {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	out := &MirrorStatus{Ports: slices.Clone(m.session.req.Mirror), Running: m.running, Problem: m.problem, Capture: m.capture}
	m.mu.Unlock()
	out.Replay, out.Starts = m.total()
	return out
}

// total is what was replayed since the session began, of how many captures.
func (m *mirroring) total() (replay.Stats, uint64) {
	m.mu.Lock()
	sum, starts, r := m.before, m.starts, m.replayer
	m.mu.Unlock()
	if r != nil {
		sum = sum.Add(r.Stats())
	}
	return sum, starts
}
