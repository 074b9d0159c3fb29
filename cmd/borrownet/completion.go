package main

import (
	"os"

	"github.com/spf13/cobra"
)

const completionLong = `Print a script that lets your shell complete commands and flags, and the names of what
there is: contexts, namespaces, workloads, pods, sessions, services of borrownet.yaml.

  bash:  source <(borrownet completion bash)          in ~/.bashrc
  zsh:   source <(borrownet completion zsh)           in ~/.zshrc
  fish:  borrownet completion fish | source           in ~/.config/fish/config.fish

As "kubectl borrownet" it runs when a link of the name kubectl-borrownet is on PATH, and
kubectl completes it by another:

  ln -s "$(command -v borrownet)" ~/.local/bin/kubectl-borrownet
  ln -s "$(command -v borrownet)" ~/.local/bin/kubectl_complete-borrownet`

func (a *app) completion() *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use: "completion bash|zsh|fish", Short: "print a completion script", Long: completionLong,
		ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage("one shell has to be named", cmd.CommandPath()+" bash")
			}
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(os.Stdout, true)
			case "zsh":
				return root.GenZshCompletion(os.Stdout)
			case "fish":
				return root.GenFishCompletion(os.Stdout, true)
			}
			return usage("no completion for "+args[0], cmd.CommandPath()+" bash, zsh or fish")
		},
	}
}
