package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/borrownet/borrownet/agent/kube/api"
	"github.com/borrownet/borrownet/agent/stdio"
	"github.com/borrownet/borrownet/agent/wire"
)

// ErrForwardRefused says that the cluster refuses port-forward: by a Role, another
// authorizer, or an admission policy.
var ErrForwardRefused = errors.New("port-forward is refused")

// forwardRefused is an ErrForwardRefused that says what its cause says.
type forwardRefused struct{ error }

func (e forwardRefused) Unwrap() error { return e.error }

func (forwardRefused) Is(target error) bool { return target == ErrForwardRefused }

// isRefusal reports whether err is the cluster's word that the user may not do
// something. Webhooks choose their status code.
func isRefusal(err error) bool {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok {
		return false
	}
	m := status.ErrStatus.Message
	return status.ErrStatus.Code == http.StatusForbidden || strings.Contains(m, "denied the request") || strings.Contains(m, "denied request")
}

const (
	// askAgain is how long a refusal of port-forward counts. Rights change.
	askAgain = 5 * time.Minute
	// probeTimeout bounds the question whether port-forward is refused.
	probeTimeout = 3 * time.Second
)

func (c *Client) refusedLately() bool {
	at := c.refusedAt.Load()
	return at != 0 && time.Since(time.Unix(0, at)) < askAgain
}

// dialInstead connects to the standard streams of an agent, for calls.
func (c *Client) dialInstead(ctx context.Context, t *Target, a *Agent, use Use) (Carrier, error) {
	if use != ForCalls {
		return nil, forwardRefused{&Error{Op: "connect to", Object: "pod " + t.Namespace + "/" + t.Pod, Reason: "port-forward is refused, and attach has no second carrier"}}
	}
	s, err := c.openStdio(ctx, t, a.Container, nil)
	if err == nil {
		return s, nil
	}
	c.refusedAt.Store(0) // attach may have been forbidden and port-forward allowed
	return nil, c.explainDial(t, err)
}

// stdioCarrier is a stream over the standard streams of an agent's container.
type stdioCarrier struct{ *stdio.Stream }

// Protocol is "attach".
func (stdioCarrier) Protocol() string { return ProtocolAttach }

// openStdio opens a stream to the agent in a container. Its greeting goes to hello, which may be nil.
func (c *Client) openStdio(ctx context.Context, t *Target, container string, hello *wire.Hello) (Carrier, error) {
	attached, err := c.attachStdio(ctx, t, container)
	if err != nil {
		return nil, err
	}
	s, greeting, err := stdio.Open(ctx, attached)
	if err != nil {
		return nil, err
	}
	if hello != nil {
		if *hello, err = wire.ParseHello(greeting); err != nil {
			return nil, errors.Join(fmt.Errorf("%w: %w", errOtherProtocol, err), s.Close())
		}
	}
	return stdioCarrier{s}, nil
}

// attachStdio connects to the standard streams of a container, over SPDY or, where that is not let through, over a WebSocket.
func (c *Client) attachStdio(ctx context.Context, t *Target, container string) (io.ReadWriteCloser, error) {
	req := request{verb: "create", resource: "pods", namespace: t.Namespace, name: t.Pod, subresource: "attach",
		query: url.Values{"container": {container}, "stdin": {"true"}, "stdout": {"true"}}}
	object := "pod " + t.Namespace + "/" + t.Pod
	rwc, err := c.upgradeSPDY(ctx, req, attachV4)
	if err == nil {
		var f *carrier
		if f, err = open(ctx, rwc, &carrier{protocol: ProtocolAttach, object: object},
			streams{write: api.StreamTypeStdin, read: api.StreamTypeStdout, headers: http.Header{}}); err == nil {
			return f, nil
		}
		err = &requestError{req, err}
	}
	if !mayFallBack(ctx, err) {
		return nil, err
	}
	c.log.Debug("attach falls back", "target", t.Namespace+"/"+t.Pod, "err", err)
	req.verb = "get"
	ws, wsErr := c.upgradeWebSocket(ctx, req, attachV4)
	if wsErr != nil {
		return nil, err // that of SPDY: what Roles allow at least
	}
	return &channelCarrier{object: object, conn: ws.conn, channels: channels{channelStdin, channelStdout, channelError}, closed: make(chan struct{})}, nil
}

// attachEnded is the error for what the error channel of an attach said.
func attachEnded(object, said string) error {
	e := &Error{Op: "reach the agent in", Object: object, Reason: "its container has ended", Err: io.ErrUnexpectedEOF}
	var s metav1.Status
	if err := json.Unmarshal([]byte(said), &s); err != nil {
		e.Reason = oneLine(said)
	} else if s.Status != metav1.StatusSuccess {
		e.Reason = oneLine(s.Message)
	}
	return e
}

// probeForward asks whether the cluster refuses port-forward to the target, and returns its refusal.
func (c *Client) probeForward(ctx context.Context, t *Target) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := c.upgradeSPDY(ctx, forwardRequest("create", t), protocolV1)
	if err == nil {
		conn.Close()
		return nil
	}
	if !isRefusal(err) {
		return nil // whatever is wrong, it shows later
	}
	ws, wsErr := c.upgradeWebSocket(ctx, forwardRequest("get", t), tunnelPrefix+protocolV1)
	if wsErr == nil {
		ws.Close()
		return nil
	}
	if !isRefusal(wsErr) {
		return nil
	}
	c.refusedAt.Store(time.Now().UnixNano())
	return err
}

// probe is the question whether the link to the target has to go over attach, being asked while other things are.
type probe struct {
	cancel context.CancelFunc
	done   chan struct{}
	stdio  bool // valid once done is closed
}

func (c *Client) startProbe(ctx context.Context, t *Target) *probe {
	p := &probe{done: make(chan struct{})}
	ctx, p.cancel = context.WithCancel(ctx)
	go func() { // ends with p.end
		defer close(p.done)
		p.stdio = c.mustUseStdio(ctx, t)
	}()
	return p
}

// answer waits for the answer.
func (p *probe) answer() bool {
	<-p.done
	return p.stdio
}

func (p *probe) end() {
	p.cancel()
	<-p.done
}

// mustUseStdio reports whether port-forward to the target is refused and attach is not.
func (c *Client) mustUseStdio(ctx context.Context, t *Target) bool {
	refusal := c.probeForward(ctx, t)
	if refusal == nil {
		return false
	}
	may := Access{Verb: "create", Resource: "pods/attach"}
	if err := c.review(ctx, t.Namespace, &may); err != nil || !may.Allowed {
		return false // the refusal of port-forward is what counts
	}
	c.log.Info("port-forward is refused", "target", t.Namespace+"/"+t.Pod, "err", refusal)
	return true
}

// noteStdio is what the user should know about a link over attach.
const noteStdio = "port-forward is refused: the link goes over attach, and what the agent sends is, encrypted, in its container's log"

// greetingAgain returns the greeting of an agent with standard streams for carriers that was there before. Its log may have
// been rotated since, but it greets each stream. ok is false if it may wait for its program yet.
func (a *attachment) greetingAgain(ctx context.Context, name string) (h wire.Hello, ok bool, err error) {
	waits := false
	h, err = a.scanHello(ctx, a.target, name, url.Values{}, func(line string) { waits = waits || strings.HasPrefix(line, saySend) })
	switch {
	case err == nil:
		return h, true, nil
	case waits || !errors.Is(err, errNoHello):
		return h, false, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, helloTimeout, errNoHello)
	defer cancel()
	s, err := a.openStdio(ctx, a.target, name, &h)
	if err != nil {
		return h, true, err
	}
	return h, true, s.Close()
}
