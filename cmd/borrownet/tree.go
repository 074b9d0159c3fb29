package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// page is what a manual page is made of; hack/mkman reads it.
type page struct {
	Path     string     `json:"path"` // the command with those above it
	Usage    string     `json:"usage"`
	Short    string     `json:"short"`
	Long     string     `json:"long"`
	Example  string     `json:"example,omitempty"`
	Flags    []pageFlag `json:"flags,omitempty"`
	Commands []page     `json:"commands,omitempty"`
}

type pageFlag struct {
	Name    string `json:"name"`
	Short   string `json:"short,omitempty"` // one letter
	Value   string `json:"value,omitempty"` // what its value is called; "" = it has none
	Text    string `json:"text"`
	Default string `json:"default,omitempty"`
}

// tree prints all commands for programs that write documents.
func (a *app) tree() *cobra.Command {
	return &cobra.Command{
		Use: "__tree", Hidden: true, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.ui.encode("json", pageOf(cmd.Root())) },
	}
}

func pageOf(cmd *cobra.Command) page {
	cmd.InitDefaultHelpFlag()
	p := page{Path: cmd.CommandPath(), Short: cmd.Short, Long: cmd.Long, Example: cmd.Example}
	if cmd.Runnable() {
		p.Usage = cmd.UseLine()
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, text := pflag.UnquoteUsage(f)
		out := pageFlag{Name: f.Name, Short: f.Shorthand, Value: value, Text: text}
		if f.DefValue != "false" && f.DefValue != "[]" && f.DefValue != "0s" {
			out.Default = f.DefValue
		}
		p.Flags = append(p.Flags, out)
	})
	for _, c := range cmd.Commands() {
		if !c.Hidden && !strings.HasPrefix(c.Name(), "__") {
			p.Commands = append(p.Commands, pageOf(c))
		}
	}
	return p
}
