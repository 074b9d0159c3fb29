//go:build lab

package integration

import (
	"bufio"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestListNamesBorrowers: ls says what there is and who borrows it, to the borrower
// himself by his session.
func TestListNamesBorrowers(t *testing.T) {
	up(t, "web")
	var list struct {
		Context    string
		Namespaces []struct {
			Name, PodSecurity string
			RightsKnown       bool
			Missing           []string
		}
		Targets []struct {
			Ref         string
			Pods, Ready int
			Borrowers   []struct{ Pod, State, Client, Session string }
		}
	}
	decode(t, mustBorrownet(t, "ls", "-n", "shop", "-o", "json").stdout, &list)
	if len(list.Namespaces) != 1 || list.Namespaces[0].Name != "shop" || !list.Namespaces[0].RightsKnown || len(list.Namespaces[0].Missing) > 0 {
		t.Errorf("namespaces %+v", list.Namespaces)
	}
	found := false
	for _, o := range list.Targets {
		if o.Ref != "deploy/web" {
			continue
		}
		found = true
		var mine int
		for _, b := range o.Borrowers {
			if b.Session != "" && b.State == "borrowed" && strings.Contains(b.Client, "@") && strings.HasPrefix(b.Pod, "web-") {
				mine++
			}
		}
		if mine != 1 || o.Ready < 1 {
			t.Errorf("deploy/web: %+v", o)
		}
	}
	if !found {
		t.Errorf("deploy/web is not among %+v", list.Targets)
	}
}

// TestForwardInTheLab reaches a Service from this test, which is not wrapped and
// could not reach it otherwise.
func TestForwardInTheLab(t *testing.T) {
	up(t, "web")
	cmd := exec.Command("borrownet", "forward", "0:orders:80")
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stuck := time.AfterFunc(4*time.Minute, func() { cmd.Process.Kill() })
	defer stuck.Stop()
	line, err := bufio.NewReader(out).ReadString('\n')
	at := regexp.MustCompile(`^127\.0\.0\.1:[0-9]+`).FindString(line)
	if err != nil || at == "" {
		t.Fatalf("forward says %q, %v", line, err)
	}
	resp, err := (&http.Client{Timeout: 2 * time.Minute}).Get("http://" + at)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if m := remote.FindSubmatch(text); err != nil || m == nil || !strings.HasPrefix(string(m[1]), podOf(t, "web").Status.PodIP+":") {
		t.Errorf("orders did not see the pod: %s, %v", text, err)
	}
	cmd.Process.Signal(syscall.SIGINT)
	if err := cmd.Wait(); err != nil {
		t.Errorf("forward: %v", err)
	}
}
