package main

import (
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/borrownet/borrownet/integration/apps/internal/observe"
)

const logUsage = `  log                    answers as without arguments, and prints each request
`

// told is a line of log.
type told struct {
	Path   string `json:"path"`
	Remote string `json:"remote"` // address and port the connection came from
}

// serveLogged answers what it saw on port 8080, and tells out.
func serveLogged(out io.Writer) error {
	var (
		mu   sync.Mutex // guards out
		line = json.NewEncoder(out)
		h    = observe.Handler(app)
	)
	srv := &http.Server{Addr: ":8080", ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		_ = line.Encode(told{r.URL.Path, r.RemoteAddr}) // nobody is left to tell
		mu.Unlock()
		h.ServeHTTP(w, r)
	})}
	return srv.ListenAndServe()
}
