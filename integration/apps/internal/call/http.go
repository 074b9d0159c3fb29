package call

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/gorilla/websocket"
)

func getHTTP1(ctx context.Context, out io.Writer, url string, headers ...string) error {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return get(ctx, out, &http.Transport{Protocols: p}, url, headers)
}

func getHTTP2(ctx context.Context, out io.Writer, url string, headers ...string) error {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return get(ctx, out, &http.Transport{Protocols: p}, url, headers)
}

func get(ctx context.Context, out io.Writer, t *http.Transport, url string, headers []string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ":")
		req.Header.Add(name, value)
	}
	defer t.CloseIdleConnections()
	res, err := (&http.Client{Transport: t}).Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	fmt.Fprintln(out, res.Status, res.Proto)
	_, err = io.Copy(out, res.Body)
	return err
}

// converse wants the first message to be the server's, then has messages echoed that
// fit a frame's smallest length field, its next, and its largest.
func converse(ctx context.Context, out io.Writer, url string, _ ...string) error {
	conn, res, err := websocket.DefaultDialer.DialContext(ctx, url, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	end, _ := ctx.Deadline()
	if err := conn.SetReadDeadline(end); err != nil {
		return err
	}
	_, seen, err := conn.ReadMessage()
	if err != nil {
		return fmt.Errorf("the server's first message: %w", err)
	}
	for _, n := range []int{1, 1000, 70000} {
		message := bytes.Repeat([]byte{'x'}, n)
		if err := conn.WriteMessage(websocket.BinaryMessage, message); err != nil {
			return err
		}
		kind, echo, err := conn.ReadMessage()
		if err != nil {
			return fmt.Errorf("echo of %d bytes: %w", n, err)
		}
		if kind != websocket.BinaryMessage || !bytes.Equal(echo, message) {
			return fmt.Errorf("%d bytes came back as a message of kind %d with %d bytes", n, kind, len(echo))
		}
	}
	fmt.Fprintf(out, "%s, 3 messages echoed\n%s", res.Status, seen)
	return nil
}
