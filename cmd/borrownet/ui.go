package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/daemon"
	"github.com/borrownet/borrownet/cmd/internal/doctor"
	"github.com/borrownet/borrownet/cmd/internal/encode"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/printable"
	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/dnsproxy"
	"github.com/borrownet/borrownet/hook"
)

// This file is the only one that prints to people. Its rules: what somebody
// asked for goes to standard output, everything else to standard error; nothing
// is capitalised, no sentence ends with a period; an error is one line, the hint
// after it is the next command to type.

// ui prints.
type ui struct {
	out, err io.Writer
	screen   bool // out is a terminal
	verbose  bool
	progress progressMode
}

func newUI(out, err io.Writer) *ui {
	f, ok := out.(*os.File)
	return &ui{out: out, err: err, screen: ok && term.IsTerminal(int(f.Fd())), progress: progressAuto}
}

// interactive reports whether a person sits at standard input and output.
func interactive() bool {
	return term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd()))
}

// fail prints an error and its hint.
func (u *ui) fail(f *fault.Error) {
	if u.emit(event{Error: f}) {
		return
	}
	fmt.Fprintln(u.err, "error:", line(f.Error())+mark(f.ID))
	u.hint(f.Hint)
}

// mark ends the line of an error that `explain` knows more about. It stands last, so
// that the line begins with "error: " for whoever looks for that.
func mark(id string) string {
	if id == "" {
		return ""
	}
	return " [" + line(id) + "]"
}

// line is text as one line.
func line(text string) string { return printable.Line(text) }

func (u *ui) hint(text string) {
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		switch {
		case line == "" && i == 0:
		case i == 0:
			fmt.Fprintln(u.err, "hint:", plain(line))
		default:
			fmt.Fprintln(u.err, "     ", plain(line))
		}
	}
}

// warn prints something that a person should know but that stops nothing.
func (u *ui) warn(text, hint string) {
	if u.emit(event{Warning: line(text), Hint: hint}) {
		return
	}
	fmt.Fprintln(u.err, "warning:", line(text))
	u.hint(hint)
}

// say prints what happens.
func (u *ui) say(format string, args ...any) {
	text := plain(fmt.Sprintf(format, args...))
	if u.progress == progressQuiet || u.emit(event{Message: text}) {
		return
	}
	fmt.Fprintln(u.err, text)
}

// detail prints what only a curious person wants to know.
func (u *ui) detail(format string, args ...any) {
	if u.verbose {
		u.say(format, args...)
	}
}

// print prints what a person asked for.
func (u *ui) print(text string) error {
	_, err := io.WriteString(u.out, plain(text))
	return err
}

// raw prints what was asked for to the byte, for a program or a file. A terminal gets it
// as from print.
func (u *ui) raw(text string) error {
	if u.screen {
		return u.print(text)
	}
	_, err := io.WriteString(u.out, text)
	return err
}

// plain replaces what could drive the terminal: texts of clusters are foreign.
func plain(s string) string { return printable.Text(s) }

// identity prints the line that says who one is now.
func (u *ui) identity(st session.Status) {
	if u.emit(event{Session: st.Session, Ready: &st}) {
		return
	}
	u.say("session %s is %s: %s", st.Session, st.State, strings.Join(identity(st), ", "))
	if st.Problem != nil { // it was lost again at once
		u.warn(st.Problem.Error(), st.Problem.Hint)
	}
	for _, f := range st.Files {
		if f.Why != "" {
			u.warn("files of the pod at "+f.Path+" ("+f.Volume+") are missing: "+f.Why, fileHint(f))
		}
	}
	switch {
	case st.Hook == hook.None:
		u.say("hook %s: no programs are in the session, borrownet forward serves those of this machine", hookText(st))
	case st.Hook.Relayed():
		u.say("hook %s: programs keep this machine's sockets, what leaves it is relayed", hookText(st))
	case st.Hook != hook.Seccomp:
		u.say("hook %s", hookText(st))
	}
	u.cloud(st)
	if c := st.Container; c != nil && c.Name != "" {
		u.say("containers become the pod by: docker run --network container:%s IMAGE", c.Name)
	}
	u.meshProblems([]session.Status{st})
	u.mirrorProblems(st)
}

func identity(st session.Status) []string {
	agent := "new"
	if st.Agent.Reused {
		agent = "reused"
	}
	out := []string{
		"context " + st.Target.Context,
		"namespace " + st.Target.Namespace,
		"pod " + st.Target.Pod,
		"container " + st.Target.Container,
		"node " + st.Target.Node,
		"pod ips " + joined(st),
		"agent " + st.Agent.Container + " (" + agent + ")",
		"round trip " + roundTrip(st),
	}
	if m := st.Mesh; m != nil {
		out = append(out, "identity "+identityText(*m), "mesh "+meshText(*m))
	}
	return out
}

// identityText is who the mesh says one is.
func identityText(m session.Mesh) string {
	switch {
	case m.Identity != "" && m.Path == session.ThroughProxy:
		return m.Identity
	case m.Identity != "":
		return "none: " + m.Identity + " is what " + m.Proxy + " presents, and the probe went past it"
	case m.Proxy == "":
		return "none but the pod's address"
	case m.Note != "":
		return "unknown: " + m.Note
	}
	return "unknown"
}

// meshText is how the probe left the pod.
func meshText(m session.Mesh) string {
	switch {
	case m.Path == session.ThroughProxy && m.Proxy == "":
		return fmt.Sprintf("a probe to %s went through %s in the pod", m.Probe, m.Listener)
	case m.Path == session.ThroughProxy:
		return fmt.Sprintf("a probe to %s went through %s at %s", m.Probe, m.Proxy, m.Listener)
	case m.Path == session.Direct && m.Proxy == "":
		return "none: the pod has no sidecar"
	case m.Path == session.Direct:
		return fmt.Sprintf("BYPASSED: a probe to %s went past %s", m.Probe, m.Proxy)
	}
	return "unknown: " + m.Note
}

func joined(st session.Status) string {
	var ips []string
	for _, ip := range st.Target.PodIPs {
		ips = append(ips, ip.String())
	}
	return strings.Join(ips, " ")
}

func roundTrip(st session.Status) string {
	if st.RoundTrip == 0 {
		return "no answer"
	}
	return st.RoundTrip.Round(10 * time.Microsecond).String()
}

func uptime(st session.Status) string {
	if st.Since.IsZero() {
		return ""
	}
	return time.Since(st.Since).Round(time.Second).String()
}

// status prints all that is known of sessions.
func (u *ui) status(list []session.Status) error {
	var b strings.Builder
	for i, st := range list {
		if i > 0 {
			b.WriteByte('\n')
		}
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		for _, row := range statusRows(st) {
			if row[1] != "" {
				fmt.Fprintf(w, "%s\t%s\n", row[0], cell(row[1]))
			}
		}
		w.Flush()
	}
	return u.print(b.String())
}

// carrierText says what carries calls, and what bulk.
func carrierText(st session.Status) string {
	switch {
	case st.Carrier == kube.ProtocolAttach:
		return st.Carrier + ", because port-forward is refused" + notDirect(st)
	case st.Carrier == session.ProtocolDirect && st.BulkCarrier == session.ProtocolDirect:
		return "direct, over UDP to the pod's address"
	case st.BulkCarrier == "":
		return st.Carrier + notDirect(st)
	}
	return fmt.Sprintf("%s for calls, %s for bulk%s", st.Carrier, st.BulkCarrier, notDirect(st))
}

// notDirect says why the link is not over UDP, if it was to be.
func notDirect(st session.Status) string {
	if st.NotDirect == "" {
		return ""
	}
	return "; not direct: " + st.NotDirect
}

// meshProblems warns of what goes past a mesh.
func (u *ui) meshProblems(list []session.Status) {
	for _, st := range list {
		if st.Mesh != nil && st.Mesh.Problem != nil {
			u.warn(st.Mesh.Problem.Error(), st.Mesh.Problem.Hint)
		}
	}
}

func statusRows(st session.Status) [][2]string {
	rows := [][2]string{{"session", st.Session}, {"state", string(st.State)}}
	if st.Problem != nil {
		rows = append(rows, [2]string{"problem", st.Problem.Error()}, [2]string{"hint", st.Problem.Hint})
	}
	if st.State == session.Connecting {
		return rows
	}
	rows = append(rows,
		[2]string{"context", st.Target.Context}, [2]string{"namespace", st.Target.Namespace},
		[2]string{"pod", st.Target.Pod}, [2]string{"container", st.Target.Container},
		[2]string{"node", st.Target.Node}, [2]string{"pod ips", joined(st)},
		[2]string{"hook", hookText(st)}, [2]string{"device", st.Device}, [2]string{"carrier", carrierText(st)})
	if m := st.Mesh; m != nil {
		rows = append(rows, [2]string{"identity", identityText(*m)}, [2]string{"mesh", meshText(*m)})
	}
	if st.Moved != nil {
		rows = append(rows, [2]string{"moved", movedText(*st.Moved)})
	}
	if st.State != session.Lost && st.State != session.Reattaching {
		rows = append(rows, [2]string{"round trip", roundTrip(st)})
	}
	rows = append(rows, cloudRows(st)...)
	rows = append(rows, fileRows(st.Files)...)
	rows = append(rows, mirrorRows(st.Mirror)...)
	rows = append(rows, [2]string{"guard", guardText(st.Guard)})
	rows = append(rows,
		[2]string{"bytes", fmt.Sprintf("%d in, %d out", st.Traffic.BytesIn, st.Traffic.BytesOut)},
		[2]string{"flows", fmt.Sprint(st.Traffic.Flows)},
		[2]string{"names", names(st.DNS)},
		[2]string{"ports", portsText(st)},
		[2]string{"containers", containerText(st.Container)},
		[2]string{"local", localText(st)},
		[2]string{"redirect", redirectText(st)},
		[2]string{"remote", remoteText(st)},
		[2]string{"drops", drops(st.Traffic.Drops)},
		[2]string{"agent", agentText(st)},
		[2]string{"agent drops", agentDrops(st.Agent.Drops)},
		[2]string{"ping", pingText(st.Agent.Ping)},
		[2]string{"uptime", uptime(st)},
		[2]string{"redials", fmt.Sprint(st.Redials)})
	return rows
}

// movedText is how the session came to where it is.
func movedText(m session.Move) string {
	from := "from pod " + m.From
	if m.From == m.To {
		from = "to a new agent"
	}
	return fmt.Sprintf("%s, %s ago: %s", from, time.Since(m.At).Round(time.Second), m.Why)
}

// containerText says by which container others are the pod.
func containerText(c *session.ContainerStatus) string {
	if c == nil {
		return ""
	}
	text := "none has joined"
	if c.Joined {
		text = "joined, device " + c.Device
		for _, n := range c.Networks {
			text += ", network " + n.String()
		}
	}
	if c.Name != "" {
		text = c.Name + ": " + text
	}
	if c.Problem != nil {
		text += ", problem: " + c.Problem.Error()
	}
	return text
}

// fileRows are the pod's volumes, and what of them is missing.
func fileRows(files []session.FileStatus) [][2]string {
	var rows [][2]string
	for _, f := range files {
		text := f.Path + " (" + f.Volume + ")"
		if f.Why != "" {
			text += ", missing: " + f.Why
		}
		rows = append(rows, [2]string{"files", text})
	}
	return rows
}

// fileHint says what would let the agent read what it may not read: it never is root.
func fileHint(f session.FileStatus) string {
	if !f.Denied {
		return ""
	}
	return "an fsGroup in the pod's securityContext lets the agent read them as well, and so does defaultMode 0444 of the volume"
}

// names sums up the DNS queries of programs.
func names(s dnsproxy.Stats) string {
	text := fmt.Sprintf("%d queries, %d from the cache", s.Queries, s.Cached)
	if s.Local > 0 {
		text += fmt.Sprintf(", %d by this machine's resolver", s.Local)
	}
	if n := s.Failed + s.Dropped; n > 0 {
		text += fmt.Sprintf(", %d without an answer", n)
	}
	return text
}

// hookText names the rung, and why it is not a better one.
func hookText(st session.Status) string {
	if st.HookNote == "" {
		return string(st.Hook)
	}
	return string(st.Hook) + " (" + st.HookNote + ")"
}

func drops(m map[string]uint64) string {
	if len(m) == 0 {
		return "none"
	}
	var parts []string
	for reason, n := range m {
		parts = append(parts, fmt.Sprintf("%d %s", n, reason))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// agentDrops is empty as long as there is nothing to say.
func agentDrops(m map[string]uint64) string {
	if len(m) == 0 {
		return ""
	}
	return drops(m)
}

func agentText(st session.Status) string {
	text := st.Agent.Container + ", version " + st.Agent.Version
	if !st.Agent.Expires.IsZero() {
		text += ", ends in " + time.Until(st.Agent.Expires).Round(time.Second).String() + " at the latest"
	}
	if u := st.Agent.Usage; u.Resident > 0 {
		text += fmt.Sprintf(", takes %d MiB and has used %v of CPU", u.Resident>>20, u.CPU.Round(10*time.Millisecond))
	}
	return text
}

func pingText(why string) string {
	if why == "" {
		return ""
	}
	return "not possible in this pod: " + why
}

// checks prints what doctor found: a line each, and below it what to do.
func (u *ui) checks(list []doctor.Check) error {
	var b strings.Builder
	counts := map[doctor.State]int{}
	for _, c := range list {
		counts[c.State]++
		fmt.Fprintf(&b, "%-4s  %-12s %s\n", c.State, c.Name, line(c.Found)+mark(c.ID))
		for i, text := range strings.Split(strings.TrimSpace(c.Hint), "\n") {
			switch {
			case text == "" && i == 0:
			case i == 0:
				fmt.Fprintf(&b, "      hint: %s\n", text)
			default:
				fmt.Fprintf(&b, "            %s\n", text)
			}
		}
	}
	fmt.Fprintf(&b, "%d ok, %d warnings, %d failures\n", counts[doctor.OK], counts[doctor.Warn], counts[doctor.Fail])
	return u.print(b.String())
}

// encode prints v for another program.
func (u *ui) encode(format string, v any) error {
	text, err := encode.Text(format, v)
	if err != nil {
		return err
	}
	return u.raw(string(text))
}

// downed prints that a session has ended.
func (u *ui) downed(d daemon.Downed) {
	if d.Warning != nil {
		u.warn(d.Warning.Error(), d.Warning.Hint)
	}
	u.say("session %s is down", d.Session)
}

// clear empties the terminal before the next picture of a watch.
func (u *ui) clear() {
	if interactive() {
		fmt.Fprint(u.out, "\x1b[H\x1b[2J")
		return
	}
	fmt.Fprintln(u.out)
}

// remark prints a remark of the demo, as a comment between its commands.
func (u *ui) remark(text string) {
	fmt.Fprintln(u.out)
	for line := range strings.Lines(text) {
		fmt.Fprintln(u.out, bold(strings.TrimRight("# "+plain(strings.TrimRight(line, "\n")), " ")))
	}
}

// typed prints a command as a person types it.
func (u *ui) typed(argv []string) { fmt.Fprintln(u.out, "$ "+plain(strings.Join(argv, " "))) }

// bold makes text stand out on a terminal.
func bold(text string) string {
	if !term.IsTerminal(int(os.Stdout.Fd())) || os.Getenv("NO_COLOR") != "" {
		return text
	}
	return "\x1b[1m" + text + "\x1b[0m"
}
