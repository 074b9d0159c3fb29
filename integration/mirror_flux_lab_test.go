//go:build lab

package integration

import (
	"fmt"
	"os"
	"testing"
)

// bareMirrored has Flux apply the pod that is in Git as such into the namespace whose pods may be mirrored.
const bareMirrored = `apiVersion: v1
kind: ServiceAccount
metadata: {name: api, namespace: %[1]s}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: bare-mirrored, namespace: flux-system}
spec:
  interval: 1h
  path: ./bare
  prune: true
  targetNamespace: %[1]s
  sourceRef: {kind: GitRepository, name: lab}
`

// TestFluxSeesNoDriftWhileMirroring: a pod that is itself in Git is as it is there for Flux while what it gets is copied.
func TestFluxSeesNoDriftWhileMirroring(t *testing.T) {
	needFlux(t)
	makeMirrored(t, "privileged")
	admin := []string{"kubectl", "--kubeconfig", os.Getenv("LAB_ADMIN_KUBECONFIG"), "apply", "-f", "-"}
	if r := (command{argv: admin, stdin: fmt.Sprintf(bareMirrored, mirrored)}).run(t); r.code != 0 {
		t.Fatal(r)
	}
	t.Cleanup(func() { kubectl(t, "-n", "flux-system", "delete", "kustomization", "bare-mirrored") })
	waitFor(t, "Flux has made the pod", patience, func() bool {
		return kubectl(t, "-n", mirrored, "get", "pods", "-l", "app=bare", "-o", `jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}`) == "True"
	})
	wantUnchanged(t, "before the session", "bare-mirrored", 1)
	app := listenForCopies(t)
	mustBorrownet(t, "up", "-d", "-n", mirrored, "--pod", "bare", "--mirror", fmt.Sprintf("8080:%d", app.port))
	t.Cleanup(func() { borrownet(t, "down", "--all", "--stop-agent") })
	if s := mirrorOf(t, "bare"); !s.Mirror.Running {
		t.Fatalf("status: %s", s.text)
	}
	wantUnchanged(t, "during the session", "bare-mirrored", 1)
	mustBorrownet(t, "down", "--all", "--stop-agent")
	wantUnchanged(t, "after the session", "bare-mirrored", 1)
	// The control: a change of the pod is undone.
	kubectl(t, "-n", mirrored, "label", "--overwrite", "pod", "bare", "app=drifted")
	if did := reconcile(t, "bare-mirrored"); did["Pod/"+mirrored+"/bare"] != "configured" {
		t.Errorf("after kubectl label Flux says: %v", did)
	}
}
