package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const (
	maxBody    = 64 << 20 // of an answer that is decoded as a whole
	maxStatus  = 64 << 10 // of an error's text
	maxRetries = 3        // when the server asks to come again later
	maxDelay   = 5 * time.Second
)

// request is one call of the API, as the authorizer sees it.
type request struct {
	verb        string // RBAC verb: get, list, watch, patch, create
	group       string // empty = core
	version     string // empty = v1
	namespace   string // empty = cluster scope
	resource    string
	name        string // empty = collection
	subresource string
	query       url.Values
	contentType string // of body
	body        []byte
	path        string // of what is no resource; empty = made of the fields above
}

// full is the resource as RBAC rules write it.
func (r request) full() string {
	if r.subresource != "" {
		return r.resource + "/" + r.subresource
	}
	return r.resource
}

func (r request) method() string {
	switch r.verb {
	case "create":
		return http.MethodPost
	case "patch":
		return http.MethodPatch
	}
	return http.MethodGet
}

func (r request) url(base *url.URL) *url.URL {
	if r.path != "" {
		return base.JoinPath(r.path)
	}
	version := r.version
	if version == "" {
		version = "v1"
	}
	parts := []string{"api", version}
	if r.group != "" {
		parts = []string{"apis", r.group, version}
	}
	if r.namespace != "" {
		parts = append(parts, "namespaces", url.PathEscape(r.namespace))
	}
	parts = append(parts, r.resource)
	if r.name != "" {
		parts = append(parts, url.PathEscape(r.name))
	}
	if r.subresource != "" {
		parts = append(parts, r.subresource)
	}
	u := base.JoinPath(parts...)
	u.RawQuery = r.query.Encode()
	return u
}

// requestError is a failed request. It keeps what was asked, so that the
// explanation can name verb, resource and namespace.
type requestError struct {
	request request
	err     error
}

func (e *requestError) Error() string {
	return fmt.Sprintf("%s %s: %v", e.request.verb, e.request.full(), e.err)
}

func (e *requestError) Unwrap() error { return e.err }

// do sends r and decodes the answer into out. It comes again when the server
// says that it is busy.
func (c *Client) do(ctx context.Context, r request, out any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, fmt.Errorf("no answer within %v: %w", c.timeout, context.DeadlineExceeded))
	defer cancel()
	for try := 0; ; try++ {
		err := c.doOnce(ctx, r, out)
		delay, busy := apierrors.SuggestsClientDelay(err)
		if !busy || try == maxRetries || time.Duration(delay)*time.Second > maxDelay {
			return err
		}
		if err := pause(ctx, time.Duration(delay)*time.Second); err != nil {
			return &requestError{r, err}
		}
	}
}

func (c *Client) doOnce(ctx context.Context, r request, out any) error {
	body, err := c.open(ctx, r)
	if err != nil {
		return err
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, maxBody))
	if err != nil {
		return &requestError{r, contextCause(ctx, err)}
	}
	if err := json.Unmarshal(b, out); err != nil {
		return &requestError{r, fmt.Errorf("decode answer: %w", err)}
	}
	return nil
}

// open sends r and returns the body of a good answer. The caller closes it;
// it ends with ctx.
func (c *Client) open(ctx context.Context, r request) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, r.method(), r.url(c.base).String(), bytes.NewReader(r.body))
	if err != nil {
		return nil, &requestError{r, err}
	}
	req.Header.Set("Accept", "application/json")
	if r.contentType != "" {
		req.Header.Set("Content-Type", r.contentType)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, &requestError{r, contextCause(ctx, err)}
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, &requestError{r, statusError(r, resp)}
	}
	return resp.Body, nil
}

// statusError returns the error that a response carries.
func statusError(r request, resp *http.Response) error {
	retry, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if err != nil {
		retry = 0
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxStatus))
	var s metav1.Status
	if err == nil && json.Unmarshal(b, &s) == nil && s.Kind == "Status" && s.Status != metav1.StatusSuccess {
		if s.Code == 0 {
			s.Code = int32(resp.StatusCode)
		}
		if s.Details == nil && retry > 0 {
			s.Details = &metav1.StatusDetails{RetryAfterSeconds: int32(retry)}
		}
		return &apierrors.StatusError{ErrStatus: s}
	}
	return apierrors.NewGenericServerResponse(resp.StatusCode, r.verb,
		schema.GroupResource{Group: r.group, Resource: r.full()}, r.name, oneLine(string(b)), retry, true)
}

// contextCause returns why ctx ended, if it did, else err.
func contextCause(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	if cause := context.Cause(ctx); !errors.Is(err, cause) {
		return cause
	}
	return err
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
