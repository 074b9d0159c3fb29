package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Many developers with many sessions each, against one API server: what that costs the server and the laptops.
// Developers are runtime directories of one user here, each with a daemon of its own; all borrow the same pods.

const manyNamespaces = 5

// manyPod is a workload and the Service of its name that developers borrow.
const manyPod = `---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 1
      securityContext: {runAsNonRoot: true, runAsUser: 10001, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: app
        image: lab.local/api:1
        imagePullPolicy: IfNotPresent
        securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  selector: {app: %[1]s}
  ports: [{port: 80, targetPort: 8080}]
`

// developer is one of them: an environment with a runtime directory of its own.
type developer struct {
	env  []string
	file string // that describes his sessions
}

// collectMany sets all sessions up, one developer after the other, and looks what they cost while they rest.
func (s samples) collectMany(o options) error {
	dir, err := os.MkdirTemp("", "many") // short: paths of sockets are bounded
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	names, file, err := makeMany(o.sessions)
	defer deleteMany()
	if err != nil {
		return err
	}
	// How long the server's requests are counted while nobody does anything.
	rest := time.Duration(3 * o.seconds * float64(time.Second))
	before, err := serverNow(rest)
	if err != nil {
		return err
	}
	var all []*developer
	defer func() { downMany(all) }()
	for i := range o.developers {
		d, err := newDeveloper(dir, i, file)
		if err != nil {
			return err
		}
		all = append(all, d)
		begun := time.Now()
		if _, err := outputIn(d.env, []string{"borrownet", "up", "-f", d.file, "-d"}); err != nil {
			return fmt.Errorf("developer %d: %w", i, err)
		}
		s.add("many.up", "borrownet", time.Since(begun).Seconds())
		fmt.Fprintf(os.Stderr, "many: %d of %d developers have %d sessions each\n", i+1, o.developers, o.sessions)
	}
	if err := s.addSessions(all, names); err != nil {
		return err
	}
	during, err := serverNow(rest)
	if err != nil {
		return err
	}
	s.addServer(before, during, float64(o.developers*o.sessions))
	begun := time.Now()
	ended := downMany(all)
	s.add("many.down", "borrownet", time.Since(begun).Seconds()/float64(len(all)))
	all = nil
	return ended
}

func manyNamespace(n int) string { return fmt.Sprintf("many-%d", n%manyNamespaces) }

// makeMany makes the workloads, and returns the sessions' names and the file that describes them.
func makeMany(sessions int) (names []string, file string, err error) {
	var objects, text strings.Builder
	text.WriteString("publish: [none]\nsessions:\n")
	for i := range sessions {
		name, namespace := fmt.Sprintf("svc-%d", i), manyNamespace(i)
		if i < manyNamespaces {
			fmt.Fprintf(&objects, "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n", namespace)
		}
		fmt.Fprintf(&objects, manyPod, name, namespace)
		fmt.Fprintf(&text, "  %s: {pod: deploy/%s, namespace: %s}\n", name, name, namespace)
		names = append(names, name)
	}
	if _, err := kubectlAdmin(objects.String(), "apply", "-f", "-"); err != nil {
		return nil, "", err
	}
	for n := range min(sessions, manyNamespaces) {
		role, err := borrownet("rbac", "-n", manyNamespace(n), "--workloads", "--subject", "user:dev")
		if err != nil {
			return nil, "", err
		}
		if _, err := kubectlAdmin(string(role), "apply", "-f", "-"); err != nil {
			return nil, "", err
		}
		if _, err := kubectlAdmin("", "-n", manyNamespace(n), "wait", "--for=condition=Available", "deployments", "--all", "--timeout=180s"); err != nil {
			return nil, "", err
		}
	}
	return names, text.String(), nil
}

// deleteMany deletes the namespaces, of which not all need be there.
func deleteMany() {
	for n := range manyNamespaces {
		_, _ = kubectlAdmin("", "delete", "namespace", manyNamespace(n), "--wait=false")
	}
}

func newDeveloper(dir string, i int, file string) (*developer, error) {
	home := filepath.Join(dir, strconv.Itoa(i))
	if err := os.Mkdir(home, 0o700); err != nil {
		return nil, err
	}
	d := &developer{env: append(os.Environ(), "XDG_RUNTIME_DIR="+home), file: filepath.Join(home, "stack.yaml")}
	return d, os.WriteFile(d.file, []byte(file), 0o600)
}

// downMany ends the developers' sessions and agents.
func downMany(all []*developer) error {
	var errs []error
	for _, d := range all {
		_, err := outputIn(d.env, []string{"borrownet", "down", "--all", "--stop-agent"})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// manyStatus is what is needed of a session's status.
type manyStatus struct {
	Session, State string
	Agent          struct {
		Usage struct {
			Resident float64 `json:"resident"`
		} `json:"usage"`
	} `json:"agent"`
}

// addSessions checks that every session works, and adds what each takes on its laptop and in its pod.
func (s samples) addSessions(all []*developer, names []string) error {
	ready := 0
	for i, d := range all {
		var list []manyStatus
		out, err := outputIn(d.env, []string{"borrownet", "status", "-o", "json"})
		if err == nil {
			err = json.Unmarshal(out, &list)
		}
		if err != nil {
			return fmt.Errorf("developer %d: %w", i, err)
		}
		for _, st := range list {
			if st.State == "ready" && slices.Contains(names, st.Session) {
				ready++
				s.add("many.agent", "borrownet", st.Agent.Usage.Resident/(1<<20))
			}
		}
		call := []string{"curl", "-sSf", "-o", "/dev/null", "--max-time", "20", "http://" + names[0] + "." + manyNamespace(0) + "/"}
		if _, err := outputIn(d.env, append([]string{"borrownet", "run", "--session", names[len(names)-1], "--"}, call...)); err != nil {
			return fmt.Errorf("developer %d: %w", i, err)
		}
	}
	s.add("many.unready", "borrownet", float64(len(all)*len(names)-ready))
	s.add("many.sessions", "borrownet", float64(ready))
	return s.addProcesses(float64(len(names)))
}

// addProcesses adds what daemons and helpers of namespaces take, per session: what they share with each other, which
// is the program, is counted with the daemons alone.
func (s samples) addProcesses(sessions float64) error {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, path := range lines {
		line, err := os.ReadFile(path)
		if err != nil {
			continue // ended meanwhile
		}
		switch dir := filepath.Dir(path); {
		case strings.Contains(string(line), "\x00__daemon"):
			if mib, err := memoryOf(dir, "VmRSS"); err == nil {
				s.add("many.daemon", "borrownet", mib/sessions)
			}
		case strings.Contains(string(line), "\x00__netns\x00"):
			if mib, err := memoryOf(dir, "RssAnon"); err == nil {
				s.add("many.helper", "borrownet", mib)
			}
		}
	}
	return nil
}

// server is what the API server says of itself, and who is connected to it from here.
type server struct {
	memory       float64 // MiB, resident
	watches      float64
	portForwards float64
	requests     float64 // so far
	perSecond    float64 // of late
	connections  float64 // of this laptop
}

func (s samples) addServer(before, during server, sessions float64) {
	s.add("many.connections", "borrownet", (during.connections-before.connections)/sessions)
	s.add("many.portforwards", "borrownet", (during.portForwards-before.portForwards)/sessions)
	s.add("many.watches", "borrownet", (during.watches-before.watches)/sessions)
	s.add("many.requests", "borrownet", during.perSecond-before.perSecond)
	s.add("many.server.before", "borrownet", before.memory)
	s.add("many.server", "borrownet", during.memory)
	s.add("many.server.session", "borrownet", (during.memory-before.memory)*1024/sessions)
}

// serverNow asks the API server, twice.
func serverNow(rest time.Duration) (server, error) {
	first, err := serverOnce()
	if err != nil {
		return server{}, err
	}
	begun := time.Now()
	time.Sleep(rest)
	second, err := serverOnce()
	second.perSecond = (second.requests - first.requests) / time.Since(begun).Seconds()
	return second, err
}

func serverOnce() (server, error) {
	text, err := kubectlAdmin("", "get", "--raw", "/metrics")
	if err != nil {
		return server{}, err
	}
	m := metrics(text)
	out := server{
		memory:       m.sum("process_resident_memory_bytes") / (1 << 20),
		watches:      m.sum("apiserver_longrunning_requests", `verb="WATCH"`),
		portForwards: m.sum("apiserver_longrunning_requests", `subresource="portforward"`),
		requests:     m.sum("apiserver_request_total"),
	}
	if out.memory == 0 || out.watches == 0 || out.requests == 0 {
		return out, errors.New("the API server's metrics are not what they were")
	}
	out.connections, err = connectionsToServer()
	return out, err
}

// metrics are in Prometheus' text format.
type metrics string

// sum adds the values of the series of a name that have all of the labels.
func (m metrics) sum(name string, labels ...string) float64 {
	total := 0.0
	for line := range strings.Lines(string(m)) {
		series, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if bare, _, _ := strings.Cut(series, "{"); !ok || bare != name {
			continue
		}
		if slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(series, l) }) {
			continue
		}
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			total += v
		}
	}
	return total
}

var established = regexp.MustCompile(`(?m)^ *\d+: [0-9A-F]+:[0-9A-F]{4} [0-9A-F]+:([0-9A-F]{4}) 01 `)

// connectionsToServer counts the laptop's TCP connections to the port of the API server.
func connectionsToServer() (float64, error) {
	out, err := output([]string{"kubectl", "config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"})
	if err != nil {
		return 0, err
	}
	at, err := url.Parse(strings.TrimSpace(string(out)))
	if err != nil {
		return 0, err
	}
	port, err := strconv.ParseUint(at.Port(), 10, 16)
	if err != nil {
		return 0, fmt.Errorf("the API server's port: %w", err)
	}
	count := 0
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} { // proc_net(5)
		text, err := os.ReadFile(table)
		if err != nil {
			return 0, err
		}
		count += connectionsTo(text, uint16(port))
	}
	return float64(count), nil
}

func connectionsTo(table []byte, port uint16) int {
	count := 0
	for _, m := range established.FindAllSubmatch(table, -1) {
		if string(m[1]) == fmt.Sprintf("%04X", port) {
			count++
		}
	}
	return count
}
