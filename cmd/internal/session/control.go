package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/netstack"
)

// control talks to the agent through the tunnel.
type control struct {
	http     *http.Client
	captures *http.Client // a flow for each: the agent lets all others go before these
	who      string       // this client's name, for people who read the agent's log
}

// clientName is what the agent's log calls this client.
func clientName() string {
	name, host := os.Getenv("USER"), "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	return wire.ClientName(name + "@" + host)
}

func newControl(stack *netstack.Stack) *control {
	dial := func(port uint16) func(context.Context, string, string) (net.Conn, error) {
		src, dst := netip.AddrPortFrom(wire.ClientAddr, 0), netip.AddrPortFrom(wire.AgentAddr, port)
		return func(ctx context.Context, _, _ string) (net.Conn, error) { return stack.DialTCP(ctx, src, dst) }
	}
	return &control{
		who: clientName(),
		http: &http.Client{Transport: &http.Transport{
			MaxIdleConns:       1,
			MaxConnsPerHost:    4,
			DisableCompression: true, // the link is encrypted and local; CPU is what is short
			DialContext:        dial(wire.ControlPort),
		}},
		captures: &http.Client{Transport: &http.Transport{
			DisableKeepAlives:  true,
			DisableCompression: true,
			DialContext:        dial(wire.CapturePort),
		}},
	}
}

// info asks what the agent and its pod are.
func (c *control) info(ctx context.Context) (wire.Info, error) {
	var out wire.Info
	return out, c.call(ctx, http.MethodGet, wire.PathInfo, &out)
}

// stats asks for the agent's counters and says how long the answer took.
func (c *control) stats(ctx context.Context) (wire.Stats, time.Duration, error) {
	var out wire.Stats
	start := time.Now()
	err := c.call(ctx, http.MethodGet, wire.PathStats, &out)
	return out, time.Since(start), err
}

// files asks for the files of a volume; there are none if it still has version have.
func (c *control) files(ctx context.Context, root, have string) (out wire.Files, err error) {
	query := url.Values{"root": {root}, "have": {have}}
	resp, err := c.send(ctx, http.MethodGet, wire.PathFiles+"?"+query.Encode())
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		if err != nil {
			return out, fmt.Errorf("ask the agent: %w", err)
		}
		return out, errors.New("the agent says: " + strings.TrimSpace(string(text)))
	}
	return wire.DecodeFiles(resp.Body)
}

// errNoDirect is wrapped by direct's error if the agent will never open a port.
var errNoDirect = errors.New("no direct path")

// direct asks for the UDP port to knock at, on an address of the pod.
func (c *control) direct(ctx context.Context, addr netip.Addr) (wire.Direct, error) {
	var out wire.Direct
	resp, err := c.send(ctx, http.MethodPost, wire.PathDirect+"?"+url.Values{"addr": {addr.String()}}.Encode())
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		if err != nil {
			return out, fmt.Errorf("ask the agent: %w", err)
		}
		err = errors.New("the agent says: " + strings.TrimSpace(string(text)))
		if resp.StatusCode == http.StatusForbidden || resp.StatusCode == http.StatusNotFound {
			err = fmt.Errorf("%w: %w", errNoDirect, err)
		}
		return out, err
	}
	err = wire.Decode(resp.Body, &out)
	return out, err
}

// mesh has the agent find out how connections leave the pod; envoy says that
// its proxy is one.
func (c *control) mesh(ctx context.Context, envoy bool) (wire.Mesh, error) {
	path := wire.PathMesh
	if envoy {
		path += "?" + wire.MeshEnvoy
	}
	var out wire.Mesh
	return out, c.call(ctx, http.MethodGet, path, &out)
}

// captureRefused is why the agent does not capture.
type captureRefused struct {
	code   int // of HTTP
	reason string
}

func (e *captureRefused) Error() string { return e.reason }

// capture starts a capture, which ends with ctx or with Close of what is returned. whole has it take answers too.
func (c *control) capture(ctx context.Context, ports capturePorts, whole bool) (io.ReadCloser, error) {
	query := ports.query()
	if whole {
		query.Set("responses", "full")
	}
	resp, err := c.request(ctx, c.captures, http.MethodGet, wire.PathCapture+"?"+query.Encode())
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return nil, fmt.Errorf("ask the agent: %w", err)
	}
	return nil, &captureRefused{resp.StatusCode, strings.TrimSpace(string(text))}
}

// stop ends the agent.
func (c *control) stop(ctx context.Context) error {
	var out struct{}
	return c.call(ctx, http.MethodPost, wire.PathStop, &out)
}

func (c *control) call(ctx context.Context, method, path string, out any) error {
	resp, err := c.send(ctx, method, path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the agent: %s %s: %s", method, path, resp.Status)
	}
	return wire.Decode(resp.Body, out)
}

func (c *control) send(ctx context.Context, method, path string) (*http.Response, error) {
	return c.request(ctx, c.http, method, path)
}

func (c *control) request(ctx context.Context, client *http.Client, method, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, nil)
	if err != nil {
		return nil, fmt.Errorf("ask the agent: %w", err)
	}
	req.Header.Set(wire.HeaderClient, c.who)
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the agent: %w", err)
	}
	return resp, nil
}

// close drops the idle connection.
func (c *control) close() error {
	c.http.CloseIdleConnections()
	return nil
}
