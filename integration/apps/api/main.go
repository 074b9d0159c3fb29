// Command api is a sample app of the lab: the pod that is borrowed. It answers what
// it saw over HTTP on port 8080 and over HTTPS on port 8443. With arguments it makes a
// call or relays instead, from inside of its pod, where there is no other program.
package main

import (
	"fmt"
	"os"

	"github.com/borrownet/borrownet/integration/apps/internal/call"
	"github.com/borrownet/borrownet/integration/apps/internal/observe"
)

const app = "api"

func main() {
	if len(os.Args) > 2 && os.Args[1] == "relay" {
		if err := relay(os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", app, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 {
		os.Exit(call.Main(app, os.Args[1:]))
	}
	servers, err := observe.Web(app)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", app, err)
		os.Exit(1)
	}
	os.Exit(observe.Run(app, servers...))
}
