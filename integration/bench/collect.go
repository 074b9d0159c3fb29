package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The servers' ports of integration/apps/ledger.
var ports = []string{"7000", "7001", "7002"} // echo, sink, source

// options say how much is measured.
type options struct {
	group   string // or "" for all
	rounds  int
	seconds float64 // of each bulk transfer
	// Rows of pairs: how many at least, at most, and how long a half is.
	pairs, maxPairs int
	window          time.Duration
	kills           int // of carriers
	developers      int // many
	sessions        int // of each of them
}

// groups are what can be measured alone, in the order they are measured.
var groups = []struct {
	name    string
	collect func(samples, options) error
}{
	{"up", samples.collectUp},
	{"link", samples.collectSession},
	{"direct", samples.collectDirect},
	{"cost", samples.collectCost},
	{"kill", samples.collectKills},
	{"delay", samples.collectDelays},
	{"dns", samples.collectNames},
	{"live", samples.collectLive},
	{"mirror", samples.collectMirror},
	{"move", samples.collectMove},
	{"containers", samples.collectContainers},
	{"many", samples.collectMany},
}

func groupNames() string {
	var names []string
	for _, g := range groups {
		names = append(names, g.name)
	}
	return strings.Join(names, ", ")
}

// collect takes every sample.
func (s samples) collect(o options) error {
	found := false
	for _, g := range groups {
		if o.group != "" && o.group != g.name {
			continue
		}
		found = true
		if err := g.collect(s, o); err != nil {
			return fmt.Errorf("measure %s: %w", g.name, err)
		}
	}
	if !found {
		return fmt.Errorf("no group of rows is called %q; there are %s", o.group, groupNames())
	}
	return nil
}

// collectSession measures what one session does: its link, its hook and its memory.
func (s samples) collectSession(o options) error {
	defer borrownet("down", "--all", "--stop-agent")
	if _, err := borrownet("up", "-d", "-n", "shop", "--pod", "api"); err != nil {
		return err
	}
	for round := range o.rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, o.rounds)
		if err := s.collectLinks(o.seconds); err != nil {
			return err
		}
	}
	for range 10 * o.rounds {
		start := time.Now()
		if _, err := borrownet("run", "--", "true"); err != nil {
			return err
		}
		s.add("hook.run-true", "borrownet", milliseconds(time.Since(start)))
	}
	time.Sleep(idleAfter)
	rss, err := daemonRSS()
	if err != nil {
		return err
	}
	s.add("mem.daemon.idle", "borrownet", rss)
	return nil
}

// collectUp times the first up, with the image on the node, and the second,
// which takes the parked agent again.
func (s samples) collectUp(o options) error {
	for range o.rounds {
		if _, err := borrownet("down", "--all", "--stop-agent"); err != nil {
			return err
		}
		for _, id := range []string{"up.first", "up.second"} {
			start := time.Now()
			if _, err := borrownet("up", "-d", "-n", "shop", "--pod", "api"); err != nil {
				return err
			}
			s.add(id, "borrownet", time.Since(start).Seconds())
			if id == "up.first" {
				if _, err := borrownet("down", "--all"); err != nil {
					return err
				}
			}
		}
		if _, err := borrownet("down", "--all", "--stop-agent"); err != nil {
			return err
		}
	}
	return nil
}

// raws are the ways of kubectl port-forward.
var raws = []struct{ subject, websockets string }{{"raw-spdy", "false"}, {"raw-ws", "true"}}

// collectLinks gives every subject one turn.
func (s samples) collectLinks(seconds float64) error {
	got, err := takeTurns(seconds)
	if err != nil {
		return err
	}
	for subject, m := range got {
		s.addLink("link", subject, m)
	}
	inside := got["borrownet"]
	s.add("hook.socket.p50", "borrownet", inside.Socket)
	s.add("hook.listen.p50", "borrownet", inside.Listen)
	s.add("hook.untrapped", "borrownet", inside.Untrapped-got["raw-spdy"].Untrapped)
	return nil
}

// takeTurns measures the session that there is, and raw port-forward, one after the other.
func takeTurns(seconds float64) (map[string]Sample, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	length := strconv.FormatFloat(seconds, 'g', -1, 64)
	service := []string{"ledger:" + ports[0], "ledger:" + ports[1], "ledger:" + ports[2]}
	inside, err := turn(append(append([]string{"borrownet", "run", "--", self, "measure"}, service...), length))
	if err != nil {
		return nil, err
	}
	got := map[string]Sample{"borrownet": inside}
	for _, raw := range raws {
		local, stop, err := portForward(os.Environ(), raw.websockets, "deploy/ledger", ports...)
		if err != nil {
			return nil, err
		}
		outside, err := turn(append(append([]string{self, "measure"}, local...), length))
		stop()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", raw.subject, err)
		}
		got[raw.subject] = outside
	}
	return got, nil
}

// addLink adds the rows of a link, whose names begin alike.
func (s samples) addLink(link, subject string, m Sample) {
	s.add(link+".up.1", subject, m.Up)
	s.add(link+".down.1", subject, m.Down)
	s.add(link+".up.16", subject, m.UpMany)
	s.add(link+".down.16", subject, m.DownMany)
	for _, load := range m.Loaded {
		s.add(link+".rtt.loaded.p50", subject, load.P50)
		s.add(link+".rtt.loaded.p99", subject, load.P99)
		s.add(link+".rtt.loaded.bulk", subject, load.Bulk)
	}
	s.add(link+".rtt.idle.p50", subject, m.RTT)
	s.add(link+".connect.p50", subject, m.Connect)
}

// turn runs one measurement in a process of its own.
func turn(argv []string) (Sample, error) {
	var m Sample
	out, err := output(argv)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(out, &m); err != nil {
		return m, fmt.Errorf("%q: %w", argv, err)
	}
	return m, nil
}

func borrownet(args ...string) ([]byte, error) { return output(append([]string{"borrownet"}, args...)) }

func output(argv []string) ([]byte, error) { return outputIn(nil, argv) }

// outputIn runs a program with the environment env; nil is this process's.
func outputIn(env, argv []string) ([]byte, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%q: %w\n%s", argv, err, &stderr)
	}
	return out, nil
}

var forwarding = regexp.MustCompile(`Forwarding from (127\.0\.0\.1:\d+) -> (\d+)`)

// portForward starts kubectl port-forward to the ledger, in an environment, and returns the local
// addresses of its ports and a function that ends it.
func portForward(env []string, websockets, target string, ports ...string) ([]string, func(), error) {
	argv := []string{"port-forward", "-n", "shop", target}
	for _, p := range ports {
		argv = append(argv, ":"+p)
	}
	cmd := exec.Command("kubectl", argv...)
	cmd.Env = append(slices.Clone(env), "KUBECTL_PORT_FORWARD_WEBSOCKETS="+websockets)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("kubectl port-forward: %w", err)
	}
	stop := func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
	local := make(map[string]string)
	lines := bufio.NewScanner(stdout)
	for len(local) < len(ports) && lines.Scan() {
		if m := forwarding.FindStringSubmatch(lines.Text()); m != nil {
			local[m[2]] = m[1]
		}
	}
	if len(local) < len(ports) {
		stop()
		return nil, nil, fmt.Errorf("kubectl port-forward forwards %d of %d ports\n%s", len(local), len(ports), &stderr)
	}
	go func() {
		for lines.Scan() { // it says a line per connection
		}
	}()
	var addrs []string
	for _, p := range ports {
		addrs = append(addrs, local[p])
	}
	return addrs, stop, nil
}

// daemonProcess returns the daemon's directory in /proc.
func daemonProcess() (string, error) {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return "", err
	}
	for _, path := range lines {
		line, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(line), "\x00__daemon") {
			return filepath.Dir(path), nil
		}
	}
	return "", errors.New("no daemon in the process table")
}

// idleAfter is how long a daemon that has worked may take to give memory back (netstack/reclaim).
const idleAfter = 8 * time.Second

// daemonRSS returns the daemon's resident set in MiB.
func daemonRSS() (float64, error) {
	daemon, err := daemonProcess()
	if err != nil {
		return 0, err
	}
	return memoryOf(daemon, "VmRSS")
}

// memoryOf reads a line of a process's status, in MiB, from its directory in /proc.
func memoryOf(dir, line string) (float64, error) {
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return 0, err
	}
	for l := range strings.Lines(string(status)) {
		var kib float64
		if _, err := fmt.Sscanf(l, line+": %f kB", &kib); err == nil {
			return kib / 1024, nil
		}
	}
	return 0, fmt.Errorf("no %s in %s/status", line, dir)
}
