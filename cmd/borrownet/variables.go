package main

import (
	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/cmd/internal/launch"
)

// variables is a help topic.
func variables() *cobra.Command {
	return &cobra.Command{Use: "variables", Short: "variables that are not taken from a pod (a help topic)", Long: variablesText()}
}

// variablesText is the list of those that Excluded names.
func variablesText() string {
	const width = 84
	text := `Programs have the environment that the pod's container declares, without these. They
describe this machine or a language's runtime here, make programs run code of who set
them, or are proxies; * stands for anything. "borrownet run --pod-env NAME" takes one
all the same, -v says which were left out.
`
	room := 0
	for _, name := range launch.Excluded() {
		if room -= len(name) + 1; room < 0 {
			text += "\n "
			room = width - len(name) - 2
		}
		text += " " + name
	}
	return text
}
