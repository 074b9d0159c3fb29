package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/netstack/direct"
)

// directIdle is how long the port for a direct path is open while the client has none.
const directIdle = 10 * time.Second

// errNoDirect is why there is no direct path.
var errNoDirect = errors.New("the agent was started without " + wire.DirectFlag)

// directs is the port for a session's direct path, while there is one. The zero value has none.
type directs struct {
	mu    sync.Mutex
	open  wire.Direct // valid, as addr is, while stop is not nil
	addr  netip.Addr
	stop  context.CancelFunc
	count int // of ports that were opened: tells them apart
}

// settle returns when who is opening a port has done so. The session has ended: nobody opens one after that.
func (d *directs) settle() {
	d.mu.Lock()
	defer d.mu.Unlock()
}

// openDirect opens a UDP port on addr, one of the pod's addresses, that the client may knock at. There is one at a
// time, for as long as the client has a path there, and a little longer.
func (s *session) openDirect(addr netip.Addr) (wire.Direct, error) {
	if s.agent.cfg.Direct == nil {
		return wire.Direct{}, errNoDirect
	}
	if !slices.Contains(s.agent.addrs, addr) {
		return wire.Direct{}, fmt.Errorf("%v is not an address of the pod", addr)
	}
	d := &s.direct
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.ended() {
		return wire.Direct{}, net.ErrClosed
	}
	if d.stop != nil {
		if d.addr == addr {
			return d.open, nil
		}
		d.stop()
	}
	certificate, err := direct.NewCertificate()
	if err != nil {
		return wire.Direct{}, err
	}
	conn, err := s.agent.cfg.Direct(addr)
	if err != nil {
		return wire.Direct{}, fmt.Errorf("listen on %v: %w", addr, err)
	}
	local, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		conn.Close()
		return wire.Direct{}, fmt.Errorf("listen on %v: %v is not of UDP", addr, conn.LocalAddr())
	}
	ctx, cancel := context.WithCancel(s.ctx)
	d.open = wire.Direct{Port: local.AddrPort().Port(), Certificate: certificate.Sum()}
	d.addr, d.stop = addr, cancel
	d.count++
	s.serveDirect(ctx, conn, certificate, d.count)
	return d.open, nil
}

// serveDirect takes carriers over conn until ctx ends or nobody uses it.
func (s *session) serveDirect(ctx context.Context, conn net.PacketConn, certificate *direct.Certificate, number int) {
	a := s.agent
	s.record.log.Info("direct port opens", "src", conn.LocalAddr().String())
	s.wg.Go(func() {
		err := direct.Serve(ctx, direct.ServerConfig{
			Conn: conn, Certificate: certificate, Verifier: a.verifier, Admit: a.admit, Idle: directIdle, Logger: s.record.log,
			Stranger: func() { a.counters.drop("datagram without a knock") },
		})
		s.record.log.Info("direct port closes", "src", conn.LocalAddr().String(), "err", err)
		s.direct.mu.Lock()
		defer s.direct.mu.Unlock()
		if s.direct.count == number {
			s.direct.stop()
			s.direct.stop = nil
		}
	})
}

// handleDirect answers [wire.PathDirect].
func (a *Agent) handleDirect(s *session) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		addr, err := netip.ParseAddr(r.FormValue("addr"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		open, err := s.openDirect(addr)
		switch {
		case errors.Is(err, errNoDirect):
			http.Error(w, err.Error(), http.StatusForbidden)
		case err != nil:
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		default:
			a.answer(w, open)
		}
	}
}
