package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/borrownet/borrownet/dnsproxy"
)

// explainName prints how a query was answered: one line per question, then what the program gets.
func (u *ui) explainName(e dnsproxy.Explanation) error {
	var b strings.Builder
	switch {
	case e.Local != "":
		fmt.Fprintf(&b, "%s %s: local, %s is asked of this machine's resolver\n", e.Name, e.Type, e.Local)
	case len(e.Search) > 0:
		fmt.Fprintf(&b, "%s %s: search %s, ndots %d\n", e.Name, e.Type, strings.Join(e.Search, " "), e.Ndots)
	default:
		fmt.Fprintf(&b, "%s %s: no search list\n", e.Name, e.Type)
	}
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, s := range e.Steps {
		if len(s.Attempts) == 0 {
			fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", s.Name, s.Type, stepFrom(s), stepResult(s))
		}
		for i, at := range s.Attempts {
			result := "no answer: " + at.Err
			if at.Err == "" {
				result = at.Rcode
			}
			if i == len(s.Attempts)-1 && at.Err == "" {
				result = stepResult(s)
			}
			fmt.Fprintf(w, "  %s\t%s\t%s %s %v\t%s\n", s.Name, s.Type, s.From, at.Network, at.Server.Addr(),
				result+", "+at.Took.Round(10*time.Microsecond).String())
		}
	}
	w.Flush()
	fmt.Fprintf(&b, "%s in %v", e.Rcode, e.Took.Round(10*time.Microsecond))
	if e.Err != "" {
		fmt.Fprintf(&b, ", by borrownet: %s", e.Err)
	}
	b.WriteByte('\n')
	for _, rr := range e.Answer {
		fmt.Fprintf(&b, "  %s\n", strings.Join(strings.Fields(rr), " "))
	}
	return u.print(b.String())
}

// stepFrom says where an answer without a question came from.
func stepFrom(s dnsproxy.Step) string {
	if s.From == dnsproxy.FromOverride {
		return "hosts in borrownet.yaml"
	}
	return string(s.From)
}

func stepResult(s dnsproxy.Step) string {
	if s.Err != "" {
		return "no answer: " + s.Err
	}
	text := s.Rcode
	if s.Rcode == "NOERROR" && s.Records == 0 {
		text = "no such record"
	}
	if s.TTL > 0 {
		text += fmt.Sprintf(", kept for %d s", s.TTL)
	}
	return text
}
