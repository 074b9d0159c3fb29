package observe

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/borrownet/borrownet/integration/apps/stream"
)

// Seen is the answer to any request: the request as this app saw it.
type Seen struct {
	App     string      `json:"app"`
	Pod     string      `json:"pod"`
	Remote  string      `json:"remote"` // address and port the connection came from
	Local   string      `json:"local"`  // address and port it arrived at
	Proto   string      `json:"proto"`  // HTTP/1.1 or HTTP/2.0
	Method  string      `json:"method"`
	Host    string      `json:"host"`
	Path    string      `json:"path"`
	Headers http.Header `json:"headers"`
	TLS     *SeenTLS    `json:"tls"` // nil over plain TCP
}

// SeenTLS is what the TLS handshake told about the peer.
type SeenTLS struct {
	Version    string   `json:"version"`
	ServerName string   `json:"serverName"`
	ALPN       string   `json:"alpn"`
	Peer       []string `json:"peer"` // subjects of the client's certificates
}

// Digest is the answer of POST /sha256.
type Digest struct {
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Handler answers POST /sha256 with the Digest of the body, GET /bytes?n=&seed=
// with n bytes of package stream, /ws as WebSocket, GET /via/HOST/HOST… with what a chain of
// these apps comes to, and everything else with what it saw.
func Handler(app string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /sha256", digest)
	mux.HandleFunc("GET /bytes", bytes)
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) { converse(w, r, see(app, r)) })
	mux.HandleFunc("GET /via/{hosts...}", func(w http.ResponseWriter, r *http.Request) { via(w, r, see(app, r)) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { answer(w, see(app, r)) })
	return mux
}

func see(app string, r *http.Request) Seen {
	s := Seen{
		App: app, Pod: Pod(),
		Remote: r.RemoteAddr, Proto: r.Proto,
		Method: r.Method, Host: r.Host, Path: r.URL.RequestURI(), Headers: r.Header,
	}
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		s.Local = a.String()
	}
	if r.TLS != nil {
		s.TLS = &SeenTLS{
			Version:    tls.VersionName(r.TLS.Version),
			ServerName: r.TLS.ServerName,
			ALPN:       r.TLS.NegotiatedProtocol,
		}
		for _, c := range r.TLS.PeerCertificates {
			s.TLS.Peer = append(s.TLS.Peer, c.Subject.String())
		}
	}
	return s
}

func digest(w http.ResponseWriter, r *http.Request) {
	h := sha256.New()
	n, err := io.Copy(h, r.Body)
	if err != nil {
		http.Error(w, "read body: "+err.Error(), http.StatusBadRequest)
		return
	}
	answer(w, Digest{Bytes: n, SHA256: hex.EncodeToString(h.Sum(nil))})
}

func bytes(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.FormValue("n"), 10, 64)
	if err != nil || n < 0 {
		http.Error(w, "n: want a number of bytes", http.StatusBadRequest)
		return
	}
	seed, err := strconv.ParseUint(r.FormValue("seed"), 10, 64)
	if err != nil && r.FormValue("seed") != "" {
		http.Error(w, "seed: want a number", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	// A client that left early is no error of this app.
	_, _ = io.Copy(w, stream.New(n, seed))
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v) // the only failure left is a client that is gone
}

// HTTP serves Handler(app) on addr, over TLS when conf is not nil, else also HTTP/2 to
// clients that begin with it. An address without a host listens on both families.
func HTTP(app, addr string, conf *tls.Config) Server {
	return func(ctx context.Context) error {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		if conf != nil {
			l = tls.NewListener(l, conf)
		}
		// Longer than any test: connections that a caller has opened and not used yet are its own to end.
		srv := &http.Server{Handler: Handler(app), ReadHeaderTimeout: 5 * time.Minute, Protocols: new(http.Protocols)}
		srv.Protocols.SetHTTP1(true)
		srv.Protocols.SetUnencryptedHTTP2(true)
		stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
		defer stop()
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}
}
