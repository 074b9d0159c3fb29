package daemon

import (
	"bufio"
	"context"
	"io"
	"net/http"
)

// Follow tells what happens to a session that somebody else may own, until it has
// ended or ctx has; Hold.Watch does it for one's own.
func (c *Client) Follow(ctx context.Context, name string, state func(StateEvent)) error {
	path, err := sessionPath(name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	resp, err := c.do(ctx, http.MethodGet, path+"/changes", nil)
	if err != nil {
		cancel()
		return err
	}
	h := newHold(resp.Body, cancel)
	defer h.Close()
	_, err = h.Watch(state)
	return err
}

// newHold reads the events of body. cancel ends its request.
func newHold(body io.ReadCloser, cancel context.CancelFunc) *Hold {
	h := &Hold{body: body, events: bufio.NewScanner(body), cancel: cancel}
	h.events.Buffer(nil, maxBody)
	return h
}
