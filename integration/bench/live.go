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
	// The first session adds the agent, and the first window is slow for other reasons.
	if _, err := borrownet("up", "-d", "-n", "shop", "--pod", "api"); err != nil {
		return err
	}
	defer borrownet("down", "--all", "--stop-agent")
	return s.alternate(o, alternation{id: "live", without: o.without, within: func() (liveWindow, error) { return s.within(o) }})
}

// alternation has the callers of a live pod measured with something beside them and
// without.
type alternation struct {
	id      string // of the rows
	without func(delay float64) (liveWindow, error)
	within  func() (liveWindow, error)
}

// alternate fills the rows of a. A round has four windows in random order: without a
// session (the agent is parked), with one, and two controls without one, in which each
// request takes longer by a quarter of the median or of the 99th percentile. Their
// differences to the window without a session are the pairs. Rounds go on until both
// rows are decided.
func (s samples) alternate(o options, a alternation) error {
	first, err := a.without(0)
	if err != nil {
		return err
	}
	p50, p99 := []float64{first.P50}, []float64{first.P99}
	random := rand.New(rand.NewPCG(1, 1))
	for round := range o.maxPairs {
		fmt.Fprintf(os.Stderr, "%s: round %d of %d to %d\n", a.id, round+1, o.pairs, o.maxPairs)
		var off, on, slow50, slow99 liveWindow
		windows := []func() error{
			func() (err error) { off, err = a.without(0); return err },
			func() (err error) { on, err = a.within(); return err },
			func() (err error) { slow50, err = a.without(addDelay * median(p50)); return err },
			func() (err error) { slow99, err = a.without(addDelay * median(p99)); return err },
		}
		random.Shuffle(len(windows), func(i, j int) { windows[i], windows[j] = windows[j], windows[i] })
		for _, window := range windows {
			if err := window(); err != nil {
				return err
			}
		}
		p50, p99 = append(p50, off.P50), append(p99, off.P99)
		s.addWindow(a.id, "direct", off)
		s.addWindow(a.id, "borrownet", on)
		id50, id99 := a.id+".p50", a.id+".p99"
		s.add(id50, "borrownet", difference(off.P50, on.P50))
		s.add(id99, "borrownet", difference(off.P99, on.P99))
		s.add(id50, "control", difference(off.P50, slow50.P50))
		s.add(id99, "control", difference(off.P99, slow99.P99))
		fmt.Fprintf(os.Stderr, "%s: round %d: so far p50 %+.1f %%, p99 %+.1f %%\n", a.id, round+1,
			median(s[key{id50, "borrownet"}]), median(s[key{id99, "borrownet"}]))
		if round+1 >= o.pairs && s.judge(id50) != inconclusive && s.judge(id99) != inconclusive {
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

// without is a window without a session; each request is delayed by so many ms.
func (o options) without(delay float64) (liveWindow, error) {
	if _, err := borrownet("down", "--all"); err != nil {
		return liveWindow{}, err
	}
	return o.callLive(time.Duration(delay * float64(time.Millisecond)))
}

// within is a window with a session that moves data.
func (s samples) within(o options) (w liveWindow, err error) {
	if _, err := borrownet("up", "-d", "-n", "shop", "--pod", "api"); err != nil {
		return w, err
	}
	stop, err := startPump()
	if err != nil {
		return w, err
	}
	w, err = o.callLive(0)
	moved, stopErr := stop()
	if err != nil {
		return w, err
	}
	s.add("live.moved", "borrownet", moved)
	_, err = borrownet("down", "--all") // the next window may be another one of these
	return w, errors.Join(stopErr, err)
}

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

// startPump starts a program in the session that moves data, and returns what ends it
// and says how much that was, in MB/s.
func startPump() (stop func() (float64, error), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("borrownet", "run", "--", self, "pump", "ledger:"+ports[1], "ledger:"+ports[2], strconv.Itoa(pumpRate))
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
		return nil, fmt.Errorf("start pump: %w", err)
	}
	lines := bufio.NewReader(stdout)
	end := func() (float64, error) {
		stdin.Close()
		rest, _ := io.ReadAll(lines) // an error is the process's, below
		if err := cmd.Wait(); err != nil {
			return 0, fmt.Errorf("pump: %w\n%s", err, &stderr)
		}
		return strconv.ParseFloat(strings.TrimSpace(string(rest)), 64)
	}
	if line, err := lines.ReadString('\n'); err != nil || line != pumping {
		_, endErr := end()
		return nil, fmt.Errorf("pump said %q: %v, %w", line, err, endErr)
	}
	return end, nil
}
