//go:build lab

package integration

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// objects returns everything in namespace shop that GitOps or another team
// could care about, as the API server prints it: whole workloads and Services,
// and of pods all but what an ephemeral container has to change.
func objects(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{
		"workloads": kubectl(t, "-n", "shop", "get", "deployments,replicasets,services,endpointslices,configmaps,secrets,serviceaccounts,roles,rolebindings,networkpolicies", "-o", "json", "--show-managed-fields"),
	}
	var pods struct {
		Items []struct {
			Metadata map[string]any `json:"metadata"`
			Spec     map[string]any `json:"spec"`
			Status   struct {
				Phase             string `json:"phase"`
				ContainerStatuses []any  `json:"containerStatuses"`
			} `json:"status"`
		} `json:"items"`
	}
	decode(t, kubectl(t, "-n", "shop", "get", "pods", "-o", "json"), &pods)
	for _, p := range pods.Items {
		for _, volatile := range []string{"resourceVersion", "generation", "managedFields"} {
			delete(p.Metadata, volatile)
		}
		delete(p.Spec, "ephemeralContainers")
		text, err := json.MarshalIndent(p, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		all["pod "+p.Metadata["name"].(string)] = string(text)
	}
	return all
}

// TestNothingOfTheClusterChanges compares all objects before, during and after
// a session that carries traffic.
func TestNothingOfTheClusterChanges(t *testing.T) {
	var before map[string]string
	waitFor(t, "the cluster rests", patience, func() bool {
		<-time.After(5 * time.Second) // a kubelet tells of changes when it gets to it
		last := before
		before = objects(t)
		return cmp.Equal(last, before) && !slices.ContainsFunc(slices.Collect(maps.Values(before)), func(text string) bool { return strings.Contains(text, "deletionTimestamp") })
	})
	entries := len(podOf(t, "web").Spec.EphemeralContainers)
	up(t, "web")
	probe(t, time.Minute, "get", "http://orders/")
	if diff := cmp.Diff(before, objects(t)); diff != "" {
		t.Errorf("during the session (-before +during):\n%s", diff)
	}
	mustBorrownet(t, "down", "--all", "--stop-agent")
	if diff := cmp.Diff(before, objects(t)); diff != "" {
		t.Errorf("after the session (-before +after):\n%s", diff)
	}
	if got := len(podOf(t, "web").Spec.EphemeralContainers); got > entries+1 {
		t.Errorf("%d ephemeral containers, want at most one more than %d", got, entries)
	}
}

func TestParkedAgentIsTakenAgain(t *testing.T) {
	up(t, "api")
	mustBorrownet(t, "down", "--all")
	first := podOf(t, "api")
	if first.running() == 0 {
		t.Fatal("down ended the agent, want it parked")
	}
	r := mustBorrownet(t, "up", "-d", "-n", "shop", "--pod", "api")
	if second := podOf(t, "api"); len(second.Spec.EphemeralContainers) != len(first.Spec.EphemeralContainers) {
		t.Errorf("second up added a container: %v", r)
	}
	probe(t, time.Minute, "get", "http://orders/")
}

func TestStopAgent(t *testing.T) {
	up(t, "api")
	before := podOf(t, "api").running()
	mustBorrownet(t, "down", "--all", "--stop-agent")
	waitFor(t, "the agent ends", patience, func() bool { return podOf(t, "api").running() < before })
	nothingLeft(t)
}

// nothingLeft waits until nothing of borrownet is on the laptop, and complains of what stays.
func nothingLeft(t *testing.T) {
	t.Helper()
	var left []string
	end := time.Now().Add(time.Minute)
	for left = leftovers(t); len(left) != 0 && time.Now().Before(end); left = leftovers(t) {
		<-time.After(100 * time.Millisecond)
	}
	if len(left) != 0 {
		t.Errorf("left on the laptop: %q", left)
	}
}

// TestIdleAgentLeaves sets an idle time of 5 s.
func TestIdleAgentLeaves(t *testing.T) {
	up(t, "web", "--idle-ttl", "5s")
	running := podOf(t, "web").running()
	probe(t, time.Minute, "get", "http://orders/")
	mustBorrownet(t, "down", "--all")
	waitFor(t, "the parked agent ends", patience, func() bool { return podOf(t, "web").running() < running })
}

// TestNothingStaysOnTheLaptop ends sessions in every way there is.
func TestNothingStaysOnTheLaptop(t *testing.T) {
	foreground := func(t *testing.T) *exec.Cmd {
		cmd := exec.Command("borrownet", "up", "-n", "shop", "--pod", "api")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the session is ready", patience, func() bool {
			return borrownet(t, "status", "api").code == 0
		})
		return cmd
	}
	signal := func(sig syscall.Signal) func(t *testing.T) {
		return func(t *testing.T) {
			cmd := foreground(t)
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			cmd.Wait()
		}
	}
	tests := []struct {
		name string
		end  func(t *testing.T)
	}{
		{"down", func(t *testing.T) { up(t, "api"); mustBorrownet(t, "down", "--all") }},
		{"interrupt", signal(syscall.SIGINT)},
		{"terminate", signal(syscall.SIGTERM)},
		{"kill_up", signal(syscall.SIGKILL)},
		{"kill_daemon", func(t *testing.T) {
			up(t, "api")
			syscall.Kill(daemonPID(t), syscall.SIGKILL)
		}},
		{"terminate_daemon", func(t *testing.T) {
			up(t, "api")
			syscall.Kill(daemonPID(t), syscall.SIGTERM)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.end(t)
			nothingLeft(t)
		})
	}
}

// daemonPID finds the user's daemon in the process table.
func daemonPID(t *testing.T) int {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range lines {
		line, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(line), "\x00__daemon") {
			var pid int
			decode(t, filepath.Base(filepath.Dir(path)), &pid)
			return pid
		}
	}
	t.Fatal("no daemon runs")
	return 0
}

// TestDaemonKilledUnderAProgram: a wrapped program never falls back to the
// laptop's own network.
func TestDaemonKilledUnderAProgram(t *testing.T) {
	up(t, "api")
	cmd := exec.Command("borrownet", "run", "--", "python3", "-u", "-c", `
import socket, sys
print("ready", flush=True)
sys.stdin.readline()
for host in ("orders", "192.0.2.1"):
    try:
        socket.create_connection((host, 80), 5)
        print("connected", flush=True)
    except OSError as e:
        print("failed", flush=True)
`)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	ready := make(chan struct{})
	cmd.Stdout = writerFunc(func(p []byte) (int, error) {
		if strings.Contains(string(p), "ready") {
			close(ready)
		}
		return out.Write(p)
	})
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-ready
	syscall.Kill(daemonPID(t), syscall.SIGKILL)
	stdin.Write([]byte("go\n"))
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("program: %v, output %q", err, out.String())
	}
	if got := out.String(); got != "ready\nfailed\nfailed\n" {
		t.Errorf("output %q", got)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestTwoSessionsTwoIdentities borrows two pods at once.
func TestTwoSessionsTwoIdentities(t *testing.T) {
	up(t, "api")
	up(t, "web")
	for _, app := range []string{"api", "web"} {
		r := mustBorrownet(t, "run", "--session", app, "--", "curl", "-sS", "http://orders/")
		var s seen
		decode(t, r.stdout, &s)
		if p := podOf(t, app); !p.has(s.Remote) {
			t.Errorf("session %s was seen as %s, want one of %v", app, s.Remote, p.Status.PodIPs)
		}
	}
	inside := mustBorrownet(t, "run", "--session", "api", "--", "borrownet", "run", "--session", "web", "--", "curl", "-sS", "http://orders/")
	var s seen
	decode(t, inside.stdout, &s)
	if p := podOf(t, "web"); !p.has(s.Remote) {
		t.Errorf("session web inside session api was seen as %s, want one of %v", s.Remote, p.Status.PodIPs)
	}
	if r := borrownet(t, "up", "-d", "-n", "shop", "--pod", "web", "--session", "api"); r.code == 0 || !strings.Contains(r.stderr, "hint:") {
		t.Errorf("second session with the name api: %v", r)
	}
	if r := borrownet(t, "run", "--", "true"); r.code != 125 || !strings.Contains(r.stderr, "--session") {
		t.Errorf("run with two sessions and none named: %v", r)
	}
}

func TestExitCodeIsTheCommands(t *testing.T) {
	up(t, "api")
	for _, tt := range []struct {
		name string
		argv []string
		want int
	}{
		{"zero", []string{"true"}, 0},
		{"own", []string{"sh", "-c", "exit 42"}, 42},
		{"signal", []string{"sh", "-c", "kill -TERM $$"}, 128 + int(syscall.SIGTERM)},
		{"not_found", []string{"no-such-command-anywhere"}, 127},
		{"not_executable", []string{"/etc/passwd"}, 126},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if r := borrownet(t, append([]string{"run", "--"}, tt.argv...)...); r.code != tt.want {
				t.Errorf("%v, want %d", r, tt.want)
			}
		})
	}
}
