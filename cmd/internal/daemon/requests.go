package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

// requests tells a client what becomes of mirrored requests, one JSON value a line,
// until the client or the session ends.
func (s *server) requests(w http.ResponseWriter, r *http.Request) {
	sess := s.usable(w, r)
	if sess == nil {
		return
	}
	out, control := json.NewEncoder(w), http.NewResponseController(w)
	begin := func() {
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.WriteHeader(http.StatusOK)
		_ = control.Flush() // a client that is gone is noticed by r's context
	}
	err := sess.WatchRequests(r.Context(), begin, func(q session.MirroredRequest) error {
		if err := out.Encode(q); err != nil {
			return err
		}
		return control.Flush()
	})
	if f, ok := errors.AsType[*fault.Error](err); ok {
		s.refuse(w, http.StatusConflict, f)
	} else if err != nil {
		s.log.Debug("tell of requests", "err", err)
	}
}

// WatchRequests calls begin, and then tell with what becomes of each request that a
// session mirrors, until ctx or the session ends.
func (c *Client) WatchRequests(ctx context.Context, name string, begin func(), tell func(session.MirroredRequest)) error {
	if _, err := c.check(ctx); err != nil {
		return err
	}
	path, err := sessionPath(name)
	if err != nil {
		return err
	}
	resp, err := c.do(ctx, http.MethodGet, path+"/requests", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	begin()
	for in := json.NewDecoder(resp.Body); ; {
		var q session.MirroredRequest
		switch err := in.Decode(&q); {
		case ctx.Err() != nil, err == io.EOF:
			return nil
		case err != nil:
			return broken(err)
		}
		tell(q)
	}
}
