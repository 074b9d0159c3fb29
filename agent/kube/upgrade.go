package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gorilla/websocket"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/transport"
)

const headerProtocol = "X-Stream-Protocol-Version"

func forwardRequest(verb string, t *Target) request {
	return request{verb: verb, resource: "pods", namespace: t.Namespace, name: t.Pod, subresource: "portforward"}
}

// upgradeSPDY opens a connection for SPDY streams by an HTTP/1.1 upgrade.
func (c *Client) upgradeSPDY(ctx context.Context, r request, protocol string) (io.ReadWriteCloser, error) {
	traced, under := traceCork(ctx)
	req, err := http.NewRequestWithContext(traced, http.MethodPost, r.url(c.base).String(), nil)
	if err != nil {
		return nil, &requestError{r, err}
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "SPDY/3.1")
	req.Header.Set(headerProtocol, protocol)
	resp, err := c.upgrade.RoundTrip(req)
	if err != nil {
		return nil, &requestError{r, contextCause(ctx, err)}
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer resp.Body.Close()
		return nil, &requestError{r, statusError(r, resp)}
	}
	conn, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || !strings.EqualFold(resp.Header.Get("Upgrade"), "SPDY/3.1") {
		resp.Body.Close()
		return nil, &requestError{r, fmt.Errorf("server switched to protocol %q instead of SPDY/3.1", resp.Header.Get("Upgrade"))}
	}
	if cork := under(); cork != nil {
		return &corkStream{conn, cork}, nil
	}
	return conn, nil
}

// upgradeWebSocket opens a WebSocket with a sub-protocol. In that of a
// port-forward the frames of SPDY travel in binary messages.
func (c *Client) upgradeWebSocket(ctx context.Context, r request, protocol string) (*messageConn, error) {
	config, err := c.config.TransportConfig()
	if err != nil {
		return nil, &requestError{r, err}
	}
	ws := &webSocketTripper{}
	if ws.dialer.TLSClientConfig, err = transport.TLSConfigFor(config); err != nil {
		return nil, &requestError{r, err}
	}
	ws.dialer.NetDialContext = newDialer().DialContext
	if config.DialHolder != nil { // wrapped by an exec plugin that rotates certificates
		ws.dialer.NetDialContext = config.DialHolder.Dial
	}
	ws.dialer.Proxy = config.Proxy
	if ws.dialer.Proxy == nil {
		ws.dialer.Proxy = utilnet.NewProxierWithNoProxyCIDR(http.ProxyFromEnvironment)
	}
	ws.dialer.Subprotocols = []string{protocol}
	ws.dialer.ReadBufferSize, ws.dialer.WriteBufferSize = 32<<10, maxMessage+64 // with room for the header
	authorized, err := transport.HTTPWrappersForConfig(config, ws)
	if err != nil {
		return nil, &requestError{r, err}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url(c.base).String(), nil)
	if err != nil {
		return nil, &requestError{r, err}
	}
	resp, err := authorized.RoundTrip(req)
	if err != nil {
		return nil, &requestError{r, contextCause(ctx, err)}
	}
	defer resp.Body.Close()
	if ws.conn == nil {
		return nil, &requestError{r, statusError(r, resp)}
	}
	if got := ws.conn.Subprotocol(); got != protocol {
		ws.conn.Close()
		return nil, &requestError{r, fmt.Errorf("server chose WebSocket protocol %q instead of %q", got, protocol)}
	}
	return &messageConn{conn: ws.conn}, nil
}

// webSocketTripper makes a WebSocket handshake look like an HTTP round trip,
// so that client-go's authenticating wrappers apply. It serves one request.
type webSocketTripper struct {
	dialer websocket.Dialer
	conn   *websocket.Conn // set by a handshake that succeeded
}

// RoundTrip implements http.RoundTripper.
func (w *webSocketTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	u := *req.URL
	u.Scheme = map[string]string{"https": "wss", "http": "ws"}[u.Scheme]
	conn, resp, err := w.dialer.DialContext(req.Context(), u.String(), req.Header)
	if err != nil {
		if errors.Is(err, websocket.ErrBadHandshake) && resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			return resp, nil
		}
		return nil, fmt.Errorf("open WebSocket to %s: %w", (&url.URL{Scheme: u.Scheme, Host: u.Host}).String(), err)
	}
	w.conn = conn
	return resp, nil
}

// messageConn is the byte stream in a WebSocket's binary messages.
type messageConn struct {
	conn *websocket.Conn
	rest io.Reader // of the message being read, or nil
}

func (m *messageConn) Read(p []byte) (int, error) {
	for {
		if m.rest == nil {
			kind, r, err := m.conn.NextReader()
			if websocket.IsCloseError(err, websocket.CloseNormalClosure) {
				return 0, io.EOF
			}
			if err != nil {
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, errors.New("WebSocket message is not binary")
			}
			m.rest = r
		}
		n, err := m.rest.Read(p)
		if errors.Is(err, io.EOF) {
			m.rest, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (m *messageConn) Write(p []byte) (int, error) {
	if err := m.conn.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close says goodbye if that takes no time, and closes the connection.
func (m *messageConn) Close() error {
	bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	_ = m.conn.WriteControl(websocket.CloseMessage, bye, time.Now().Add(50*time.Millisecond)) // best effort
	return m.conn.Close()
}
