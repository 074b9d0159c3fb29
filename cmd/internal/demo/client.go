package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/rundir"
)

// ProtocolUnix is the name of this package's carriers.
const ProtocolUnix = "unix"

// A Client reaches the world that is served in a runtime directory. A session
// takes it for a cluster.
type Client struct {
	path      string
	namespace string
	http      *http.Client
}

// NewClient returns a client. It does no I/O.
func NewClient(dir *rundir.Dir, f kube.Flags) *Client {
	c := &Client{path: dir.Path(SocketName), namespace: f.Namespace}
	if c.namespace == "" {
		c.namespace = Namespace
	}
	c.http = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return c.connect(ctx) },
	}}
	return c
}

func (c *Client) connect(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", c.path)
}

// Context returns the name that selects the world.
func (c *Client) Context() string { return Context }

// Namespace returns the namespace that is looked in.
func (c *Client) Namespace() string { return c.namespace }

// Close drops nothing: there is no connection between calls. Carriers stay
// open.
func (c *Client) Close() error { return nil }

// post sends a request and returns an answer that is no refusal.
func (c *Client) post(ctx context.Context, path string, in any) (io.ReadCloser, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://demo"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if resp.StatusCode/100 == 2 {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	return nil, refusal(resp)
}

// refusal reads the error in an answer.
func refusal(resp *http.Response) error {
	var t trouble
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&t); err != nil {
		return fmt.Errorf("ask the demo: %s", resp.Status)
	}
	return t.err()
}

// unreachable explains an error of the socket.
func (c *Client) unreachable(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return &endedError{&kube.Error{Op: "reach", Object: "context " + Context, Reason: "no demo is running", Hint: "borrownet demo --keep", Err: err}}
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	return fmt.Errorf("ask the demo: %w", err)
}

func (c *Client) call(ctx context.Context, path string, in, out any) error {
	body, err := c.post(ctx, path, in)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(io.LimitReader(body, maxBody)).Decode(out); err != nil {
		return fmt.Errorf("ask the demo: %w", err)
	}
	return nil
}

// Resolve finds the pod that ref means; see World.Resolve.
func (c *Client) Resolve(ctx context.Context, ref, container string) (*kube.Target, error) {
	t := new(kube.Target)
	return t, c.call(ctx, pathResolve, resolveRequest{Namespace: c.namespace, Ref: ref, Container: container}, t)
}

// Plan says what Attach would do.
func (c *Client) Plan(_ context.Context, t *kube.Target, _ kube.AgentSpec) ([]byte, error) {
	return fmt.Appendf(nil, "# pod %s/%s of the demo: an agent would run in the demo's own process\n", t.Namespace, t.Pod), nil
}

// Attach makes an agent that fits spec run in the target; see World.Attach.
func (c *Client) Attach(ctx context.Context, t *kube.Target, spec kube.AgentSpec, progress func(string)) (*kube.Agent, error) {
	body, err := c.post(ctx, pathAttach, attachRequest{Target: t, Spec: spec})
	if err != nil {
		return nil, err
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxBody)
	for lines.Scan() {
		var st attachStep
		if err := json.Unmarshal(lines.Bytes(), &st); err != nil {
			return nil, fmt.Errorf("ask the demo: %w", err)
		}
		switch {
		case st.Agent != nil:
			return st.Agent, nil
		case st.Error != nil:
			return nil, st.Error.err()
		case progress != nil:
			progress(st.Step)
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return nil, fmt.Errorf("ask the demo: %w", errors.Join(lines.Err(), io.ErrUnexpectedEOF))
}

// Fate looks what has become of a target. In a world that has ended there is nothing.
func (c *Client) Fate(ctx context.Context, t *kube.Target) (kube.Fate, error) {
	var out kube.Fate
	err := c.call(ctx, pathFate, t, &out)
	if _, over := errors.AsType[*endedError](err); over {
		return kube.Fate{Gone: "pod " + t.Pod + " no longer exists"}, nil
	}
	return out, err
}

// Successor finds the pod to go on with after t was lost; see World.Successor.
func (c *Client) Successor(ctx context.Context, t *kube.Target) (*kube.Target, error) {
	out := new(kube.Target)
	err := c.call(ctx, pathNext, t, out)
	if over, ok := errors.AsType[*endedError](err); ok {
		// There will be no other: the next demo is another world.
		return nil, &kube.Error{Op: "borrow", Object: "pod " + t.Pod, Reason: over.told.Reason, Hint: over.told.Hint, Err: kube.ErrGone}
	}
	return out, err
}

// Roll replaces the pod of deploy/api and returns the new one's name; see World.Roll.
func (c *Client) Roll(ctx context.Context) (name string, err error) {
	return name, c.call(ctx, pathRoll, struct{}{}, &name)
}

// Agents lists the agents on the target's pod. A world that has ended has none.
func (c *Client) Agents(ctx context.Context, t *kube.Target) ([]kube.AgentState, error) {
	var out []kube.AgentState
	err := c.call(ctx, pathAgents, t, &out)
	if _, over := errors.AsType[*endedError](err); over {
		return nil, nil
	}
	return out, err
}

// Offers says what can be borrowed; see World.Offers.
func (c *Client) Offers(ctx context.Context, namespace string) (*kube.Offers, error) {
	if namespace == "" {
		namespace = c.namespace
	}
	out := new(kube.Offers)
	return out, c.call(ctx, pathOffers, offersRequest{Namespace: namespace}, out)
}

// ListNamespaces returns the names of the namespaces.
func (*Client) ListNamespaces(context.Context) ([]string, error) { return []string{Namespace}, nil }

// An endedError reports that the world has ended, and its pods with it.
type endedError struct{ told *kube.Error }

func (e *endedError) Error() string { return e.told.Error() }

// Unwrap returns what a person is told.
func (e *endedError) Unwrap() error { return e.told }

// Dial connects to an agent's port on the target. All carriers are alike.
func (c *Client) Dial(ctx context.Context, t *kube.Target, a *kube.Agent, _ kube.Use) (kube.Carrier, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, c.unreachable(err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	err = upgrade(conn, dialRequest{Target: t, Port: a.Hello.Port})
	if !stop() {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return carrierConn{conn}, nil
}

// upgrade asks the server at the other end of conn to make it a carrier.
func upgrade(conn net.Conn, in dialRequest) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	req, err := http.NewRequest(http.MethodPost, "http://demo"+pathDial, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", upgradeTo)
	if err := req.Write(conn); err != nil {
		return fmt.Errorf("ask the demo: %w", err)
	}
	// The agent says nothing before it has a proof, so nothing of the carrier
	// can end up in the reader's buffer.
	resp, err := http.ReadResponse(bufio.NewReaderSize(conn, 4<<10), req)
	if err != nil {
		return fmt.Errorf("ask the demo: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return refusal(resp)
	}
	return nil
}

// carrierConn is a carrier's client end.
type carrierConn struct{ net.Conn }

// Protocol implements kube.Carrier.
func (carrierConn) Protocol() string { return ProtocolUnix }
