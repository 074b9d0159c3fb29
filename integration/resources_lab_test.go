//go:build lab

package integration

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// limitedPod is a pod whose limits leave little beside its application.
const limitedPod = `apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: shop}
spec:
  serviceAccountName: api
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, runAsUser: 10001, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: app
    image: lab.local/api:1
    imagePullPolicy: IfNotPresent
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1, timeoutSeconds: 5}
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
    resources:
      requests: {%[2]s}
      limits: {cpu: "1", memory: 128Mi}
`

// TestApplicationKeepsItsResources has a thousand flows whose ends do not read in
// pods with tight limits. What the application was refused of memory and
// processor, and how often it was restarted, stays as it was before.
func TestApplicationKeepsItsResources(t *testing.T) {
	kinds := []struct{ name, requests, warning string }{
		{"guaranteed", `cpu: "1", memory: 128Mi`, "warning: of the pod's memory limit of 128Mi its containers request 128Mi: 0 are left for the agent"},
		{"burstable", `cpu: 50m, memory: 48Mi`, ""},
	}
	for _, tt := range kinds {
		name := "tight-" + tt.name
		kubectl(t, "apply", "-f", writeFile(t, fmt.Sprintf(limitedPod, name, tt.requests)))
		t.Cleanup(func() { kubectl(t, "-n", "shop", "delete", "pod", name, "--wait=false") })
	}
	for _, tt := range kinds {
		t.Run(tt.name, func(t *testing.T) {
			name := "tight-" + tt.name
			// A sample of its start would not have all of what that took.
			before := usageOf(t, name, "app", readySince(t, "shop", name).Add(time.Second))
			r := mustBorrownet(t, "up", "-d", "-n", "shop", "--pod", name)
			t.Cleanup(func() { mustBorrownet(t, "down", name, "--stop-agent") })
			if got := strings.Contains(r.stderr, "memory limit"); got != (tt.warning != "") || !strings.Contains(r.stderr, tt.warning) {
				t.Errorf("up, want the warning %q: %v", tt.warning, r)
			}
			agent := strings.TrimSpace(kubectl(t, "-n", "shop", "get", "pod", name, "-o", "jsonpath={.spec.ephemeralContainers[0].name}"))
			if log := kubectl(t, "-n", "shop", "logs", name, "-c", agent); !strings.Contains(log, `"oom_score_adj":"1000"`) {
				t.Errorf("the agent has not made itself the first to go: %s", log)
			}
			said := probe(t, 3*time.Minute, "stall", "1000", "ledger:7002", "ledger:7006")
			t.Log(said)
			var open, refused uint64
			if _, err := fmt.Sscanf(said, "%d open, %d refused", &open, &refused); err != nil || open < 100 {
				t.Errorf("%s, %v; want at least 100 open", said, err)
			}
			var st struct {
				Agent struct {
					Drops map[string]uint64 `json:"drops"`
				} `json:"agent"`
			}
			decode(t, mustBorrownet(t, "status", name, "-o", "json").stdout, &st)
			if got := st.Agent.Drops["no memory for another flow"]; got < refused {
				t.Errorf("the agent says that it refused %d flows, programs saw %d", got, refused)
			}
			if got := probe(t, time.Minute, "many", "ledger:7000", "1"); got != "1" {
				t.Errorf("after the crowd the session is of no use: %s", got)
			}
			after := usageOf(t, name, "app", time.Now())
			if after != before {
				t.Errorf("the application's counts are %+v, were %+v before", after, before)
			}
			const state = `jsonpath={.status.ephemeralContainerStatuses[0].state.running.startedAt}`
			if kubectl(t, "-n", "shop", "get", "pod", name, "-o", state) == "" {
				t.Errorf("the agent has ended: %s", kubectl(t, "-n", "shop", "get", "pod", name, "-o", "jsonpath={.status.ephemeralContainerStatuses}"))
			}
		})
	}
}

// usage is what a container was refused.
type usage struct {
	restarts, ready string
	memoryFailures  string // how often it was at its limit
	throttled       string // periods in which it got no processor
}

// usageOf reads a container's counts, from a sample of the kubelet that is later
// than since.
func usageOf(t *testing.T, pod, container string, since time.Time) usage {
	t.Helper()
	u := usage{
		restarts: kubectl(t, "-n", "shop", "get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].restartCount}"),
		ready:    kubectl(t, "-n", "shop", "get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].ready}"),
	}
	waitFor(t, "a sample of "+pod, patience, func() bool {
		metrics := kubectl(t, "get", "--raw", "/api/v1/nodes/lab/proxy/metrics/cadvisor")
		var sampled time.Time
		u.memoryFailures, sampled = sample(metrics, "container_memory_failcnt", pod, container)
		u.throttled, _ = sample(metrics, "container_cpu_cfs_throttled_periods_total", pod, container)
		return u.memoryFailures != "" && u.throttled != "" && sampled.After(since)
	})
	return u
}

// sample returns a metric of a container and when it was taken.
func sample(metrics, name, pod, container string) (value string, at time.Time) {
	for line := range strings.Lines(metrics) {
		if !strings.HasPrefix(line, name+"{") || !strings.Contains(line, `pod="`+pod+`"`) || !strings.Contains(line, `container="`+container+`"`) {
			continue
		}
		f := strings.Fields(line[strings.LastIndex(line, "}")+1:])
		if len(f) < 2 {
			return "", at
		}
		ms, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			return "", at
		}
		return f[0], time.UnixMilli(ms)
	}
	return "", at
}

// probeStall opens so many connections, half of them to a source that it does not
// read, half to a server that does not read what it writes, and holds them until
// nothing has moved for a while.
func probeStall(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	var addrs [2]*net.TCPAddr // names are resolved once, this is no test of DNS
	for i := range addrs {
		if addrs[i], err = net.ResolveTCPAddr("tcp", args[1+i]); err != nil {
			return err
		}
	}
	var open, refused, moved atomic.Int64
	var wg sync.WaitGroup
	slots := make(chan struct{}, 64)
	conns := make(chan net.Conn, n)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			conn, err := net.DialTimeout("tcp", addrs[i%2].String(), 30*time.Second)
			if err != nil {
				if errnoName(err) == "ECONNREFUSED" {
					refused.Add(1)
				} else {
					fmt.Fprintln(os.Stderr, err)
				}
				return
			}
			open.Add(1)
			conns <- conn
			if i%2 == 0 {
				fmt.Fprintf(conn, "%d 1\n", 1<<30)
				return
			}
			go func() { // ends with the conn
				for b := make([]byte, 64<<10); ; {
					k, err := conn.Write(b)
					moved.Add(int64(k))
					if err != nil {
						return
					}
				}
			}()
		})
	}
	wg.Wait()
	last := int64(-1)
	for quiet := 0; quiet < 6; time.Sleep(500 * time.Millisecond) {
		if now := moved.Load(); now != last {
			last, quiet = now, 0
		} else {
			quiet++
		}
	}
	fmt.Printf("%d open, %d refused, %d bytes written\n", open.Load(), refused.Load(), moved.Load())
	if other := int64(n) - open.Load() - refused.Load(); other > 0 {
		return fmt.Errorf("%d of %d connections failed otherwise", other, n)
	}
	close(conns)
	for c := range conns {
		c.Close()
	}
	_, err = io.WriteString(os.Stdout, "closed\n")
	return err
}
