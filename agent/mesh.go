package agent

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/borrownet/borrownet/agent/wire"
)

// A Prober is a Network that knows how connections leave the pod.
type Prober interface {
	// Probe connects to dst as DialTCP does and closes the connection again. It
	// reports who in the pod accepted it.
	Probe(ctx context.Context, dst netip.AddrPort) wire.Path
	// Identity reads the certificate that the pod's Envoy presents to its peers.
	Identity(ctx context.Context) wire.Identity
}

const (
	// redirectTimeout bounds one connection of a probe where a proxy is expected: what
	// a rule of the pod redirects is accepted at once, if the node is not very busy.
	redirectTimeout = 2 * time.Second
	// probeTimeout is that bound elsewhere: a policy may drop the probe.
	probeTimeout = 300 * time.Millisecond
	// identityTimeout bounds the answer of the proxy's administration interface,
	// which waits for whatever else the proxy's main thread does.
	identityTimeout = 3 * time.Second

	// envoyDNS is where Istio's agent answers redirected queries, envoyOutbound
	// where Envoy takes connections; one that is for that very port it ends
	// without a word to anybody.
	envoyDNS      = 15053
	envoyOutbound = 15001
	dnsPort       = 53
)

// mesh answers wire.PathMesh: how a connection leaves the pod now and, where
// its proxy is an Envoy, as whom.
func (a *Agent) mesh(ctx context.Context, envoy bool) (wire.Mesh, error) {
	p, ok := a.cfg.Network.(Prober)
	if !ok {
		return wire.Mesh{}, errors.ErrUnsupported
	}
	out := wire.Mesh{UID: os.Getuid(), GID: os.Getgid()}
	timeout := probeTimeout
	if envoy {
		timeout = redirectTimeout
	}
	out.Path = a.probe(ctx, p, timeout)
	if envoy {
		ctx, cancel := context.WithTimeout(ctx, identityTimeout)
		defer cancel()
		out.Identity = p.Identity(ctx)
	}
	return out, nil
}

// probe connects to the pod's own name server, which every pod may: it is
// there, and takes no offence at a connection that says nothing. Where a mesh
// answers DNS itself, that says nothing about other connections, so another
// port is tried, on which nothing gets further than the proxy.
func (a *Agent) probe(ctx context.Context, p Prober, timeout time.Duration) wire.Path {
	text, err := a.cfg.Network.Resolv()
	if err != nil {
		return wire.Path{Problem: err.Error()}
	}
	server, ok := nameserver(text)
	if !ok {
		return wire.Path{Problem: "the pod's resolv.conf has no name server to probe with"}
	}
	probe := func(port uint16) wire.Path {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		return p.Probe(ctx, netip.AddrPortFrom(server, port))
	}
	path := probe(dnsPort)
	if path.Via.Port() == envoyDNS {
		path = probe(envoyOutbound)
	}
	return path
}

// nameserver returns the first name server of a resolv.conf(5) that is
// elsewhere than in the pod.
func nameserver(resolv string) (netip.Addr, bool) {
	for _, ip := range nameservers(resolv) {
		if !ip.IsLoopback() && !ip.IsUnspecified() {
			return ip, true
		}
	}
	return netip.Addr{}, false
}

// nameservers returns the name servers of a resolv.conf(5).
func nameservers(resolv string) (out []netip.Addr) {
	for line := range strings.Lines(resolv) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if ip, err := netip.ParseAddr(f[1]); err == nil {
			out = append(out, ip.Unmap().WithZone(""))
		}
	}
	return out
}

// secretsPath asks Envoy for the one certificate that it presents; the dump of
// everything may have megabytes. Private keys are not in it.
const secretsPath = "/config_dump?resource=dynamic_active_secrets&name_regex=%5Edefault%24"

// envoyIdentity asks Envoy's administration interface at base.
func envoyIdentity(ctx context.Context, base string) wire.Identity {
	unknown := func(format string, args ...any) wire.Identity {
		return wire.Identity{Problem: fmt.Sprintf(format, args...)}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+secretsPath, nil)
	if err != nil {
		return unknown("ask the proxy: %v", err)
	}
	// A transport of its own: nothing stays open, no proxy variable of the
	// borrowed environment counts.
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return unknown("the proxy's administration interface does not answer: %v", innermost(err))
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, wire.MaxMessage))
	if err != nil {
		return unknown("the proxy's administration interface does not finish its answer: %v", innermost(err))
	}
	if resp.StatusCode != http.StatusOK {
		return unknown("the proxy's administration interface answers %s", resp.Status)
	}
	chain, err := secretChain(body)
	if err != nil {
		return unknown("%v", err)
	}
	return certIdentity(chain)
}

// innermost is err without the URL around it.
func innermost(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// secretChain returns the certificates in a dump of Envoy's secrets, PEM.
func secretChain(dump []byte) ([]byte, error) {
	var d struct {
		Configs []struct {
			Secret struct {
				TLS struct {
					Chain struct {
						Bytes []byte `json:"inline_bytes"`
					} `json:"certificate_chain"`
				} `json:"tls_certificate"`
			} `json:"secret"`
		} `json:"configs"`
	}
	if err := json.Unmarshal(dump, &d); err != nil {
		return nil, errors.New("the proxy's list of certificates cannot be read")
	}
	for _, c := range d.Configs {
		if len(c.Secret.TLS.Chain.Bytes) > 0 {
			return c.Secret.TLS.Chain.Bytes, nil
		}
	}
	return nil, errors.New("the proxy has no certificate yet")
}

// certIdentity returns the SPIFFE ID of the first certificate of a PEM chain.
func certIdentity(chain []byte) wire.Identity {
	block, _ := pem.Decode(chain)
	if block == nil {
		return wire.Identity{Problem: "the proxy's certificate is no PEM"}
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return wire.Identity{Problem: fmt.Sprintf("the proxy's certificate cannot be read: %v", err)}
	}
	for _, uri := range cert.URIs {
		if uri.Scheme == "spiffe" {
			return wire.Identity{ID: uri.String(), Expires: cert.NotAfter}
		}
	}
	return wire.Identity{Problem: "the proxy's certificate has no SPIFFE ID"}
}
