package replay

import (
	"bytes"
	"io"
	"net/http"
	"sync"
)

// maxAnswer bounds what is kept of an answer's body to compare it.
const maxAnswer = 1 << 20

// An Answer is a response to a request.
type Answer struct {
	Status int         `json:"status,omitempty"`
	Header http.Header `json:"-"`
	Body   []byte      `json:"-"`
	// Trailer are the headers behind the body, such as gRPC's status.
	Trailer http.Header `json:"-"`
	// Cut reports that the body was longer than what is kept of it.
	Cut bool `json:"cut,omitempty"`
	// Missing says why there is no answer, or "".
	Missing string `json:"missing,omitempty"`
}

// readAnswer reads what is kept of resp, and the rest of it.
func readAnswer(resp *http.Response, keep bool) (*Answer, error) {
	a := &Answer{Status: resp.StatusCode, Header: resp.Header}
	if keep {
		var b bytes.Buffer
		n, err := io.CopyN(&b, resp.Body, maxAnswer)
		a.Body, a.Cut = b.Bytes(), n == maxAnswer
		if err != nil && err != io.EOF {
			return nil, err
		}
	}
	_, err := io.Copy(io.Discard, resp.Body)
	a.Trailer = resp.Trailer
	return a, err
}

// An exchange is a request with its two answers. Whoever has the second one compares
// them.
type exchange struct {
	compare func(live, local *Answer)

	mu          sync.Mutex
	live, local *Answer
}

// answered notes an answer, the first of each side. A nil exchange is nobody's
// business.
func (x *exchange) answered(side func(*exchange) **Answer, a *Answer) {
	if x == nil {
		return
	}
	x.mu.Lock()
	at := side(x)
	if *at != nil {
		x.mu.Unlock()
		return
	}
	*at = a
	live, local := x.live, x.local
	x.mu.Unlock()
	if live != nil && local != nil {
		x.compare(live, local)
	}
}

func liveSide(x *exchange) **Answer  { return &x.live }
func localSide(x *exchange) **Answer { return &x.local }
