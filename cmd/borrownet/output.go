package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/cmd/internal/encode"
)

// formatWide is the value of -o for a table with more columns.
const formatWide = "wide"

// outputFlag is -o: how a command prints what it was asked for.
type outputFlag struct {
	value   string
	formats []string
}

// add adds the flag for encode.Formats and more.
func (o *outputFlag) add(cmd *cobra.Command, more ...string) {
	o.formats = append(slices.Clone(encode.Formats), more...)
	cmd.Flags().StringVarP(&o.value, "output", "o", "", "`FORMAT`: "+either(o.formats))
	complete(cmd, "output", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return o.formats, cobra.ShellCompDirectiveNoFileComp
	})
}

// check refuses a format that the command does not have. line is the command.
func (o *outputFlag) check(line string) error {
	if o.value == "" || slices.Contains(o.formats, o.value) {
		return nil
	}
	return usage("-o "+o.value+": not "+either(o.formats), line+" -o json")
}

// encoded reports whether the output is for another program.
func (o *outputFlag) encoded() bool { return slices.Contains(encode.Formats, o.value) }

// wide reports whether more columns are wanted.
func (o *outputFlag) wide() bool { return o.value == formatWide }

// either lists words as "a, b or c".
func either(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
