// Borrownet lets a program on this machine be a pod: its connections leave
// through the pod's own network, it resolves names as the pod does and has the
// pod's environment. `borrownet help` says how.
package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/cmd/internal/build"
	"github.com/borrownet/borrownet/hook/netns"
	"github.com/borrownet/borrownet/hook/supervisor"
)

// The names by which kubectl runs its plugin, and asks for the plugin's completions.
const (
	kubectlPlugin    = "kubectl-borrownet"
	kubectlCompletes = "kubectl_complete-borrownet"
)

// version is set by the linker; see package build.
var version string

func main() {
	os.Exit(run(os.Args))
}

// run dispatches the verbs that borrownet starts itself with before anything
// else: they have to be quick, and their arguments are not a person's.
func run(argv []string) int {
	if filepath.Base(argv[0]) == kubectlCompletes {
		argv = append([]string{kubectlPlugin, cobra.ShellCompRequestCmd}, argv[1:]...)
	}
	if len(argv) > 1 {
		switch argv[1] {
		case verbNetns:
			return netnsMain(argv[2:])
		case verbGuest:
			return netns.GuestMain(argv[2:])
		case verbExec:
			return supervisor.ShimMain(argv[2:])
		case verbDaemon:
			return daemonMain(build.Version(version), argv[2:])
		}
	}
	return newApp(argv, build.Version(version)).execute()
}
