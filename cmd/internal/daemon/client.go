package daemon

import (
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
	"strconv"
	"syscall"
	"time"

	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/rundir"
	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/dnsproxy"
)

// Client talks to the user's daemon. It holds no connection between calls.
type Client struct {
	dir     *rundir.Dir
	version string
	spawn   func(context.Context) error
	keep    func(name string) bool
	http    *http.Client
}

// ClientConfig configures a Client.
type ClientConfig struct {
	Dir     *rundir.Dir
	Version string
	// Spawn starts a daemon and returns once it takes requests; Up calls it
	// when there is none.
	Spawn func(ctx context.Context) error
	// Keep reports the files that a daemon that was killed has left for others, as
	// Config.Keep; nil reports none.
	Keep func(name string) bool
}

// ErrNotRunning reports that there is no daemon, and so no session.
var ErrNotRunning = errors.New("no daemon is running")

// answerTimeout bounds calls that do not wait for the cluster.
const answerTimeout = 30 * time.Second

// readTimeout bounds the way of a file out of the pod.
const readTimeout = 30 * time.Second

// endTimeout bounds the end of a session: everything in it has its own bound.
const endTimeout = 30 * time.Second

// NewClient returns a client. It does no I/O.
func NewClient(cfg ClientConfig) *Client {
	socket := cfg.Dir.Path(rundir.SocketName)
	if cfg.Keep == nil {
		cfg.Keep = func(string) bool { return false }
	}
	return &Client{
		dir: cfg.Dir, version: cfg.Version, spawn: cfg.Spawn, keep: cfg.Keep,
		http: &http.Client{Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "unix", socket)
			},
		}},
	}
}

// Hello returns who the daemon is.
func (c *Client) Hello(ctx context.Context) (Hello, error) {
	var h Hello
	err := c.call(ctx, http.MethodGet, pathVersion, &h, answerTimeout)
	return h, err
}

// check refuses a daemon of another API and returns who it is.
func (c *Client) check(ctx context.Context) (Hello, error) {
	h, err := c.Hello(ctx)
	if err != nil {
		return h, err
	}
	if h.API != API {
		return h, &fault.Error{
			Code: fault.Laptop, ID: "BN2002", Op: "talk to the daemon", Reason: fmt.Sprintf("it is version %s, this is %s", h.Version, c.version),
			Hint: fmt.Sprintf("end it and its sessions: kill %d", h.PID),
		}
	}
	return h, nil
}

// List returns the status of every session.
func (c *Client) List(ctx context.Context, measure bool) ([]session.Status, error) {
	if _, err := c.check(ctx); err != nil {
		return nil, err
	}
	path := pathSessions
	if measure {
		path += "?measure=1"
	}
	var out []session.Status
	return out, c.call(ctx, http.MethodGet, path, &out, answerTimeout)
}

// Status returns the status of one session, its round trip measured now.
func (c *Client) Status(ctx context.Context, name string) (session.Status, error) {
	var out session.Status
	path, err := sessionPath(name)
	if err != nil {
		return out, err
	}
	return out, c.call(ctx, http.MethodGet, path, &out, answerTimeout)
}

// Place returns what a program needs to run in a session.
func (c *Client) Place(ctx context.Context, name string) (session.Place, error) {
	var out session.Place
	path, err := sessionPath(name)
	if err != nil {
		return out, err
	}
	return out, c.call(ctx, http.MethodGet, path+"/place", &out, answerTimeout)
}

// ExplainName resolves a name as for a program of the session, and says how.
func (c *Client) ExplainName(ctx context.Context, session, name, qtype string) (dnsproxy.Explanation, error) {
	var out dnsproxy.Explanation
	path, err := sessionPath(session)
	if err != nil {
		return out, err
	}
	query := url.Values{"name": {name}, "type": {qtype}}
	return out, c.call(ctx, http.MethodGet, path+"/names?"+query.Encode(), &out, answerTimeout)
}

// ReadFile returns a file of the session's pod.
func (c *Client) ReadFile(ctx context.Context, session, path string) ([]byte, error) {
	at, err := sessionPath(session)
	if err != nil {
		return nil, err
	}
	var out []byte
	return out, c.call(ctx, http.MethodGet, at+"/file?"+url.Values{"path": {path}}.Encode(), &out, readTimeout)
}

// Way returns how what is no program of the session reaches host; "" asks for no host
// in particular.
func (c *Client) Way(ctx context.Context, name, host string) (session.Way, error) {
	var out session.Way
	path, err := sessionPath(name)
	if err != nil {
		return out, err
	}
	query := url.Values{"host": {host}}
	return out, c.call(ctx, http.MethodGet, path+"/way?"+query.Encode(), &out, answerTimeout)
}

// Record starts a capture of what a session mirrors: the stream of
// wire.PathCapture, until it is closed or ctx ends.
func (c *Client) Record(ctx context.Context, name string) (io.ReadCloser, error) {
	path, err := sessionPath(name)
	if err != nil {
		return nil, err
	}
	resp, err := c.do(ctx, http.MethodGet, path+"/capture", nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// Down ends a session and waits until it is gone.
func (c *Client) Down(ctx context.Context, name string, stopAgent bool) (Downed, error) {
	var out Downed
	path, err := sessionPath(name)
	if err != nil {
		return out, err
	}
	if stopAgent {
		path += "?stop-agent=1"
	}
	if err := c.call(ctx, http.MethodDelete, path, &out, endTimeout); err != nil {
		return out, err
	}
	awaitEnd(ctx, out.Ending)
	return out, nil
}

// sessionPath refuses the names that no session has and that mean something else
// in a path.
func sessionPath(name string) (string, error) {
	switch name {
	case "", ".", "..":
		return "", NoSession(strconv.Quote(name))
	}
	return pathSessions + "/" + url.PathEscape(name), nil
}

// call makes one request and reads its answer into out. A daemon that is about
// to end is waited for: the question is for who comes after it, or for nobody.
func (c *Client) call(ctx context.Context, method, path string, out any, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	again := time.NewTicker(retryPause)
	defer again.Stop()
	for {
		resp, err := c.do(ctx, method, path, nil)
		if err == nil {
			defer resp.Body.Close()
			if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(out); err != nil {
				return broken(err)
			}
			return nil
		}
		if !errors.Is(err, errEnding) {
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return broken(ctx.Err())
		}
	}
}

// errEnding reports a daemon that hung up or refuses requests because it ends.
var errEnding = errors.New("the daemon is ending")

// retryPause is how long a daemon that ends is left alone.
const retryPause = 20 * time.Millisecond

// do makes one request and returns an answer that is not a refusal.
func (c *Client) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://daemon"+path, bytes.NewReader(body))
	if err != nil {
		return nil, broken(err)
	}
	resp, err := c.http.Do(req)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, ErrNotRunning
	case errors.Is(err, syscall.ECONNREFUSED):
		c.tidy()
		return nil, ErrNotRunning
	case errors.Is(err, context.Canceled):
		return nil, context.Canceled
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return nil, errEnding
	case err != nil:
		return nil, broken(err)
	case resp.StatusCode/100 == 2:
		return resp, nil
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusServiceUnavailable {
		return nil, errEnding
	}
	var f fault.Error
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&f); err != nil {
		return nil, broken(fmt.Errorf("answer %s", resp.Status))
	}
	return nil, &f
}

// tidy removes what a daemon that was killed has left, unless somebody is about
// to start one, which then does it.
func (c *Client) tidy() {
	start, err := c.dir.TryLock(rundir.StartLock)
	if err != nil {
		return
	}
	defer start.Release()
	lock, err := c.dir.TryLock(rundir.DaemonLock)
	if err != nil {
		return
	}
	defer lock.Release()
	_ = c.dir.Sweep(c.keep) // the next daemon tries again
}

func broken(err error) error {
	if errors.Is(err, context.Canceled) {
		return context.Canceled
	}
	reason := err.Error()
	var urlErr *url.Error
	if errors.As(err, &urlErr) {
		reason = urlErr.Err.Error()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		reason = "it does not answer"
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
		reason = "it has ended"
	}
	return &fault.Error{
		Code: fault.Laptop, ID: "BN2003", Op: "talk to the daemon", Reason: reason, Err: err,
		Hint: "borrownet status; if that hangs too, end the process `borrownet __daemon` with kill",
	}
}
