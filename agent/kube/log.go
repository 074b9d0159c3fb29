package kube

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/borrownet/borrownet/agent/wire"
)

var (
	errNoHello       = errors.New("the agent's output has no greeting")
	errOtherProtocol = errors.New("agent and client are of different versions")
)

// helloTimeout is how long a running agent may take to say hello.
const helloTimeout = 15 * time.Second

// readHello follows the output of an agent up to its greeting. errNoHello
// means that the output ended, or went on for longer than limit, without one.
// other, which may be nil, gets the lines before it.
func (c *Client) readHello(ctx context.Context, t *Target, container string, limit time.Duration, other func(line string)) (wire.Hello, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errNoHello)
	defer cancel()
	for {
		h, err := c.scanHello(ctx, t, container, url.Values{"follow": {"true"}}, other)
		switch {
		case errors.Is(context.Cause(ctx), errNoHello):
			return h, errNoHello
		case !notYet(err):
			return h, err
		}
		// The kubelet may report a container as running before it serves its log.
		if err := pause(ctx, rewatch); err != nil {
			return h, err
		}
	}
}

// notYet reports whether err says that a container has no log so far.
func notYet(err error) bool {
	var status *apierrors.StatusError
	return errors.As(err, &status) && status.ErrStatus.Code == http.StatusBadRequest &&
		strings.Contains(status.ErrStatus.Message, "waiting to start")
}

// scanHello reads a container's output until there is a greeting.
func (c *Client) scanHello(ctx context.Context, t *Target, container string, query url.Values, other func(line string)) (wire.Hello, error) {
	body, err := c.openLog(ctx, t, container, query)
	if err != nil {
		return wire.Hello{}, err
	}
	defer body.Close()
	lines := bufio.NewScanner(io.LimitReader(body, wire.MaxMessage))
	lines.Buffer(make([]byte, 0, 4<<10), wire.MaxMessage)
	for lines.Scan() {
		h, err := wire.ParseHello(lines.Bytes())
		if err == nil {
			return h, nil
		}
		if !errors.Is(err, wire.ErrNotHello) {
			return h, fmt.Errorf("%w: %w", errOtherProtocol, err)
		}
		if other != nil {
			other(lines.Text())
		}
	}
	if err := lines.Err(); err != nil && ctx.Err() != nil {
		return wire.Hello{}, context.Cause(ctx)
	}
	return wire.Hello{}, errNoHello
}

// lastLines returns the end of a container's output as one line.
func (c *Client) lastLines(ctx context.Context, t *Target, container string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	body, err := c.openLog(ctx, t, container, url.Values{"tailLines": {"5"}})
	if err != nil {
		return "", err
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, 8<<10))
	return oneLine(string(b)), err
}

func (c *Client) openLog(ctx context.Context, t *Target, container string, query url.Values) (io.ReadCloser, error) {
	query.Set("container", container)
	return c.open(ctx, request{
		verb: "get", resource: "pods", namespace: t.Namespace, name: t.Pod, subresource: "log", query: query,
	})
}

// AgentLog returns the end of an agent's log.
func (c *Client) AgentLog(ctx context.Context, t *Target, container string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	body, err := c.openLog(ctx, t, container, url.Values{"tailLines": {"2000"}, "timestamps": {"true"}})
	if err != nil {
		return "", c.explain("read the log of", "container "+container, err)
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, maxLog))
	return string(b), err
}

// maxLog bounds what AgentLog returns, in bytes.
const maxLog = 4 << 20
