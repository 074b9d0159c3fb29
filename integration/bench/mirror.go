package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/borrownet/borrownet/integration/apps/stream"
)

// What the mirrored pod is asked, by whom.
const (
	mirrorRate       = "2000" // requests per second
	meshedMirrorRate = "300"  // two Envoys on two shared cores carry no more than a thousand
	mirrorURL        = "http://front/sha256"
	mirrorSize       = 200 // bytes of a request's body
	// settle is how long copies may take that are under way when the last request is answered.
	settle = 10 * time.Second
)

// mirrorNamespace admits agents that mirror. The Service is that of the pod that is mirrored.
const mirrorNamespace = `apiVersion: v1
kind: Namespace
metadata: {name: mirrored, labels: {istio-injection: enabled, pod-security.kubernetes.io/enforce: baseline}}
---
apiVersion: v1
kind: Service
metadata: {name: front, namespace: mirrored}
spec:
  selector: {app: front}
  ports: [{name: http-web, port: 80, targetPort: 8080}]
---
`

// collectMirror measures what the callers of a pod notice when what they send is copied,
// and what of it arrives.
func (s samples) collectMirror(o options) error {
	pods := fmt.Sprintf(samplePod, "front", "mirrored", "api") + fmt.Sprintf(samplePod, "load", "mirrored", "caller")
	if _, err := kubectlAdmin(mirrorNamespace+pods, "apply", "-f", "-"); err != nil {
		return err
	}
	defer kubectlAdmin("", "delete", "namespace", "mirrored", "--wait=false")
	role, err := borrownet("rbac", "-n", "mirrored", "--workloads", "--subject", "user:dev")
	if err != nil {
		return err
	}
	if _, err := kubectlAdmin(string(role), "apply", "-f", "-"); err != nil {
		return err
	}
	if _, err := kubectlAdmin("", "-n", "mirrored", "wait", "pod", "--all", "--for=condition=Ready", "--timeout=2m"); err != nil {
		return err
	}
	copies, err := listenForCopies()
	if err != nil {
		return err
	}
	defer copies.close()
	defer borrownet("down", "--all", "--stop-agent")
	if err := copies.up(); err != nil { // the first session adds the agent
		return err
	}
	return s.alternate(o, alternation{
		without: func(delay float64) (liveWindow, error) {
			if _, err := borrownet("down", "--all"); err != nil {
				return liveWindow{}, err
			}
			return o.callMirrored(time.Duration(delay * float64(time.Millisecond)))
		},
		windows:   []window{{"borrownet", func() (liveWindow, error) { return s.mirrored(o, copies) }}},
		latencies: "mirror.live",
		pairs:     []pair{{"mirror.live", "borrownet", "direct"}},
	})
}

func (o options) callMirrored(delay time.Duration) (liveWindow, error) {
	rate := mirrorRate
	if os.Getenv("LAB_MESH") != "" {
		rate = meshedMirrorRate
	}
	return load("mirrored", mirrorURL, rate, o.window.String(), delay.String(), strconv.Itoa(mirrorSize))
}

// mirrored is a window in which what the pod gets is copied.
func (s samples) mirrored(o options, copies *copies) (liveWindow, error) {
	if err := copies.up(); err != nil {
		return liveWindow{}, err
	}
	copies.reset()
	w, err := o.callMirrored(0)
	if err != nil {
		return w, err
	}
	for end := time.Now().Add(settle); copies.count() < w.Sent && time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond)
	}
	time.Sleep(2 * time.Second) // the counters come once a second
	lost, err := mirrorLost()
	if err != nil {
		return w, err
	}
	arrived := copies.count()
	s.add("mirror.delivered", "borrownet", 100*float64(arrived)/float64(w.Sent))
	s.add("mirror.wrong", "borrownet", float64(copies.wrong()))
	silent := 0
	if arrived < w.Sent && lost == 0 {
		silent = w.Sent - arrived
	}
	s.add("mirror.silent", "borrownet", float64(silent))
	_, err = borrownet("down", "--all") // the next window may be another one of these
	return w, err
}

// mirrorLost sums up all that the session's counters say of losses.
func mirrorLost() (uint64, error) {
	out, err := borrownet("status", "front", "-o", "json")
	if err != nil {
		return 0, err
	}
	var st struct {
		Mirror struct {
			Capture struct {
				Dropped, LostFlows, Unreadable uint64
			} `json:"capture"`
			Replay struct {
				Gaps     map[string]uint64 `json:"gaps"`
				Requests struct {
					Refused, Broken, Slow, Cut uint64
				} `json:"requests"`
			} `json:"replay"`
		} `json:"mirror"`
	}
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		return 0, fmt.Errorf("status: %w", err)
	}
	c, r := st.Mirror.Capture, st.Mirror.Replay
	sum := c.Dropped + c.LostFlows + c.Unreadable + r.Requests.Refused + r.Requests.Broken + r.Requests.Slow + r.Requests.Cut
	for _, n := range r.Gaps {
		sum += n
	}
	return sum, nil
}

// copies is the local program that gets them. It compares each body with the stream that its id names.
type copies struct {
	srv  *http.Server
	port int

	mu  sync.Mutex
	got map[uint64]bool // by id
	bad int             // other bodies, or an id once more
}

func listenForCopies() (*copies, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &copies{port: ln.Addr().(*net.TCPAddr).Port, got: make(map[uint64]bool)}
	c.srv = &http.Server{Handler: c}
	go c.srv.Serve(ln) // ends with close
	return c, nil
}

func (c *copies) close() { c.srv.Close() }

func (c *copies) up() error {
	_, err := borrownet("up", "-d", "-n", "mirrored", "--pod", "front", "--mirror", fmt.Sprintf("8080:%d", c.port))
	return err
}

// ServeHTTP implements http.Handler.
func (c *copies) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	id, idErr := strconv.ParseUint(r.FormValue("id"), 10, 64)
	want, _ := io.ReadAll(stream.New(mirrorSize, id)) // cannot fail
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil || idErr != nil || !bytes.Equal(body, want) || c.got[id] {
		c.bad++
		return
	}
	c.got[id] = true
}

func (c *copies) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.got)
	c.bad = 0
}

func (c *copies) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.got)
}

func (c *copies) wrong() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bad
}
