// Command source is a part of the lab's GitOps controller: it serves the files of a
// directory, the archives of a Git-like source, to the other containers of its pod.
//
//	source DIR ADDRESS
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/borrownet/borrownet/integration/apps/internal/observe"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: source DIR ADDRESS")
		os.Exit(2)
	}
	os.Exit(observe.Run("source", serve(os.Args[1], os.Args[2])))
}

func serve(dir, addr string) observe.Server {
	return func(ctx context.Context) error {
		srv := &http.Server{Addr: addr, Handler: http.FileServer(http.Dir(dir)), ReadHeaderTimeout: 10 * time.Second}
		stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
		defer stop()
		if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}
}
