package agent

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/borrownet/borrownet/agent/wire"
)

// serveControl serves the control API to the client's stack. Programs cannot
// reach it: guardedPackets drops their packets to the agent's address.
func (s *session) serveControl() error {
	ln, err := s.stack.ListenTCP(netip.AddrPortFrom(wire.AgentAddr, wire.ControlPort))
	if err != nil {
		return err
	}
	s.serveHTTP(ln, s.introduced(s.agent.control(s)), "control API")
	return nil
}

func (a *Agent) control(s *session) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+wire.PathInfo, func(w http.ResponseWriter, r *http.Request) {
		info, err := a.info()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		a.answer(w, info)
	})
	mux.HandleFunc("GET "+wire.PathStats, func(w http.ResponseWriter, r *http.Request) {
		stats := a.counters.snapshot()
		stats.Usage = usage()
		a.answer(w, stats)
	})
	mux.HandleFunc("GET "+wire.PathFiles, func(w http.ResponseWriter, r *http.Request) {
		files, err := a.files(r.FormValue("root"), r.FormValue("have"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		a.answer(w, files)
	})
	mux.HandleFunc("GET "+wire.PathMesh, func(w http.ResponseWriter, r *http.Request) {
		mesh, err := a.mesh(r.Context(), r.URL.RawQuery == wire.MeshEnvoy)
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotImplemented)
			return
		}
		a.answer(w, mesh)
	})
	mux.HandleFunc("POST "+wire.PathDirect, a.handleDirect(s))
	mux.HandleFunc("POST "+wire.PathStop, func(w http.ResponseWriter, r *http.Request) {
		a.answer(w, struct{}{})
		// The answer still has to cross the tunnel that the stop takes down.
		if err := http.NewResponseController(w).Flush(); err != nil {
			a.log.Debug("flush answer to stop", "err", err)
		}
		time.AfterFunc(stopDelay, func() { a.stop(errStopped) })
	})
	return mux
}

// stopDelay lets the answer to a stop request reach the client.
const stopDelay = 200 * time.Millisecond

func (a *Agent) answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		a.log.Debug("write control answer", "err", err)
	}
}

func (a *Agent) info() (wire.Info, error) {
	hostname, err := os.Hostname()
	if err != nil {
		return wire.Info{}, fmt.Errorf("read host name: %w", err)
	}
	resolv, err := a.cfg.Network.Resolv()
	if err != nil {
		return wire.Info{}, fmt.Errorf("read resolv.conf: %w", err)
	}
	return wire.Info{
		Protocol: wire.Protocol,
		Version:  a.cfg.Version,
		Hostname: hostname,
		Addrs:    a.addrs,
		Resolv:   resolv,
		Env:      a.cfg.Env,
		Ping:     a.ping(),
		Expires:  a.expires,
	}, nil
}

// ping says why ICMP echo does not work in the pod, or "".
func (a *Agent) ping() string {
	e, err := a.cfg.Network.ListenEcho(a.addrs[0])
	if err != nil {
		return err.Error()
	}
	e.Close()
	return ""
}
