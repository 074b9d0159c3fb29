// Command orders is a sample app of the lab: a Service that the pod calls. It answers what
// it saw over HTTP on port 8080 and over HTTPS on port 8443.
package main

import (
	"fmt"
	"os"

	"github.com/borrownet/borrownet/integration/apps/internal/observe"
)

func main() {
	servers, err := observe.Web("orders")
	if err != nil {
		fmt.Fprintln(os.Stderr, "orders:", err)
		os.Exit(1)
	}
	os.Exit(observe.Run("orders", servers...))
}
