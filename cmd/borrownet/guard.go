package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/cmd/internal/session"
)

// guardFlags say what programs may not do to the cluster.
type guardFlags struct {
	readOnly bool
	deny     []string
}

func (g *guardFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&g.readOnly, "read-only", false, "let no HTTP request out that could change something: GET, HEAD, OPTIONS and TRACE pass, others are answered 403; HTTP/2 is refused, TLS cannot be looked into and passes")
	cmd.Flags().StringSliceVar(&g.deny, "deny", nil, "`DESTINATION` that programs may not connect to by TCP: HOST, ADDRESS or CIDR, each with :PORT or without, or :PORT; may be repeated")
}

// apply puts the flags into req.
func (g *guardFlags) apply(req *session.Request, name string) error {
	for _, text := range g.deny {
		if _, err := session.ParseDenial(text); err != nil {
			return usage("--deny: "+err.Error(), name+" --deny payments:443")
		}
	}
	req.ReadOnly, req.Deny = g.readOnly, g.deny
	return nil
}

// guardText says what was kept from leaving the pod.
func guardText(g *session.GuardStatus) string {
	if g == nil {
		return ""
	}
	var out []string
	if g.ReadOnly {
		out = append(out, fmt.Sprintf("read-only, %d requests refused", g.Refused))
	}
	if len(g.Deny) > 0 {
		out = append(out, fmt.Sprintf("%s denied, %d connections refused", strings.Join(g.Deny, " "), g.Denied))
	}
	if g.Last != "" {
		out = append(out, "the last: "+g.Last)
	}
	return strings.Join(out, ", ")
}
