// Package engine speaks the HTTP API of a container engine on this machine:
// Docker's, which others offer too. It knows the few calls that borrownet
// makes and nothing of what they are for.
//
// A Client keeps no connection between calls and starts no goroutine. Paths
// carry no version, so each engine answers with its newest one; the fields used
// here have not changed since Docker 20.10.
package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
)

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 16 << 20

// Client asks the engine that listens on a unix socket.
type Client struct {
	socket string
	http   *http.Client
}

// New returns a client of the engine at socket, a path. It does no I/O.
func New(socket string) *Client {
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}}
}

// Socket is the path of the engine's socket.
func (c *Client) Socket() string { return c.socket }

// Refusal is the engine's own answer that it will not.
type Refusal struct {
	Status  int    // of HTTP
	Message string // the engine's
}

func (r *Refusal) Error() string { return r.Message }

// IsRefused reports whether err is a refusal with this HTTP status.
func IsRefused(err error, status int) bool {
	r, ok := errors.AsType[*Refusal](err)
	return ok && r.Status == status
}

// do makes one request. in, if not nil, is sent as JSON, out, if not nil, is
// read from the answer.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(text)
	}
	resp, err := c.send(ctx, method, path, query, "application/json", body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out); err != nil {
		return fmt.Errorf("read the engine's answer: %w", err)
	}
	return nil
}

// send makes one request and returns an answer that is no refusal.
func (c *Client) send(ctx context.Context, method, path string, query url.Values, kind string, body io.Reader) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: "engine", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // the URL is ours and says nothing
		}
		return nil, err
	}
	if resp.StatusCode < 400 {
		return resp, nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return nil, err
	}
	var said struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(text, &said) != nil || said.Message == "" {
		said.Message = resp.Status
	}
	return nil, &Refusal{Status: resp.StatusCode, Message: said.Message}
}

// Info is what the engine says of itself.
type Info struct {
	ServerVersion   string
	OperatingSystem string // of the machine that containers run on
	SecurityOptions []string
	BuildahVersion  string // of podman's library; Docker has none
}

// Info asks the engine about itself.
func (c *Client) Info(ctx context.Context) (Info, error) {
	var out Info
	return out, c.do(ctx, http.MethodGet, "/info", nil, nil, &out)
}
