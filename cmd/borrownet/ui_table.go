package main

import (
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

// table prints rows below a head, each column as wide as its longest cell.
func (u *ui) table(head []string, rows [][]string) error {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	for _, row := range append([][]string{head}, rows...) {
		for i, text := range row {
			row[i] = cell(text)
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	w.Flush()
	return u.print(b.String())
}

// sessionTable prints a line per session.
func (u *ui) sessionTable(list []session.Status) error {
	head := []string{"SESSION", "STATE", "CONTEXT", "NAMESPACE", "POD", "CONTAINER", "NODE", "HOOK", "CARRIER", "ROUND-TRIP", "FLOWS", "IN", "OUT", "IDENTITY", "UPTIME"}
	var rows [][]string
	for _, st := range list {
		identity := ""
		if st.Mesh != nil {
			identity = st.Mesh.Identity
		}
		trip := ""
		if st.RoundTrip > 0 {
			trip = roundTrip(st)
		}
		rows = append(rows, []string{
			st.Session, string(st.State), st.Target.Context, st.Target.Namespace, st.Target.Pod, st.Target.Container, st.Target.Node, string(st.Hook), st.Carrier,
			trip, strconv.Itoa(st.Traffic.Flows), strconv.FormatUint(st.Traffic.BytesIn, 10), strconv.FormatUint(st.Traffic.BytesOut, 10), identity, uptime(st),
		})
	}
	return u.table(head, rows)
}

// offers prints what can be borrowed, and where that is.
func (u *ui) offers(list *kube.Offers, namespaces, wide bool) error {
	u.say("context %s, %s", line(list.Context), line(surroundingsText(list.Namespaces)))
	head := []string{"TARGET", "READY", "MESH", "UP", "BORROWED BY"}
	if namespaces {
		head = append([]string{"NAMESPACE"}, head...)
	}
	if wide {
		head = append(head, "CONTAINER", "PODS", "NODES")
	}
	var rows [][]string
	for _, o := range list.Targets {
		works := "yes"
		if o.Problem != "" {
			works = "no: " + o.Problem
		}
		row := []string{o.Ref, fmt.Sprintf("%d/%d", o.Ready, o.Pods), o.Mesh, works, borrowersText(o.Borrowers)}
		if namespaces {
			row = append([]string{o.Namespace}, row...)
		}
		if wide {
			row = append(row, o.Container, strings.Join(o.PodNames, ","), strings.Join(o.Nodes, ","))
		}
		rows = append(rows, row)
	}
	if err := u.table(head, rows); err != nil {
		return err
	}
	for _, s := range list.Namespaces {
		if len(s.Missing) > 0 {
			u.warn(fmt.Sprintf("you may not %s in namespace %s, which up needs", strings.Join(s.Missing, ", "), s.Name), "borrownet doctor -n "+s.Name+" names who can grant it, and how")
		}
	}
	return nil
}

// surroundingsText says where the targets are.
func surroundingsText(list []kube.Surrounding) string {
	if len(list) != 1 {
		levels := map[string]int{}
		for _, s := range list {
			levels[s.PodSecurity]++
		}
		var parts []string
		for _, level := range []string{"restricted", "baseline", "privileged", "default", "unknown"} {
			if n := levels[level]; n > 0 {
				parts = append(parts, fmt.Sprintf("%d %s", n, level))
			}
		}
		return fmt.Sprintf("%d namespaces, Pod Security: %s", len(list), strings.Join(parts, ", "))
	}
	s := list[0]
	rights := "all rights that up needs"
	switch {
	case !s.RightsKnown:
		rights = "rights unknown"
	case len(s.Missing) > 0:
		rights = "rights are missing"
	}
	return fmt.Sprintf("namespace %s, Pod Security %s, %s", s.Name, s.PodSecurity, rights)
}

// borrowersText says who has agents on a target.
func borrowersText(list []kube.Borrower) string {
	var parts []string
	for _, b := range list {
		who := b.Client
		switch {
		case b.Session != "":
			who = "you (session " + b.Session + ")"
		case who == "":
			who = "key " + b.ClientKey[:min(len(b.ClientKey), 8)]
		}
		switch b.State {
		case kube.Borrowed:
		case kube.Occupancy:
			if b.Session == "" {
				who += " (or parked: its log may not be read)"
			}
		default:
			who += " (" + string(b.State) + ")"
		}
		parts = append(parts, who)
	}
	return strings.Join(parts, ", ")
}
