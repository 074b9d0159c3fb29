//go:build lab

package integration

import (
	"fmt"
	"maps"
	"strings"
	"testing"
)

// tight is a namespace at the Pod Security level "restricted" whose pods may only have
// images of the application: one with a shell in it, one without.
const (
	tight       = "tight"
	imagePolicy = "only-the-apps-registry"
)

// makeTight makes the namespace, its policy, its pods and the Role for the laptop's user.
func makeTight(t *testing.T) {
	t.Helper()
	var pods strings.Builder
	for name, image := range map[string]string{"shelly": "lab.local/api-shell:1", "distroless": "lab.local/api:1"} {
		fmt.Fprintf(&pods, `---
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s}
spec:
  terminationGracePeriodSeconds: 1
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, runAsUser: 10001, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: app
    image: %s
    env:
    - {name: COLOUR, value: blue}
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
`, name, tight, image)
	}
	newNamespace(t, tight, enforce+`: restricted, borrownet.dev/agent-only: "true"`)
	kubectl(t, "apply", "-f", writeFile(t, fmt.Sprintf(`
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: %[2]s}
spec:
  matchConstraints:
    resourceRules:
    - {apiGroups: [""], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [pods, pods/ephemeralcontainers]}
  validations:
  - {expression: "(object.spec.containers.map(c, c.image) + (has(object.spec.ephemeralContainers) ? object.spec.ephemeralContainers.map(c, c.image) : [])).all(i, i.startsWith('lab.local/api'))", message: images come from the app's registry}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: %[2]s}
spec:
  policyName: %[2]s
  validationActions: [Deny]
  matchResources:
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %[1]s}}
%[3]s`, tight, imagePolicy, pods.String())))
	t.Cleanup(func() {
		kubectl(t, "delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", imagePolicy)
		kubectl(t, "delete", "namespace", tight)
	})
	role := mustBorrownet(t, "rbac", "-n", tight, "--workloads", "--target-image", "--subject", "user:dev").stdout
	kubectl(t, "apply", "-f", writeFile(t, role))
	kubectl(t, "-n", tight, "wait", "--for=condition=Ready", "pod/shelly", "pod/distroless", "--timeout=180s")
}

func tightPod(t *testing.T, name string) (p pod) {
	t.Helper()
	decode(t, kubectl(t, "-n", tight, "get", "pod", name, "-o", "json"), &p)
	return p
}

// TestTargetImage: where a policy lets only the application's images in, the agent starts
// from the application's own.
func TestTargetImage(t *testing.T) {
	makeTight(t)
	upArgs := func(pod string, more ...string) []string {
		return append([]string{"-n", tight, "--pod", pod}, more...)
	}
	t.Run("agents_image_is_refused", func(t *testing.T) {
		waitFor(t, "the policy is in force", patience, func() bool {
			return borrownet(t, append([]string{"up", "--dry-run"}, upArgs("shelly")...)...).code != 0
		})
		failsWith(t, command{argv: upArgs("shelly")}, imagePolicy, "images come from the app's registry")
		if n := len(tightPod(t, "shelly").Spec.EphemeralContainers); n != 0 {
			t.Errorf("the refused agent left %d containers", n)
		}
	})
	t.Run("targets_image_works", func(t *testing.T) {
		up := append([]string{"up", "-d"}, upArgs("shelly", "--agent-image", "target")...)
		mustBorrownet(t, up...)
		var got seen
		decode(t, mustBorrownet(t, "run", "--", "curl", "-sS", "http://orders.shop").stdout, &got)
		p := tightPod(t, "shelly")
		if got.App != "orders" || !p.has(got.Remote) {
			t.Errorf("orders saw %+v, the pod is %v", got, p.Status.PodIPs)
		}
		if env := mustBorrownet(t, "run", "--", "env").stdout; !strings.Contains(env, "COLOUR=blue\n") {
			t.Errorf("no environment of the pod:\n%s", env)
		}
		mustBorrownet(t, "down")
		if r := mustBorrownet(t, up...); !strings.Contains(r.stderr, "(reused)") {
			t.Errorf("the parked agent was not taken again:\n%s", r.stderr)
		}
		mustBorrownet(t, "run", "--", "curl", "-sS", "http://orders.shop")
		mustBorrownet(t, "down", "--stop-agent")
		if n := len(tightPod(t, "shelly").Spec.EphemeralContainers); n != 1 {
			t.Errorf("%d containers were added, want 1", n)
		}
		waitFor(t, "the agent is gone", patience, func() bool { return tightPod(t, "shelly").running() == 0 })
	})
	t.Run("distroless_says_why_not", func(t *testing.T) {
		failsWith(t, command{argv: upArgs("distroless", "--agent-image", "target")}, `image "lab.local/api:1" of container app has no shell`, "--agent-image REF")
		if n := tightPod(t, "distroless").running(); n != 0 {
			t.Errorf("%d containers still run", n)
		}
	})
	t.Run("right_to_attach_is_named", func(t *testing.T) {
		role := mustBorrownet(t, "rbac", "-n", tight, "--workloads", "--subject", "user:dev").stdout
		kubectl(t, "apply", "-f", writeFile(t, role))
		waitFor(t, "the right is gone", patience, func() bool {
			return strings.TrimSpace(command{argv: []string{"kubectl", "-n", tight, "auth", "can-i", "create", "pods", "--subresource=attach"}}.run(t).stdout) == "no"
		})
		failsWith(t, command{argv: upArgs("shelly", "--agent-image", "target")}, "may not create pods/attach", "--target-image --subject user:dev")
	})
}

// TestPolicyAdmitsTheTargetsImage: what `borrownet policy --target-image` prints admits
// that mode with the agents beside the client, and nothing like it.
func TestPolicyAdmitsTheTargetsImage(t *testing.T) {
	yard(t, guarded, "borrownet.dev/agent-only: \"true\"")
	role := mustBorrownet(t, "rbac", "-n", guarded, "--workloads", "--target-image", "--subject", "user:dev").stdout
	kubectl(t, "apply", "-f", writeFile(t, role))
	good := plannedContainer(t, guarded, "--agent-image", "target")
	admit(t, "--registry", agentRepo, "--target-image")
	warnings := kubectl(t, "get", "validatingadmissionpolicy", policyOf, "-o", "jsonpath={.status.typeChecking.expressionWarnings}")
	if warnings != "" && warnings != "[]" {
		t.Errorf("the API server finds fault with the expressions: %s", warnings)
	}
	words := func(key string, change func([]any)) func(object) {
		return func(c object) {
			list := append([]any{}, c[key].([]any)...)
			change(list)
			c[key] = list
		}
	}
	for _, tt := range []struct {
		name  string
		spoil func(object)
		want  string
	}{
		{"as_it_is", func(object) {}, ""},
		{"image_of_the_proxy", func(c object) { c["image"] = "lab.local/pause:1" }, ""},
		{"foreign_image", func(c object) { c["image"] = "lab.local/orders:1" }, "image"},
		{"other_script", words("command", func(w []any) { w[2] = "exec /bin/sh" }), "checked"},
		{"more_script", words("command", func(w []any) { w[2] = w[2].(string) + "\n" }), "checked"},
		{"other_program", words("args", func(w []any) { w[0] = "amd64:7:" + strings.Repeat("0", 64) }), "checked"},
		{"one_more_program", words("args", func(w []any) { w[0] = w[0].(string) + ",amd64:7:" + strings.Repeat("0", 64) }), "checked"},
		{"no_program", func(c object) { c["args"] = c["args"].([]any)[1:] }, "checked"},
		{"terminal", func(c object) { c["tty"] = true }, "terminal"},
		{"input_for_ever", func(c object) { c["stdinOnce"] = false }, "checked"},
		{"input_for_the_agents_image", func(c object) {
			delete(c, "command")
			c["image"], c["args"] = agentRepo+":1", c["args"].([]any)[1:]
		}, "standard input"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := maps.Clone(good)
			tt.spoil(c)
			r := add(t, guarded, true, c)
			if tt.want == "" {
				if r.code != 0 {
					t.Error(r)
				}
				return
			}
			if r.code == 0 || !strings.Contains(r.stderr, "ValidatingAdmissionPolicy '"+policyOf+"'") || !strings.Contains(r.stderr, tt.want) {
				t.Errorf("want a refusal by %s that says %q: %v", policyOf, tt.want, r)
			}
		})
	}
	t.Run("agents_own_image", func(t *testing.T) {
		if r := add(t, guarded, true, plannedContainer(t, guarded)); r.code != 0 {
			t.Error(r)
		}
	})
}
