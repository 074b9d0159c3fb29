package agent

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/netstack/wg"
)

// chain returns a certificate with the URIs, PEM.
func chain(t *testing.T, expires time.Time, uris ...string) []byte {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: expires}
	for _, u := range uris {
		parsed, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		cert.URIs = append(cert.URIs, parsed)
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// dumpOf is how Envoy shows a certificate.
func dumpOf(t *testing.T, chain []byte) string {
	t.Helper()
	encoded, err := json.Marshal(chain)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`{"configs": [{"@type": "…DynamicSecret", "name": "default", "secret": {"name": "default",
		"tls_certificate": {"certificate_chain": {"inline_bytes": %s}, "private_key": {"inline_bytes": "W3JlZGFjdGVkXQ=="}}}}]}`, encoded)
}

const apiID = "spiffe://cluster.local/ns/shop/sa/api"

func TestEnvoyIdentity(t *testing.T) {
	expires := time.Now().Add(24 * time.Hour).UTC().Truncate(time.Second)
	hang := make(chan struct{})
	for _, tt := range []struct {
		name   string
		serve  http.HandlerFunc
		id, is string // the ID, or a part of the problem
	}{
		{"spiffe", answer(dumpOf(t, chain(t, expires, "https://example.org/", apiID))), apiID, ""},
		{"other_uri", answer(dumpOf(t, chain(t, expires, "https://example.org/"))), "", "no SPIFFE ID"},
		{"none_yet", answer("{}"), "", "no certificate yet"},
		{"no_pem", answer(dumpOf(t, []byte("hello"))), "", "no PEM"},
		{"no_certificate", answer(dumpOf(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}))), "", "cannot be read"},
		{"no_json", answer("<html>"), "", "cannot be read"},
		{"endless", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}, "", "cannot be read"},
		{"refuses", http.NotFound, "", "404"},
		{"silent", func(_ http.ResponseWriter, r *http.Request) { <-hang }, "", "does not answer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.RequestURI() != secretsPath {
					t.Errorf("asked for %s, want %s", r.URL.RequestURI(), secretsPath)
				}
				tt.serve(w, r)
			}))
			defer srv.Close()
			timeout := 30 * time.Second
			if tt.name == "silent" {
				defer close(hang)
				timeout = identityTimeout
			}
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			got := envoyIdentity(ctx, srv.URL)
			if got.ID != tt.id || !strings.Contains(got.Problem, tt.is) || (got.ID == "") != (got.Problem != "") {
				t.Errorf("identity = %+v, want %q, %q", got, tt.id, tt.is)
			}
			if tt.id != "" && !got.Expires.Equal(expires) {
				t.Errorf("expires %v, want %v", got.Expires, expires)
			}
		})
	}
}

func answer(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) }
}

// pod is a network whose rules redirect what goes to these ports.
type pod struct {
	Network
	resolv   string
	redirect map[uint16]uint16
	probed   []netip.AddrPort
	asked    int // for the identity
}

func (p *pod) Resolv() (string, error) { return p.resolv, nil }
func (p *pod) Addrs() ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("203.0.113.7")}, nil
}

func (p *pod) Probe(_ context.Context, dst netip.AddrPort) wire.Path {
	p.probed = append(p.probed, dst)
	out := wire.Path{To: dst, Connected: true}
	if port := p.redirect[dst.Port()]; port != 0 {
		out.Via = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
	}
	return out
}

func (p *pod) Identity(context.Context) wire.Identity {
	p.asked++
	return wire.Identity{ID: apiID}
}

func TestMesh(t *testing.T) {
	const servers = "# of the pod\nnameserver 127.0.0.1\nnameserver 198.51.100.53\n"
	dns := netip.MustParseAddrPort("198.51.100.53:53")
	for _, tt := range []struct {
		name   string
		pod    pod
		envoy  bool
		probed []uint16
		via    uint16
		is     string // part of the problem
	}{
		{"redirected", pod{resolv: servers, redirect: map[uint16]uint16{53: 15001}}, true, []uint16{53}, 15001, ""},
		{"direct", pod{resolv: servers}, false, []uint16{53}, 0, ""},
		{"dns_is_captured", pod{resolv: servers, redirect: map[uint16]uint16{53: 15053, 15001: 15001}}, true, []uint16{53, 15001}, 15001, ""},
		{"only_dns_is", pod{resolv: servers, redirect: map[uint16]uint16{53: 15053}}, true, []uint16{53, 15001}, 0, ""},
		{"no_nameserver", pod{resolv: "nameserver ::1\nsearch example.org\n"}, true, nil, 0, "no name server"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := newAgent(t, &tt.pod).mesh(t.Context(), tt.envoy)
			if err != nil {
				t.Fatal(err)
			}
			var ports []uint16
			for _, to := range tt.pod.probed {
				ports = append(ports, to.Port())
				if to.Addr() != dns.Addr() {
					t.Errorf("probed %v, want the name server", to)
				}
			}
			if !slices.Equal(ports, tt.probed) || got.Path.Via.Port() != tt.via || !strings.Contains(got.Path.Problem, tt.is) {
				t.Errorf("probed ports %v, path %+v; want %v, via %d, %q", ports, got.Path, tt.probed, tt.via, tt.is)
			}
			if asked := tt.pod.asked > 0; asked != tt.envoy {
				t.Errorf("asked for the identity: %v, want %v", asked, tt.envoy)
			}
		})
	}
}

func newAgent(t *testing.T, n Network) *Agent {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	a, err := New(Config{ClientKey: wg.NewPrivateKey().Public(), Network: n, Listener: ln})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestKernelProbe: what is accepted in this namespace went through somebody.
func TestKernelProbe(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(ln.Addr().String())
	path := Kernel{}.Probe(t.Context(), at)
	if !path.Connected || path.Via != at || path.Problem != "" {
		t.Errorf("path = %+v, want one via %v", path, at)
	}
	ln.Close()
	path = Kernel{}.Probe(t.Context(), at)
	if path.Connected || path.Via.IsValid() || !strings.Contains(path.Problem, "refused") {
		t.Errorf("path = %+v, want a refusal", path)
	}
}
