// Command istio-cni is Istio's CNI plugin, from its own module: it writes the
// redirect rules of a meshed pod, so that the pod needs no privileged container.
package main

import (
	"fmt"
	"os"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"

	"istio.io/istio/cni/pkg/plugin"
	"istio.io/istio/pkg/log"
)

func main() {
	if err := log.Configure(plugin.GetLoggingOptions(nil)); err != nil {
		fmt.Fprintln(os.Stderr, "istio-cni:", err)
		os.Exit(1)
	}
	calls := skel.CNIFuncs{Add: plugin.CmdAdd, Check: plugin.CmdCheck, Del: plugin.CmdDelete}
	err := skel.PluginMainFuncsWithError(calls, version.All, "istio-cni of the lab")
	_ = log.Sync() // of a log file that may be gone with its directory
	if err != nil {
		_ = err.Print() // on stdout, as the caller expects it
		os.Exit(1)
	}
}
