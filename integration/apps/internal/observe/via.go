package observe

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// hopTimeout bounds a call of the next app, with all that it calls.
const hopTimeout = 10 * time.Second

// Hop is the answer of GET /via/: what an app saw of the call, and what the next app of the
// chain answered.
type Hop struct {
	Seen
	Next json.RawMessage `json:"next,omitempty"` // a Hop; absent at the end of the chain
}

// via calls the first of the hosts in its path and has that call the others.
func via(w http.ResponseWriter, r *http.Request, seen Seen) {
	hop := Hop{Seen: seen}
	if hosts := r.PathValue("hosts"); hosts != "" {
		next, others, _ := strings.Cut(hosts, "/")
		var err error
		if hop.Next, err = hopTo(r.Context(), "http://"+next+"/via/"+others); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
	}
	answer(w, hop)
}

// hopTo returns the next app's answer.
func hopTo(ctx context.Context, url string) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, hopTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: %s", url, res.Status)
	}
	var next json.RawMessage
	if err := json.NewDecoder(res.Body).Decode(&next); err != nil {
		return nil, fmt.Errorf("get %s: %w", url, err)
	}
	return next, nil
}
