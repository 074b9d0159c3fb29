package main

import (
	"bytes"
	"encoding/json"
	"errors"
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
	settle = 3 * time.Minute
	// What is uploaded to it: 100 MB each second.
	uploadRate = "5"
	uploadSize = 20e6
	// largest is the most that one captured packet carries.
	largest = 64 << 10
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
	if err := awaitService("mirrored", "http://front/"); err != nil {
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
	if err := copies.calibrate(); err != nil {
		return err
	}
	if err := s.collectUpload(o, copies); err != nil {
		return fmt.Errorf("upload: %w", err)
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
	if err := s.account("mirror", copies, mirrorSize, w.Sent); err != nil {
		return w, err
	}
	_, err = borrownet("down", "--all") // the next window may be another one of these
	return w, err
}

// collectUpload measures what arrives of 100 MB each second.
func (s samples) collectUpload(o options, copies *copies) error {
	if _, err := borrownet("down", "--all"); err != nil {
		return err
	}
	if err := copies.up(); err != nil {
		return err
	}
	copies.reset()
	begun := time.Now()
	w, err := load("mirrored", mirrorURL, uploadRate, o.window.String(), "0s", strconv.Itoa(uploadSize))
	if err != nil {
		return err
	}
	s.add("mirror.upload.rate", "borrownet", float64(w.Sent)*uploadSize/1e6/time.Since(begun).Seconds())
	s.add("mirror.upload.failed", "borrownet", float64(w.Errors+w.Lost))
	if err := s.account("mirror.upload", copies, uploadSize, w.Sent); err != nil {
		return err
	}
	_, err = borrownet("down", "--all")
	return err
}

// account adds the rows that say what became of the copies of so many requests.
func (s samples) account(rows string, copies *copies, size, sent int) error {
	var silent float64
	for end := time.Now().Add(settle); ; time.Sleep(time.Second) { // the counters come once a second
		st, err := mirrorNow() // fails while the session has lost its carrier
		late := time.Now().After(end)
		if err != nil && late {
			return err
		}
		if err != nil {
			continue
		}
		silent = st.unexplained(sent, copies.count(), copies.lengthOf(size))
		if silent == 0 {
			break
		}
		if late {
			fmt.Fprintf(os.Stderr, "%s: of %d requests of %d bytes %d came, and the counters are %+v\n", rows, sent, copies.lengthOf(size), copies.count(), st)
			break
		}
	}
	s.add(rows+".delivered", "borrownet", 100*float64(copies.count())/float64(sent))
	s.add(rows+".wrong", "borrownet", float64(copies.wrong()))
	s.add(rows+".silent", "borrownet", silent)
	return nil
}

// mirrorCounters are those of a session.
type mirrorCounters struct {
	Capture struct {
		Dropped, LostFlows uint64
	} `json:"capture"`
	Replay struct {
		RequestBytes uint64            `json:"requestBytes"`
		Skipped      uint64            `json:"skippedBytes"`
		LostBytes    uint64            `json:"lostBytes"`
		Before       uint64            `json:"before"`
		GapBytes     map[string]uint64 `json:"gapBytes"`
		Requests     struct {
			Seen, Delivered, Refused, Broken, Slow, Cut uint64
		} `json:"requests"`
	} `json:"replay"`
}

func mirrorNow() (mirrorCounters, error) {
	var st struct {
		Mirror mirrorCounters `json:"mirror"`
	}
	out, err := borrownet("status", "front", "-o", "json")
	if err == nil {
		err = json.Unmarshal(out, &st)
	}
	if err != nil {
		return mirrorCounters{}, fmt.Errorf("status: %w", err)
	}
	return st.Mirror, nil
}

// unexplained returns how many of the requests that were sent, each of so many bytes, are
// missing while the counters do not say so, exactly: each request that was seen has one
// outcome, those that were delivered have come, and each byte that was sent is one of a
// request, or one that is counted as missing. Only if the kernel has dropped the beginning
// of a connection nobody knows how long it was, but that it was in the packets that the
// kernel has counted; one of these that ended a connection looks like a byte.
func (m mirrorCounters) unexplained(sent, came int, length uint64) float64 {
	r := m.Replay.Requests
	apart := func(a, b uint64) uint64 { return max(a, b) - min(a, b) }
	n := apart(r.Seen, r.Delivered+r.Refused+r.Broken+r.Slow+r.Cut)
	if low, high := r.Delivered, r.Delivered+r.Broken; uint64(came) < low || uint64(came) > high {
		n += min(apart(uint64(came), low), apart(uint64(came), high))
	}
	bytes := m.Replay.RequestBytes + m.Replay.Skipped + m.Replay.LostBytes
	for _, missing := range m.Replay.GapBytes {
		bytes += missing
	}
	all := uint64(sent) * length
	wrong := apart(bytes, all)
	switch {
	case bytes > all && wrong <= m.Capture.Dropped, // of a FIN that is missing nobody knows that it is no byte
		bytes < all && wrong <= m.Capture.Dropped*largest && m.Replay.Before+m.Capture.LostFlows > 0:
		wrong = 0
	}
	return float64(n) + float64(wrong)/float64(length)
}

// copies is the local program that gets them. It compares each body with the stream that its id names.
type copies struct {
	srv  *http.Server
	port int
	head int // length of a request without its body, and without the length of that

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

// calibrate finds how long requests are as they are captured: in a mesh sidecars add to
// them, the same to each.
func (c *copies) calibrate() error {
	c.reset()
	w, err := load("mirrored", mirrorURL, "4", "1s", "0s", strconv.Itoa(mirrorSize))
	if err != nil {
		return err
	}
	for end := time.Now().Add(settle); ; time.Sleep(100 * time.Millisecond) {
		m, err := mirrorNow()
		if n := uint64(w.Sent); err == nil && n > 0 && m.Replay.Requests.Seen == n && m.Replay.Requests.Delivered == n && m.Replay.RequestBytes%n == 0 {
			c.head = int(m.Replay.RequestBytes/n) - mirrorSize - len(strconv.Itoa(mirrorSize))
			return nil
		}
		if time.Now().After(end) {
			return errors.Join(fmt.Errorf("of %d single requests not all were copied: %+v", w.Sent, m), err)
		}
	}
}

// lengthOf returns the length of a request whose body has a size.
func (c *copies) lengthOf(size int) uint64 { return uint64(c.head + size + len(strconv.Itoa(size))) }

// ServeHTTP implements http.Handler.
func (c *copies) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // it was cut, and is counted so
	}
	id, idErr := strconv.ParseUint(r.FormValue("id"), 10, 64)
	want, _ := io.ReadAll(stream.New(r.ContentLength, id)) // cannot fail
	c.mu.Lock()
	defer c.mu.Unlock()
	if idErr != nil || !bytes.Equal(body, want) || c.got[id] {
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
