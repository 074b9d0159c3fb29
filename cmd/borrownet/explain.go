package main

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/hook"
)

func (a *app) explain() *cobra.Command {
	cmd := &cobra.Command{
		Use: "explain [NAME | CODE | ERROR]", Short: "say what is routed how and why, or what an exit code or an error means", Long: explainLong, Example: explainExample, Args: atMostOne,
		ValidArgsFunction: a.sessionNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && errorName.MatchString(args[0]) {
				text, known := explainError(args[0])
				if !known {
					return usage("there is no error "+args[0], a.name()+" help errors")
				}
				return a.ui.print(text)
			}
			if len(args) == 1 {
				if code, err := strconv.Atoi(args[0]); err == nil {
					text, known := explainCode(code)
					if !known {
						return usage(fmt.Sprintf("borrownet has no exit code %d", code), "of run and shell it is the command's own; all others: "+a.name()+" help exit-codes")
					}
					return a.ui.print(text)
				}
			}
			client, dir, err := a.client()
			if err != nil {
				return err
			}
			defer dir.Remove()
			ctx, stop := interruptible()
			defer stop()
			list, err := a.statuses(ctx, client, args)
			if err != nil {
				return err
			}
			return a.ui.explain(list)
		},
	}
	cmd.AddCommand(a.explainDNS())
	return cmd
}

// errorName is how an error is called.
var errorName = regexp.MustCompile(`^\[?(?i:bn)[0-9]{4}\]?$`)

// explain prints where connections of programs go.
func (u *ui) explain(list []session.Status) error {
	var b strings.Builder
	for i, st := range list {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "session %s is %s: programs started in it are pod %s/%s of context %s, the rest of this machine is not\n\n",
			line(st.Session), st.State, line(st.Target.Namespace), line(st.Target.Pod), line(st.Target.Context))
		fmt.Fprintf(&b, "hook %s\n", hookReason(st))
		w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
		fmt.Fprintln(w, "\nto\tgoes")
		for _, r := range routes(st) {
			fmt.Fprintf(w, "%s\t%s\n", cell(r[0]), cell(r[1]))
		}
		if err := w.Flush(); err != nil {
			return err
		}
		if ports := portsText(st); ports != "" {
			fmt.Fprintf(&b, "\nports of its programs on this machine's loopback: %s\n", line(ports))
		}
	}
	return u.print(b.String())
}

// rungTexts say what the rungs do.
var rungTexts = map[hook.Rung]string{
	hook.Seccomp:      "the programs' sockets are made in a network namespace of the session",
	hook.Netns:        "programs run inside a network namespace of the session",
	hook.Preload:      "a library in programs fetches sockets of a network namespace of the session; what it cannot be in runs inside that",
	hook.Relay:        "programs keep this machine's sockets, what leaves it is relayed",
	hook.PreloadRelay: "programs keep this machine's sockets, a library in them has what leaves it relayed; what it cannot be in is refused",
	hook.None:         "no programs are in the session; borrownet forward serves those that use a port or a proxy of this machine",
}

// hookReason names the rung, and why programs are on it.
func hookReason(st session.Status) string {
	name, text := string(st.Hook), rungTexts[st.Hook]
	switch {
	case st.Hook == hook.Seccomp:
		return name + ", the best there is: " + text
	case st.HookNote == "asked for":
		return name + ", as asked for with --hook: " + text
	}
	return name + ": " + text + "\n  why not a better one: " + line(st.HookNote) + "\n  borrownet doctor --offline says what would allow it"
}

// routes are destinations, the first that holds first, and where connections to
// them go.
func routes(st session.Status) [][2]string {
	loopback := "this machine; what programs of the session listen on comes first"
	if st.Hook.Relayed() {
		loopback = "this machine"
	}
	rows := [][2]string{{"127.0.0.0/8, ::1, localhost", loopback}}
	for _, prefix := range st.Local {
		rows = append(rows, [2]string{prefix.String(), "this machine's own network, as asked for with --local"})
	}
	for _, name := range st.LocalNames {
		rows = append(rows, [2]string{"names in " + strings.TrimSuffix(name, "."), "this machine's own resolver, as asked for with --local"})
	}
	rows = append(rows,
		[2]string{"this machine's name servers, port 53", "borrownet, which asks the pod's name servers from the pod, with its search list"},
		[2]string{"multicast, broadcast", "nowhere: network unreachable"})
	if !hasIPv6(st) {
		rows = append(rows, [2]string{"other IPv6", "nowhere: the pod has no IPv6 address"})
	}
	for _, id := range st.Cloud.Identities {
		if len(id.Endpoints) > 0 {
			rows = append(rows, [2]string{metadataText(id.Endpoints), "the pod: there it gets its identity of " + id.System})
		}
	}
	if len(st.Metadata) > 0 {
		rows = append(rows, [2]string{metadataText(st.Metadata), "the pod, as asked with --metadata; may hand out the identity of its node"})
	}
	return append(rows,
		[2]string{"169.254.0.0/16 and other metadata services, the kubelet of the pod's node", "refused by the agent: no route to host"},
		[2]string{"all else", fmt.Sprintf("the pod: from %s, through its mesh proxy if it has one, subject to its policies", joined(st))})
}

func hasIPv6(st session.Status) bool {
	return slices.ContainsFunc(st.Target.PodIPs, func(a netip.Addr) bool { return a.Is6() })
}
