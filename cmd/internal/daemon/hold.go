package daemon

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/rundir"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

// spawnTimeout bounds the start of a daemon, and the wait for another client
// that starts one.
const spawnTimeout = 15 * time.Second

// Hold is a session that is up. If its request owned it, Close ends it.
type Hold struct {
	Status session.Status
	// Skewed is the daemon's version if it is not the client's.
	Skewed string

	body   io.ReadCloser
	events *bufio.Scanner
	cancel context.CancelFunc // ends the request
}

// Up asks for a session, with a new daemon if there is none, and returns once
// it is up. step gets what happens meanwhile. When ctx ends first the session is
// undone; afterwards ctx does not matter any more.
func (c *Client) Up(ctx context.Context, req UpRequest, step func(string)) (*Hold, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	request, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer context.AfterFunc(ctx, cancel)()
	resp, hello, err := c.post(request, body)
	if err != nil {
		cancel()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, err
	}
	h := newHold(resp.Body, cancel)
	if hello.Version != c.version {
		h.Skewed = hello.Version
	}
	for {
		ev, err := h.next()
		switch {
		case err != nil:
			h.Close()
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			return nil, broken(err)
		case ev.Error != nil:
			h.Close()
			awaitEnd(ctx, ev.Ending)
			return nil, ev.Error
		case ev.Ready != nil:
			h.Status = *ev.Ready
			return h, nil
		case ev.Step != "":
			step(ev.Step)
		}
	}
}

// post sends an UpRequest. It holds the start lock until the daemon has it.
func (c *Client) post(ctx context.Context, body []byte) (*http.Response, Hello, error) {
	wait, cancel := context.WithTimeout(ctx, spawnTimeout)
	defer cancel()
	lock, err := c.dir.Lock(wait, rundir.StartLock)
	if err != nil {
		if ctx.Err() != nil {
			return nil, Hello{}, context.Cause(ctx)
		}
		return nil, Hello{}, &fault.Error{
			Code: fault.Laptop, Op: "start the daemon", Reason: err.Error(),
			Hint: "another borrownet is starting it and does not get on; end that one and try again",
		}
	}
	defer lock.Release()
	hello, err := c.check(wait)
	if errors.Is(err, ErrNotRunning) {
		if err := c.spawn(wait); err != nil {
			return nil, Hello{}, err
		}
		hello, err = c.check(wait)
	}
	if err != nil {
		return nil, Hello{}, err
	}
	resp, err := c.do(ctx, http.MethodPost, pathSessions, body)
	if errors.Is(err, errEnding) {
		err = &fault.Error{Code: fault.Laptop, Op: "talk to the daemon", Reason: "it was ended meanwhile", Hint: "try again", Err: err}
	}
	return resp, hello, err
}

// next reads one event.
func (h *Hold) next() (Event, error) {
	if !h.events.Scan() {
		if err := h.events.Err(); err != nil {
			return Event{}, err
		}
		return Event{}, io.ErrUnexpectedEOF
	}
	var ev Event
	if err := json.Unmarshal(h.events.Bytes(), &ev); err != nil {
		return Event{}, fmt.Errorf("decode event: %w", err)
	}
	return ev, nil
}

// Watch calls state for each change of an owned session until the session has
// ended; it returns why. After Close it returns an error.
func (h *Hold) Watch(state func(StateEvent)) (ended string, err error) {
	for {
		ev, err := h.next()
		switch {
		case err != nil:
			return "", err
		case ev.State != nil:
			state(*ev.State)
		case ev.Ended != "":
			return ev.Ended, nil
		}
	}
}

// Close lets go of the session: the daemon ends one that was owned.
func (h *Hold) Close() error {
	h.cancel()
	return h.body.Close()
}
