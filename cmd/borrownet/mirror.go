package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

// mirrorFlags say which inbound flows of the pod are copied.
type mirrorFlags struct {
	ports     []string
	selection selectionFlags
	proxy     bool
	added     bool // the command has these flags
}

func (m *mirrorFlags) add(cmd *cobra.Command) {
	m.added = true
	m.selection.add(cmd, "mirror-")
	cmd.Flags().BoolVar(&m.proxy, "mirror-proxy-protocol", false, "tell programs on this machine's loopback who the client is, by the PROXY protocol (version 2)")
	cmd.Flags().StringSliceVar(&m.ports, "mirror", nil, "`PORT[:LOCAL]`: copy what the pod gets on PORT to the program that listens on LOCAL (default: the same number); may be repeated")
}

// apply puts the flags into req.
func (m *mirrorFlags) apply(req *session.Request, name string) error {
	if !m.added {
		return nil
	}
	hint := name + " --mirror 8080:3000"
	seen := map[uint16]bool{}
	for _, v := range m.ports {
		pod, local, both := strings.Cut(v, ":")
		if !both {
			local = pod
		}
		port, err1 := parsePort(pod)
		to, err2 := parsePort(local)
		switch {
		case err1 != nil || err2 != nil:
			return usage(fmt.Sprintf("--mirror %q: not PORT, nor PORT:LOCAL with two port numbers", v), hint)
		case seen[port]:
			return usage(fmt.Sprintf("--mirror names port %d twice", port), hint)
		}
		seen[port] = true
		req.Mirror = append(req.Mirror, session.Mirror{Port: port, To: to})
	}
	if len(req.Mirror) > wire.MaxCapturePorts {
		return usage(fmt.Sprintf("--mirror: %d ports, at most %d can be mirrored", len(req.Mirror), wire.MaxCapturePorts), hint)
	}
	selection, err := m.selection.parse("mirror-", hint)
	if err != nil {
		return err
	}
	req.Select = session.Selection{Filters: m.selection.filters, Percent: selection.Percent, PerSecond: selection.PerSecond, Probes: selection.Probes}
	req.MirrorProxy = m.proxy
	if len(req.Mirror) == 0 && (m.proxy || m.selection.asked()) {
		return usage("--mirror-... without --mirror", hint)
	}
	return nil
}

// mirrorRows are what status says of mirroring.
func mirrorRows(m *session.MirrorStatus) [][2]string {
	if m == nil {
		return nil
	}
	var rows [][2]string
	for _, p := range m.Ports {
		rows = append(rows, [2]string{"mirror", fmt.Sprintf("port %d to %d, %s", p.Port, p.To, mirrorState(m, p.Port))})
	}
	if c := m.Capture; c != nil {
		text := fmt.Sprintf("%d packets, %d bytes to the pod", c.Packets, c.Bytes)
		if c.LostFlows+c.Dropped+c.Unreadable > 0 {
			text += fmt.Sprintf("; lost in the pod: %d flows (%d packets, %d bytes), %d packets by its kernel, %d unreadable", c.LostFlows, c.LostPackets, c.LostBytes, c.Dropped, c.Unreadable)
		}
		rows = append(rows, [2]string{"captured", text})
	}
	rows = append(rows, replayRows(m.Replay)...)
	if m.Starts > 1 {
		rows = append(rows, [2]string{"captures", fmt.Sprintf("%d: what was under way between them is lost", m.Starts)})
	}
	return rows
}

// mirrorState says where a port is captured, or why it is not.
func mirrorState(m *session.MirrorStatus, port uint16) string {
	if !m.Running || m.Capture == nil {
		if m.Problem != nil {
			return "not mirrored: " + m.Problem.Reason
		}
		return "not mirrored yet"
	}
	for _, p := range m.Capture.Ports {
		if p.Port != port {
			continue
		}
		var where []string
		for i, on := range []bool{p.Loopback, p.Pod} {
			if on && i < len(m.Capture.Interfaces) {
				where = append(where, m.Capture.Interfaces[i])
			}
		}
		text := "captured on " + strings.Join(where, " and ")
		if p.Why != "" {
			text += " (" + p.Why + ")"
		}
		return text
	}
	return "not mirrored yet"
}

// mirrorProblems warns of what is not mirrored, and says what mirroring does.
func (u *ui) mirrorProblems(st session.Status) {
	switch m := st.Mirror; {
	case m == nil:
	case m.Problem != nil:
		u.warn("not mirrored: "+m.Problem.Error(), m.Problem.Hint)
	default:
		for _, p := range m.Ports {
			u.say("mirroring port %d of the pod to port %d here: %s", p.Port, p.To, mirrorState(m, p.Port))
		}
		hint := "--read-only lets no HTTP request out that could change something, --deny no connection to a host or port"
		if st.Guard != nil {
			hint = ""
		}
		u.warn("the program here acts on copied requests with the pod's identity: what it writes, calls and charges happens, a second time", hint)
	}
}
