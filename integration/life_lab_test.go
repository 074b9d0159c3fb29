//go:build lab

package integration

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// way is one in which a session loses its pod.
type way struct {
	name    string
	session string // whose pod it is
	peer    string // that a program calls afterwards
	lose    func(t *testing.T, namespace, pod string)
}

// ways are those of a cluster whose nodes are well.
var ways = []way{
	{"pod_deleted", "s0-0", "svc-0.stack-2/", func(t *testing.T, namespace, pod string) {
		kubectl(t, "-n", namespace, "delete", "pod", pod, "--wait=false")
	}},
	{"pod_evicted", "s1-0", "svc-0.stack-0/", func(t *testing.T, namespace, pod string) {
		eviction := fmt.Sprintf(`{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": %q, "namespace": %q}}`, pod, namespace)
		kubectl(t, "create", "--raw", "/api/v1/namespaces/"+namespace+"/pods/"+pod+"/eviction", "-f", writeFile(t, eviction))
	}},
	{"workload_rolled_out", "s2-0", "svc-0.stack-0/", func(t *testing.T, namespace, _ string) {
		kubectl(t, "-n", namespace, "rollout", "restart", "deployment/svc-0")
	}},
}

// waiter is a program with a connection that nobody sends on. Once that has ended it tries
// to connect again, and stays until its standard input ends.
const waiter = `
import errno, os, socket, sys, time
peer = ("ledger.shop", 7000) # which waits for as long as its client does
s = socket.create_connection(peer, 60)
s.settimeout(None)
print("waiting", flush=True)
try:
    s.recv(1)
    print("end", flush=True)
except OSError as e:
    print(errno.errorcode.get(e.errno, str(e)), flush=True)
give_up = time.time() + 120
while time.time() < give_up:
    try:
        socket.create_connection(peer, 5).close()
        print("again " + os.environ["POD_NAME"], flush=True)
        break
    except OSError:
        time.sleep(0.1)
sys.stdin.read()
`

// waiting is a waiter that runs.
type waiting struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	words chan string // what it prints, line by line
	told  hearing     // what else its terminal hears
}

// hearing is what is written to a terminal.
type hearing struct {
	mu   sync.Mutex
	text strings.Builder
}

func (h *hearing) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.Write(p)
}

func (h *hearing) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.String()
}

// startWaiter runs a waiter in a session and returns when it is connected.
func startWaiter(t *testing.T, session string) *waiting {
	t.Helper()
	return startProgram(t, session, waiter)
}

// startProgram runs a program of Python in a session and returns when it says that it waits.
func startProgram(t *testing.T, session, program string) *waiting {
	t.Helper()
	w := &waiting{cmd: exec.Command("borrownet", "run", "--session", session, "--", "python3", "-c", program), words: make(chan string, 10)}
	w.cmd.Stderr = &w.told
	in, err := w.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	w.in = in
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.cmd.Process.Kill() })
	go func() { // ends with the program
		defer close(w.words)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			w.words <- lines.Text()
		}
	}()
	if got := w.next(t); got != "waiting" {
		w.cmd.Wait()
		t.Fatalf("the program says %q: %s", got, w.told.String())
	}
	return w
}

// next returns what the program prints next, "" at its end.
func (w *waiting) next(t *testing.T) string {
	t.Helper()
	select {
	case word := <-w.words:
		return word
	case <-time.After(3 * time.Minute):
		t.Fatal("the program says nothing for three minutes")
	}
	return ""
}

// end has the program end.
func (w *waiting) end(t *testing.T) {
	t.Helper()
	w.in.Close()
	for range w.words {
	}
	if err := w.cmd.Wait(); err != nil {
		t.Errorf("the program: %v\n%s", err, w.told.String())
	}
}

// moves watches a waiter's session go on at another pod than that of before, after what
// lose does, and returns its status then.
func (w *waiting) moves(t *testing.T, before sessionStatus, lose func()) sessionStatus {
	t.Helper()
	begun := time.Now()
	lose()
	if got := w.next(t); got != "ECONNRESET" {
		t.Errorf("the old connection ends with %q, want ECONNRESET", got)
	}
	reset := time.Now()
	if got, want := w.next(t), "again "+before.Target.Pod; got != want {
		t.Errorf("the program says %q, want %q: its environment cannot change", got, want)
	}
	again := time.Now()
	var s sessionStatus // a connection may succeed a moment before the session says that it is there
	waitFor(t, "the session goes on at another pod", patience, func() bool {
		s = statuses(t)[before.Session]
		return s.State == "ready" && s.Moved != nil
	})
	ready := readySince(t, s.Target.Namespace, s.Target.Pod)
	t.Logf("the old connection was reset after %v; a new one worked %v later, %v after its pod was ready (a time in whole seconds)",
		reset.Sub(begun).Round(10*time.Millisecond), again.Sub(reset).Round(10*time.Millisecond), again.Sub(ready).Round(10*time.Millisecond))
	// The last of it comes last.
	wants := []string{"looks for a pod to go on with", "session " + s.Session + " is pod " + s.Target.Pod + " now, it was " + before.Target.Pod, "POD_NAME changed"}
	for end := time.Now().Add(time.Minute); !strings.Contains(w.told.String(), wants[2]) && time.Now().Before(end); {
		<-time.After(50 * time.Millisecond)
	}
	for _, want := range wants {
		if told := w.told.String(); !strings.Contains(told, want) {
			t.Errorf("the program's terminal does not hear %q:\n%s", want, told)
		}
	}
	w.end(t)
	if s.Moved.From != before.Target.Pod || s.Target.Pod == before.Target.Pod {
		t.Errorf("status %+v", s)
	}
	return s
}

// readySince waits until a pod is ready, which one that takes long to be so need not be yet, and returns since when it is.
func readySince(t *testing.T, namespace, pod string) time.Time {
	t.Helper()
	kubectl(t, "-n", namespace, "wait", "--for=condition=Ready", "pod/"+pod, "--timeout=180s")
	text := kubectl(t, "-n", namespace, "get", "pod", pod, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].lastTransitionTime}`)
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Errorf("pod %s is not ready: %v", pod, err)
	}
	return at
}

// podGoes has the pod of a session go under a program: that session goes on at another
// one, and no other session does.
func (st *stack) podGoes(t *testing.T, by way) {
	list := statuses(t)
	before := list[by.session]
	w := startWaiter(t, by.session)
	s := w.moves(t, before, func() { by.lose(t, before.Target.Namespace, before.Target.Pod) })
	if got := sees(t, by.session, "http://"+by.peer); !s.from(got.Remote) {
		t.Errorf("it was seen as %s, want %v", got.Remote, s.Target.PodIPs)
	}
	for name, other := range statuses(t) {
		if name != by.session && (other.State != "ready" || other.Target.Pod != list[name].Target.Pod) {
			t.Errorf("session %s: %+v, want nothing to have happened to it", name, other)
		}
	}
}

// silence has the kubelet, which every connection to a pod goes through, stand still for
// half a minute, once the kubelet has said that this script has ended.
const silence = `
for d in /proc/[0-9]*; do
  case "$(tr '\0' ' ' <$d/cmdline 2>/dev/null)" in *"/kubeconfig/kubelet "*) kubelet=${d#/proc/} ;; esac
done
setsid sh -c "sleep 2; kill -STOP $kubelet; sleep 30; kill -CONT $kubelet" >/dev/null 2>&1 &
`

// TestSoakNodeLost: a node falls silent, and one of the pods there is removed by force, as
// is done when a node is lost for good. Its session says that it looks for another and goes
// on at the pod that takes its place, once there is a node for that. The other session
// waits, and its connections live on. With two nodes, one of which is lost for good, there is
// TestNodesOneIsLost.
func TestSoakNodeLost(t *testing.T) {
	st := makeStack(t, "silent", 2, 1)
	mustBorrownet(t, "up", "-f", st.file, "-d")
	list := statuses(t)
	gone, stays := startWaiter(t, "s0-0"), startWaiter(t, "s1-0")
	onNode(t)(silence)
	waitFor(t, "the node is silent", 30*time.Second, func() bool {
		healthz := []string{"kubectl", "--kubeconfig", os.Getenv("LAB_ADMIN_KUBECONFIG"), "get", "--raw", "/api/v1/nodes/lab/proxy/healthz", "--request-timeout=1s"}
		return command{argv: healthz}.run(t).code != 0
	})
	gone.moves(t, list["s0-0"], func() {
		kubectl(t, "-n", list["s0-0"].Target.Namespace, "delete", "pod", list["s0-0"].Target.Pod, "--force", "--grace-period=0")
	})
	waitFor(t, "the other session is ready again", patience, func() bool { return statuses(t)["s1-0"].State == "ready" })
	if s := statuses(t)["s1-0"]; s.Moved != nil || s.Target.Pod != list["s1-0"].Target.Pod {
		t.Errorf("the other session: %+v, want it where it was", s)
	}
	select {
	case word := <-stays.words:
		t.Errorf("its connection has ended: %q", word)
	default:
	}
}
