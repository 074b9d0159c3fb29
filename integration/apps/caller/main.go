// Command caller is a sample app of the lab that calls others: from pods that are to be
// seen from outside of a session, and from the laptop, to compare the answers. Without
// arguments it answers what it saw over HTTP on port 8080, until the end of the pod.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/borrownet/borrownet/integration/apps/internal/call"
	"github.com/borrownet/borrownet/integration/apps/internal/observe"
)

const app = "caller"

func main() {
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), "usage: caller [CALL]\n\n", call.Usage, loadUsage+logUsage)
	}
	flag.Parse()
	switch {
	case flag.Arg(0) == "load":
		if err := load(os.Stdout, flag.Args()[1:]); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", app, err)
			os.Exit(1)
		}
	case flag.Arg(0) == "log":
		fmt.Fprintf(os.Stderr, "%s: %v\n", app, serveLogged(os.Stdout))
		os.Exit(1)
	case flag.NArg() > 0:
		os.Exit(call.Main(app, flag.Args()))
	default:
		os.Exit(observe.Run(app, observe.HTTP(app, ":8080", nil)))
	}
}
