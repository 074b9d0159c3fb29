//go:build lab

package integration

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/integration/labnode"
)

// TestDirect lets the laptop reach the pod over UDP, cuts it off and lets it in again, under flows of all kinds: none is lost
// and no byte of them is wrong. The agent has one UDP port, while it is used, and none of any other kind more than usual.
func TestDirect(t *testing.T) {
	pod := freshPod(t)
	node := onNode(t)
	in := netnsOf(t, node, pod.Metadata.UID)
	before := lookAt(node, in)
	t.Cleanup(func() { node(labnode.Walled) })
	up(t, pod.Metadata.Name, "--direct")
	carried := func(what string, direct bool, why string) {
		t.Helper()
		waitFor(t, what, patience, func() bool {
			var list []struct{ Carrier, BulkCarrier, NotDirect string }
			r := borrownet(t, "status", "-o", "json") // fails while nothing answers
			if err := json.Unmarshal([]byte(r.stdout), &list); err != nil || len(list) != 1 {
				t.Fatalf("status: %v, %v", err, r)
			}
			st := list[0]
			return (st.Carrier == "direct" && st.BulkCarrier == "direct") == direct && strings.Contains(st.NotDirect, why)
		})
	}
	carried("no way to the pod", false, "no answer")
	node(labnode.Flat)
	carried("the way to the pod found", true, "")
	other := strings.Fields(before["other-listeners"])
	waitFor(t, "the agent listens on one UDP port of "+pod.Status.PodIP, patience, func() bool { // on another for a moment, if the path was lost and found
		var ports []string
		for line := range strings.Lines(lookAt(node, in)["other-listeners"]) {
			if kind, at, _ := strings.Cut(strings.TrimSpace(line), " "); kind == "udp" && !slices.Contains(other, at) {
				ports = append(ports, at)
			}
		}
		return len(ports) == 1 && strings.HasPrefix(ports[0], pod.Status.PodIP+":")
	})

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("borrownet", "run", "--", filepath.Join(filepath.Dir(self), "bench"), "survive", "ledger.shop:7000", "ledger.shop:7001", "ledger.shop:7002")
	cmd.Stderr = os.Stderr
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	if _, err := io.ReadFull(out, make([]byte, len("moving\n"))); err != nil {
		t.Fatalf("flows do not begin: %v", err)
	}
	node(labnode.Walled)
	carried("the way to the pod lost", false, "path was lost")
	node(labnode.Flat)
	carried("the way to the pod found again", true, "")
	input.Close()
	var found struct {
		Flows       int
		Lost, Wrong []string
	}
	if err := json.NewDecoder(out).Decode(&found); err != nil {
		t.Fatalf("what became of the flows: %v", err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if found.Flows != 50 || len(found.Lost) > 0 || len(found.Wrong) > 0 {
		t.Errorf("flows %+v", found)
	}

	mustBorrownet(t, "down", "--all", "--stop-agent")
	waitFor(t, "the agent has ended", patience, func() bool { return podOf(t, pod.Metadata.Name).running() == 0 })
	if diff := cmp.Diff(before, lookAt(node, in)); diff != "" {
		t.Errorf("after the session (-before +after):\n%s", diff)
	}
}
