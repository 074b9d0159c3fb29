// Command orders is a sample app of the lab: a Service that the pod calls. It answers what
// it saw over HTTP and WebSocket on port 8080, and on 8081 for meshes, which speak one
// version of HTTP per port with an app; HTTPS on port 8443 and gRPC on port 9090.
package main

import (
	"fmt"
	"os"

	"github.com/borrownet/borrownet/integration/apps/internal/observe"
	"github.com/borrownet/borrownet/integration/apps/internal/rpc"
)

const app = "orders"

func main() {
	servers, err := observe.Web(app)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", app, err)
		os.Exit(1)
	}
	os.Exit(observe.Run(app, append(servers, observe.HTTP(app, ":8081", nil), rpc.Serve(app, ":9090"))...))
}
