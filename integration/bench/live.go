package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What is asked of the live pod, and of the session beside it.
const (
	liveRate = "200" // requests per second
	liveURL  = "http://api.shop/"
	pumpRate = 20e6 // bytes per second, one half each way
	addDelay = 0.25 // of the controls
)

// liveService is that of the live pod.
const liveService = `apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec:
  selector: {app: api}
  ports: [{name: http-web, port: 80, targetPort: 8080}]
---
`

// samplePod is a pod of a sample app: its name, namespace and image. That of caller calls
// a live pod as others of the cluster do: nothing of borrownet is on its way.
const samplePod = `apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: %[2]s, labels: {app: %[1]s}}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, runAsUser: 10001, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: %[1]s
    image: lab.local/%[3]s:1
    imagePullPolicy: IfNotPresent
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
---
`

// liveWindow is what caller load reports.
type liveWindow struct {
	Requests int     `json:"requests"`
	Sent     int     `json:"sent"` // and answered, those before the window too
	Errors   int     `json:"errors"`
	Error    string  `json:"error"`
	Lost     int     `json:"lost"`
	P50      float64 `json:"p50"`
	P99      float64 `json:"p99"`
}

// collectLive measures what the callers of a live pod notice of a session on it that
// moves data.
func (s samples) collectLive(o options) error {
	if _, err := kubectlAdmin(liveService+fmt.Sprintf(samplePod, "load", "shop", "caller"), "apply", "-f", "-"); err != nil {
		return err
	}
	if _, err := kubectlAdmin("", "-n", "shop", "wait", "pod/load", "--for=condition=Ready", "--timeout=2m"); err != nil {
		return err
	}
	defer kubectlAdmin("", "-n", "shop", "delete", "--now", "pod/load", "service/api")
	if err := awaitService("shop", liveURL); err != nil {
		return err
	}
	// The first session adds the agent, and the first window is slow for other reasons.
	if _, err := borrownet("up", "-d", "-n", "shop", "--pod", "api"); err != nil {
		return err
	}
	defer borrownet("down", "--all", "--stop-agent")
	return s.alternate(o, alternation{
		without: o.without,
		windows: []window{
			{"idle", func() (liveWindow, error) { return o.withSession(o.callNow) }},
			{"borrownet", func() (liveWindow, error) { return o.withSession(func() (liveWindow, error) { return s.moving(o) }) }},
			{"raw-ws", func() (liveWindow, error) { return s.movingRaw(o) }},
		},
		latencies: "live",
		pairs:     []pair{{"live.idle", "idle", "direct"}, {"live.moving", "borrownet", "raw-ws"}},
	})
}

// alternation has the callers of a live pod measured with something beside them and
// without.
type alternation struct {
	without   func(delay float64) (liveWindow, error) // the subject direct
	windows   []window
	latencies string // prefix of the rows that have what each subject's callers saw
	pairs     []pair
}

// A window is a while in which something of a subject is beside the callers.
type window struct {
	subject string
	run     func() (liveWindow, error)
}

// A pair makes rows: what the callers see in windows of one subject relative to those
// of another one, in percent.
type pair struct{ id, of, to string }

// alternate fills the rows of a. A round has every window once, in random order, and two
// controls: like direct, but each request takes longer by a quarter of the median or of
// the 99th percentile. Rounds go on until all pairs are decided.
func (s samples) alternate(o options, a alternation) error {
	first, err := a.without(0)
	if err != nil {
		return err
	}
	p50, p99 := []float64{first.P50}, []float64{first.P99}
	random := rand.New(rand.NewPCG(1, 1))
	measured := append([]window{{"direct", func() (liveWindow, error) { return a.without(0) }}}, a.windows...)
	all := append(slices.Clone(measured),
		window{"slow50", func() (liveWindow, error) { return a.without(addDelay * median(p50)) }},
		window{"slow99", func() (liveWindow, error) { return a.without(addDelay * median(p99)) }})
	for round := range o.maxPairs {
		fmt.Fprintf(os.Stderr, "round %d of %d to %d\n", round+1, o.pairs, o.maxPairs)
		got := map[string]liveWindow{}
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for _, w := range all {
			if got[w.subject], err = w.run(); err != nil {
				return fmt.Errorf("%s: %w", w.subject, err)
			}
		}
		direct := got["direct"]
		p50, p99 = append(p50, direct.P50), append(p99, direct.P99)
		for _, w := range measured {
			s.addWindow(a.latencies, w.subject, got[w.subject])
		}
		decided := true
		for _, p := range a.pairs {
			of, to, id50, id99 := got[p.of], got[p.to], p.id+".p50", p.id+".p99"
			s.add(id50, "borrownet", difference(to.P50, of.P50))
			s.add(id99, "borrownet", difference(to.P99, of.P99))
			s.add(id50, "control", difference(direct.P50, got["slow50"].P50))
			s.add(id99, "control", difference(direct.P99, got["slow99"].P99))
			fmt.Fprintf(os.Stderr, "%s: so far p50 %+.1f %%, p99 %+.1f %%\n", p.id,
				median(s[key{id50, "borrownet"}]), median(s[key{id99, "borrownet"}]))
			decided = decided && s.judge(id50) != inconclusive && s.judge(id99) != inconclusive
		}
		if round+1 >= o.pairs && decided {
			break
		}
	}
	return nil
}

func (s samples) addWindow(id, subject string, w liveWindow) {
	s.add(id+".latency.p50", subject, w.P50)
	s.add(id+".latency.p99", subject, w.P99)
	s.add(id+".failed", subject, float64(w.Errors+w.Lost))
	if w.Error != "" {
		fmt.Fprintf(os.Stderr, "%s: %s: %s\n", id, subject, w.Error)
	}
}

// difference is b relative to a, in percent.
func difference(a, b float64) float64 { return 100 * (b - a) / a }

// without is a window without a session, its agent parked; each request is delayed by so many ms.
func (o options) without(delay float64) (liveWindow, error) {
	if _, err := borrownet("down", "--all"); err != nil {
		return liveWindow{}, err
	}
	return o.callLive(time.Duration(delay * float64(time.Millisecond)))
}

// withSession runs a window while a session is up.
func (o options) withSession(run func() (liveWindow, error)) (liveWindow, error) {
	if _, err := borrownet("up", "-d", "-n", "shop", "--pod", "api"); err != nil {
		return liveWindow{}, err
	}
	w, err := run()
	if err != nil {
		return w, err
	}
	_, err = borrownet("down", "--all")
	return w, err
}

// moving is a window in which a program of the session moves data.
func (s samples) moving(o options) (liveWindow, error) {
	return s.pumping(o, "borrownet", []string{"borrownet", "run", "--"}, "ledger:"+ports[1], "ledger:"+ports[2])
}

// movingRaw is a window in which the same data takes kubectl port-forward to a plain relay
// in the pod, without a session.
func (s samples) movingRaw(o options) (liveWindow, error) {
	stopRelay, err := startRelay("ledger", ports[1:]...)
	if err != nil {
		return liveWindow{}, err
	}
	w, err := s.movingBy(o, "deploy/api", ports[1:]...)
	return w, errors.Join(err, stopRelay())
}

// movingBy is a window in which a program moves data by kubectl port-forward to a sink
// and a source.
func (s samples) movingBy(o options, target string, ports ...string) (liveWindow, error) {
	local, stop, err := portForward(os.Environ(), "true", target, ports...)
	if err != nil {
		return liveWindow{}, err
	}
	defer stop()
	return s.pumping(o, "raw-ws", nil, local[0], local[1])
}

// startRelay has the live pod relay ports of its loopback to those of a host, and returns
// what ends it.
func startRelay(host string, ports ...string) (end func() error, err error) {
	argv := []string{"kubectl", "--kubeconfig", os.Getenv("LAB_ADMIN_KUBECONFIG"), "-n", "shop", "exec", "-i", "deploy/api", "-c", "api", "--", "/api", "relay", host}
	stop, err := startSaying("relaying\n", append(argv, ports...))
	if err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	return func() error { _, err := stop(); return err }, nil
}

// pumping is a window in which a program, started by a command, moves data.
func (s samples) pumping(o options, subject string, within []string, sink, source string) (liveWindow, error) {
	stop, err := startPump(within, sink, source)
	if err != nil {
		return liveWindow{}, err
	}
	w, err := o.callNow()
	moved, stopErr := stop()
	if err != nil {
		return w, err
	}
	s.add("live.moved", subject, moved)
	return w, stopErr
}

func (o options) callNow() (liveWindow, error) { return o.callLive(0) }

// callLive has the live pod called from the other one.
func (o options) callLive(delay time.Duration) (liveWindow, error) {
	return load("shop", liveURL, liveRate, o.window.String(), delay.String())
}

// load has the pod load of a namespace run caller load.
func load(namespace string, args ...string) (liveWindow, error) {
	var w liveWindow
	out, err := kubectlAdmin("", append([]string{"-n", namespace, "exec", "load", "-c", "load", "--", "/caller", "load"}, args...)...)
	if err != nil {
		return w, err
	}
	if err := json.Unmarshal(out, &w); err != nil {
		return w, fmt.Errorf("caller load: %w in %s", err, out)
	}
	if w.Requests == 0 {
		return w, fmt.Errorf("caller load: no request was answered: %s", w.Error)
	}
	return w, nil
}

// awaitService waits until a Service that was just made answers the pod load of a namespace: the app listens, and the node
// has the rules that lead to it.
func awaitService(namespace, url string) error {
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		said, err := kubectlAdmin("", "-n", namespace, "exec", "load", "-c", "load", "--", "/caller", "get", url)
		if err == nil && bytes.HasPrefix(said, []byte("200 ")) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s does not answer: %v: %s", url, err, said)
		}
	}
}

// kubectlAdmin runs kubectl as the cluster's administrator: a developer may not make pods.
func kubectlAdmin(stdin string, args ...string) ([]byte, error) {
	cmd := exec.Command("kubectl", append([]string{"--kubeconfig", os.Getenv("LAB_ADMIN_KUBECONFIG")}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("kubectl %q: %w\n%s", args, err, &stderr)
	}
	return out, nil
}

// startPump starts a program, by the command within, that moves data, and returns what
// ends it and says how much that was, in MB/s.
func startPump(within []string, sink, source string) (end func() (float64, error), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	stop, err := startSaying(pumping, append(slices.Clone(within), self, "pump", sink, source, strconv.Itoa(pumpRate)))
	if err != nil {
		return nil, fmt.Errorf("pump: %w", err)
	}
	return func() (float64, error) {
		moved, err := stop()
		if err != nil {
			return 0, fmt.Errorf("pump: %w", err)
		}
		return strconv.ParseFloat(strings.TrimSpace(moved), 64)
	}, nil
}

// startSaying starts a program that says a line when it is at work, and ends with its
// input. It returns what ends it and has what else it said.
func startSaying(line string, argv []string) (end func() (string, error), err error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewReader(stdout)
	end = func() (string, error) {
		stdin.Close()
		rest, _ := io.ReadAll(lines) // an error is the process's, below
		if err := cmd.Wait(); err != nil {
			return "", fmt.Errorf("%q: %w\n%s", argv, err, &stderr)
		}
		return string(rest), nil
	}
	if said, err := lines.ReadString('\n'); err != nil || said != line {
		_, endErr := end()
		return nil, errors.Join(fmt.Errorf("%q said %q: %v", argv, said, err), endErr)
	}
	return end, nil
}
