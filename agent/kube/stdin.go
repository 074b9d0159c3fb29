package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/gorilla/websocket"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/borrownet/borrownet/agent/kube/api"
)

// Sub-protocols of attach. Over SPDY each channel is a stream; in a WebSocket
// each message begins with the channel's number, and from version 5 on a
// channel can be closed.
const (
	attachV4 = "v4.channel.k8s.io"
	attachV5 = "v5.channel.k8s.io"

	channelStdin  = 0
	channelStdout = 1
	channelError  = 3
	channelClose  = 255 // the message says which
)

// attachStdin copies r to the standard input of a container and closes it, over
// SPDY or, where that is not let through, over a WebSocket. The container's
// verdict is awaited.
func (c *Client) attachStdin(ctx context.Context, t *Target, container string, r io.ReadSeeker) error {
	req := request{verb: "create", resource: "pods", namespace: t.Namespace, name: t.Pod, subresource: "attach",
		query: url.Values{"container": {container}, "stdin": {"true"}}}
	err := c.stdinSPDY(ctx, req, r)
	if err == nil || !mayFallBack(ctx, err) {
		return err
	}
	if at, seekErr := r.Seek(0, io.SeekCurrent); seekErr != nil || at > 0 {
		return err // some of it has arrived, which cannot be taken back
	}
	c.log.Debug("attach falls back", "target", t.Namespace+"/"+t.Pod, "err", err)
	req.verb = "get"
	if c.stdinWebSocket(ctx, req, r) == nil {
		return nil
	}
	return err
}

func (c *Client) stdinSPDY(ctx context.Context, req request, r io.Reader) error {
	rwc, err := c.upgradeSPDY(ctx, req, attachV4)
	if err != nil {
		return err
	}
	object := "pod " + req.namespace + "/" + req.name
	f, err := open(ctx, rwc, &carrier{protocol: ProtocolSPDY, object: object}, streams{write: api.StreamTypeStdin, headers: http.Header{}})
	if err != nil {
		return &requestError{req, err}
	}
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { f.conn.Close() }) // unblocks writes
	defer stop()
	if _, err := io.Copy(f, r); err != nil {
		return &requestError{req, contextCause(ctx, err)}
	}
	if err := f.data.Close(); err != nil {
		return &requestError{req, contextCause(ctx, err)}
	}
	select {
	case <-f.errDone:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return attachVerdict(req, f.failure)
}

// attachVerdict is the error in what the error channel said.
func attachVerdict(req request, text string) error {
	if text == "" {
		return nil
	}
	var s metav1.Status
	switch err := json.Unmarshal([]byte(text), &s); {
	case err != nil:
		return &requestError{req, errors.New(text)}
	case s.Status == metav1.StatusSuccess:
		return nil
	}
	return &requestError{req, errors.New(oneLine(s.Message))}
}

func (c *Client) stdinWebSocket(ctx context.Context, req request, r io.Reader) error {
	m, err := c.upgradeWebSocket(ctx, req, attachV5)
	if err != nil {
		return err
	}
	defer m.Close()
	stop := context.AfterFunc(ctx, func() { m.conn.Close() }) // unblocks both directions
	defer stop()
	verdict := make(chan error, 1)
	go func() { verdict <- readVerdict(req, m.conn) }() // ends with the connection
	if err := writeStdin(m.conn, r); err != nil {
		return &requestError{req, contextCause(ctx, err)}
	}
	if err := <-verdict; err != nil {
		return contextCause(ctx, err)
	}
	return nil
}

// writeStdin sends r in messages, and that this was all.
func writeStdin(conn *websocket.Conn, r io.Reader) error {
	message := make([]byte, 1+maxFrame)
	message[0] = channelStdin
	for {
		n, err := r.Read(message[1:])
		if n > 0 {
			if err := conn.WriteMessage(websocket.BinaryMessage, message[:1+n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return conn.WriteMessage(websocket.BinaryMessage, []byte{channelClose, channelStdin})
		}
		if err != nil {
			return err
		}
	}
}

// readVerdict reads the server's messages until the connection ends.
func readVerdict(req request, conn *websocket.Conn) error {
	conn.SetReadLimit(maxStatus)
	said := ""
	for {
		_, message, err := conn.ReadMessage()
		switch {
		case websocket.IsCloseError(err, websocket.CloseNormalClosure):
			return attachVerdict(req, said)
		case err != nil && said != "":
			return attachVerdict(req, said)
		case err != nil:
			return &requestError{req, fmt.Errorf("attach ended: %w", err)}
		case len(message) > 1 && message[0] == channelError:
			said = string(message[1:])
		}
	}
}
