package main

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/netstack/replay"
)

// selectionFlags say which requests a local program gets.
type selectionFlags struct {
	filters []string
	sample  string
	rate    float64
	probes  bool
}

// add adds the flags to a command, with a prefix.
func (f *selectionFlags) add(cmd *cobra.Command, prefix string) {
	cmd.Flags().StringArrayVar(&f.filters, prefix+"filter", nil, "only requests that match the `CONDITION`, which may be given again: "+replay.FilterSyntax)
	cmd.Flags().StringVar(&f.sample, prefix+"sample", "100%", "take `PERCENT` of the requests, by chance")
	cmd.Flags().Float64Var(&f.rate, prefix+"rate", 0, "take at most `N` requests a second")
	cmd.Flags().BoolVar(&f.probes, prefix+"probes", false, "take health probes of the cluster too")
}

// asked reports whether any is given.
func (f *selectionFlags) asked() bool {
	return len(f.filters) > 0 || f.rate != 0 || f.probes || f.sample != "" && strings.TrimSuffix(f.sample, "%") != "100"
}

// parse reads the flags. again is the command line that an error's hint begins with.
func (f *selectionFlags) parse(prefix, again string) (replay.Selection, error) {
	s := replay.Selection{PerSecond: f.rate, Probes: f.probes}
	for _, text := range f.filters {
		filter, err := replay.ParseFilter(text)
		if err != nil {
			return s, usage("--"+prefix+"filter: "+err.Error(), again+" --"+prefix+"filter 'path=/api/*'")
		}
		s.Filters = append(s.Filters, filter)
	}
	percent, err := strconv.ParseFloat(strings.TrimSuffix(f.sample, "%"), 64)
	if err != nil || !(percent > 0 && percent <= 100) {
		return s, usage("--"+prefix+"sample "+f.sample+": not more than 0% and at most 100%", again+" --"+prefix+"sample 10%")
	}
	if percent < 100 {
		s.Percent = percent
	}
	if f.rate < 0 {
		return s, usage("--"+prefix+"rate: not a number of requests a second", again+" --"+prefix+"rate 100")
	}
	return s, nil
}
