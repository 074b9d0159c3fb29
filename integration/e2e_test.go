//go:build lab

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain turns the test binary into a probe when it runs under borrownet:
// a static Go program whose connections the session carries.
func TestMain(m *testing.M) {
	if name := os.Getenv(probeVar); name != "" {
		os.Exit(runProbe(name, os.Args[1:]))
	}
	for _, v := range []string{"KUBECONFIG", "LAB_ADMIN_KUBECONFIG", "BORROWNET_AGENT_IMAGE", "XDG_RUNTIME_DIR"} {
		if os.Getenv(v) == "" {
			os.Stderr.WriteString(v + " is not set: these tests run on the lab's laptop (make test-lab)\n")
			os.Exit(1)
		}
	}
	code := m.Run()
	exec.Command("borrownet", "down", "--all", "--stop-agent").Run()
	for _, leak := range leftInCluster() {
		os.Stderr.WriteString(leak + "\n")
		code = 1
	}
	os.Exit(code)
}

// result is what a command left.
type result struct {
	stdout, stderr string
	code           int
	took           time.Duration // set by failsWith
}

func (r result) String() string {
	return "exit code " + itoa(r.code) + "\nstdout: " + r.stdout + "\nstderr: " + r.stderr
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }

// command is one run of a program on the laptop.
type command struct {
	argv    []string
	env     []string // added to the test's own
	stdin   string
	timeout time.Duration // 0 = four minutes
}

func (c command) run(t *testing.T) result {
	t.Helper()
	if c.timeout == 0 {
		c.timeout = 4 * time.Minute
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout) // also in Cleanup, when t.Context has ended
	defer cancel()
	cmd := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Stdin = strings.NewReader(c.stdin)
	cmd.Env = append(os.Environ(), c.env...)
	cmd.WaitDelay = 30 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("%q still ran after %v\nstdout: %s\nstderr: %s", c.argv, c.timeout, &stdout, &stderr)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%q: %v\nstderr: %s", c.argv, err, &stderr)
	}
	return result{stdout: stdout.String(), stderr: stderr.String(), code: cmd.ProcessState.ExitCode()}
}

// borrownet runs the client and returns what it left.
func borrownet(t *testing.T, args ...string) result {
	t.Helper()
	return command{argv: append([]string{"borrownet"}, args...)}.run(t)
}

// mustBorrownet is borrownet for calls that have to succeed.
func mustBorrownet(t *testing.T, args ...string) result {
	t.Helper()
	r := borrownet(t, args...)
	if r.code != 0 {
		t.Fatalf("borrownet %q: %v", args, r)
	}
	return r
}

// up opens a session on pod. When the test ends it looks for leaked secrets and downs
// the session.
func up(t *testing.T, pod string, args ...string) {
	t.Helper()
	mustBorrownet(t, append([]string{"up", "-d", "-n", "shop", "--pod", pod}, args...)...)
	t.Cleanup(func() {
		noLeaks(t)
		exec.Command("borrownet", "down", "--all").Run()
	})
}

// kubectl runs as the cluster's administrator and returns standard output.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	r := command{argv: append([]string{"kubectl", "--kubeconfig", os.Getenv("LAB_ADMIN_KUBECONFIG")}, args...)}.run(t)
	if r.code != 0 {
		t.Fatalf("kubectl %q: %v", args, r)
	}
	return r.stdout
}

// newNamespace makes a namespace with labels and waits for the ServiceAccount of pods that name none: the API server
// refuses such pods before.
func newNamespace(t *testing.T, name, labels string) {
	t.Helper()
	kubectl(t, "apply", "-f", writeFile(t, fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s, labels: {%s}}\n", name, labels)))
	kubectl(t, "-n", name, "wait", "--for=create", "serviceaccount/default", "--timeout=180s")
}

// inLoad is the pod load of a namespace, by what kubectl runs a call of the sample apps there with.
func inLoad(namespace string) []string {
	return []string{"-n", namespace, "exec", "load", "-c", "load", "--", "/caller"}
}

// fromAPI is the sample pod api, likewise.
var fromAPI = []string{"-n", "shop", "exec", "deploy/api", "-c", "api", "--", "/api"}

// awaitServices waits until Services that were just made answer a pod: the node has the rules that lead to them.
func awaitServices(t *testing.T, from []string, urls ...string) {
	t.Helper()
	argv := append([]string{"kubectl", "--kubeconfig", os.Getenv("LAB_ADMIN_KUBECONFIG")}, from...)
	for _, url := range urls {
		waitFor(t, url+" answers", patience, func() bool {
			return command{argv: append(argv[:len(argv):len(argv)], "get", url)}.run(t).code == 0
		})
	}
}

// pod is what the tests need to know of a pod.
type pod struct {
	Metadata struct {
		Name string `json:"name"`
		UID  string `json:"uid"`
	} `json:"metadata"`
	Spec struct {
		EphemeralContainers []struct {
			Name string `json:"name"`
		} `json:"ephemeralContainers"`
	} `json:"spec"`
	Status struct {
		PodIP  string `json:"podIP"`
		PodIPs []struct {
			IP string `json:"ip"`
		} `json:"podIPs"`
		EphemeralContainerStatuses []struct {
			Name  string `json:"name"`
			State struct {
				Running    *struct{} `json:"running"`
				Terminated *struct {
					Reason string `json:"reason"`
				} `json:"terminated"`
			} `json:"state"`
		} `json:"ephemeralContainerStatuses"`
	} `json:"status"`
}

// podOf returns the one pod of app in namespace shop.
func podOf(t *testing.T, app string) pod {
	t.Helper()
	var list struct {
		Items []pod `json:"items"`
	}
	decode(t, kubectl(t, "-n", "shop", "get", "pods", "-l", "app="+app, "-o", "json"), &list)
	if len(list.Items) != 1 {
		t.Fatalf("%d pods of app %s, want 1", len(list.Items), app)
	}
	return list.Items[0]
}

// has reports whether addr, with or without a port, is one of the pod's.
func (p pod) has(addr string) bool {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		addr = host
	}
	for _, ip := range p.Status.PodIPs {
		if ip.IP == addr {
			return true
		}
	}
	return false
}

// running counts the agents that run in p.
func (p pod) running() int {
	n := 0
	for _, s := range p.Status.EphemeralContainerStatuses {
		if s.State.Running != nil {
			n++
		}
	}
	return n
}

func decode(t *testing.T, text string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatalf("decode: %v\n%s", err, text)
	}
}

// seen is the sample apps' answer.
type seen struct {
	App     string              `json:"app"`
	Remote  string              `json:"remote"`
	Proto   string              `json:"proto"`
	Headers map[string][]string `json:"headers"`
}

// patience bounds a wait for what comes within seconds on a quiet machine.
const patience = 3 * time.Minute

// waitFor polls until ok holds: for facts of the cluster or the process table
// that nothing announces.
func waitFor(t *testing.T, what string, limit time.Duration, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(limit); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// runtimeDir is where the client keeps its files.
func runtimeDir() string { return filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "borrownet") }

// leftovers lists the processes and files of borrownet that are on the laptop,
// besides the client keys that a parked agent is taken again with, and the preload
// library, which programs may still need.
func leftovers(t *testing.T) []string {
	t.Helper()
	var found []string
	stats, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		line, err := os.ReadFile(path)
		if err != nil {
			continue // ended meanwhile
		}
		argv0, _, _ := strings.Cut(string(line), "\x00")
		if filepath.Base(argv0) == "borrownet" || strings.Contains(string(line), "\x00__netns\x00") || strings.Contains(string(line), "\x00__daemon") {
			found = append(found, path+": "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	err = filepath.WalkDir(runtimeDir(), func(path string, d os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		library := strings.HasPrefix(filepath.Base(filepath.Dir(path)), "lib-")
		if !d.IsDir() && !library && !strings.HasSuffix(path, ".key") {
			found = append(found, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
