//go:build lab

package integration

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// failsWith runs `borrownet up` and wants a failure that says all of want,
// gives a hint, and leaves nothing on the laptop.
func failsWith(t *testing.T, c command, want ...string) result {
	t.Helper()
	c.argv = append([]string{"borrownet", "up", "-d"}, c.argv...)
	begun := time.Now()
	r := c.run(t)
	r.took = time.Since(begun)
	if r.code == 0 {
		command{argv: []string{"borrownet", "down", "--all"}}.run(t)
		t.Fatalf("up %q succeeded: %v", c.argv, r)
	}
	for _, w := range append(want, "error:", "hint:") {
		if !strings.Contains(r.stderr, w) {
			t.Errorf("stderr does not say %q:\n%s", w, r.stderr)
		}
	}
	var left []string
	waitFor(t, "nothing is left on the laptop", patience, func() bool { left = leftovers(t); return len(left) == 0 })
	return r
}

// kubeconfig is the part of a kubeconfig that the tests rewrite.
type kubeconfig struct {
	Clusters []struct {
		Name    string         `json:"name"`
		Cluster map[string]any `json:"cluster"`
	} `json:"clusters"`
	Contexts []struct {
		Name    string         `json:"name"`
		Context map[string]any `json:"context"`
	} `json:"contexts"`
	Users []struct {
		Name string         `json:"name"`
		User map[string]any `json:"user"`
	} `json:"users"`
	CurrentContext string `json:"current-context"`
	APIVersion     string `json:"apiVersion"`
	Kind           string `json:"kind"`
}

// rewrite saves a changed copy of the user's kubeconfig and returns its path.
func rewrite(t *testing.T, change func(*kubeconfig)) string {
	t.Helper()
	r := command{argv: []string{"kubectl", "config", "view", "--raw", "-o", "json"}}.run(t)
	var k kubeconfig
	decode(t, r.stdout, &k)
	change(&k)
	text, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBadInputBeforeTheCluster(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := "https://" + closed.Addr().String()
	closed.Close()
	unreachable := rewrite(t, func(k *kubeconfig) { k.Clusters[0].Cluster["server"] = server })
	expired := rewrite(t, func(k *kubeconfig) { k.Users[0].User = map[string]any{"token": "expired"} })
	plugin := rewrite(t, func(k *kubeconfig) {
		k.Users[0].User = map[string]any{"exec": map[string]any{
			"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-auth-plugin", "interactiveMode": "Never",
		}}
	})
	tests := []struct {
		name string
		c    command
		want []string
	}{
		{"no_kubeconfig", command{argv: []string{"--pod", "api"}, env: []string{"KUBECONFIG=/nonexistent/config", "HOME=/nonexistent"}}, []string{"kubeconfig"}},
		{"unknown_context", command{argv: []string{"--pod", "api", "--context", "mars"}}, []string{"mars"}},
		{"unreachable", command{argv: []string{"--pod", "api", "-n", "shop", "--kubeconfig", unreachable}}, []string{closed.Addr().String()}},
		{"expired", command{argv: []string{"--pod", "api", "-n", "shop", "--kubeconfig", expired}}, []string{"credentials"}},
		{"no_auth_plugin", command{argv: []string{"--pod", "api", "-n", "shop", "--kubeconfig", plugin}}, []string{"no-such-auth-plugin"}},
		{"no_pod_flag", command{argv: nil}, []string{"--pod"}},
		{"no_image", command{argv: []string{"--pod", "api", "-n", "shop"}, env: []string{"BORROWNET_AGENT_IMAGE="}}, []string{"--agent-image"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { failsWith(t, tt.c, tt.want...) })
	}
}

func TestBadInputOfObjects(t *testing.T) {
	kubectl(t, "apply", "-f", writeFile(t, `
apiVersion: v1
kind: Pod
metadata: {name: never-runs, namespace: shop, labels: {app: never-runs}}
spec:
  securityContext: {runAsNonRoot: true, runAsUser: 10001, seccompProfile: {type: RuntimeDefault}}
  nodeSelector: {no-such: node}
  containers:
  - name: app
    image: lab.local/pause:1
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`))
	t.Cleanup(func() { kubectl(t, "-n", "shop", "delete", "pod", "never-runs", "--grace-period=0", "--force") })
	tests := []struct {
		name string
		argv []string
		want []string
	}{
		{"unknown_namespace", []string{"-n", "mars", "--pod", "api"}, []string{"mars"}},
		{"unknown_pod", []string{"-n", "shop", "--pod", "no-such-app"}, []string{"no-such-app", "shop"}},
		{"unknown_workload", []string{"-n", "shop", "--pod", "deploy/no-such-app"}, []string{"no-such-app"}},
		{"unknown_container", []string{"-n", "shop", "--pod", "api", "-c", "no-such-container"}, []string{"no-such-container"}},
		{"not_running", []string{"-n", "shop", "--pod", "never-runs"}, []string{"never-runs", "Pending"}},
		{"workload_without_pods", []string{"-n", "shop", "--pod", "svc/void"}, []string{"void"}},
		{"bad_reference", []string{"-n", "shop", "--pod", "a/b/c"}, []string{"a/b/c"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { failsWith(t, command{argv: tt.argv}, tt.want...) })
	}
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "object.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestImageThatCannotBePulled gives up after 12 s and names the image. What a busy machine takes for the rest, a dry run
// shows.
func TestImageThatCannotBePulled(t *testing.T) {
	const image = "registry.example.org/borrownet/agent:none"
	begun := time.Now()
	mustBorrownet(t, "up", "--dry-run", "-n", "shop", "--pod", "orders", "--agent-image", image)
	dry := time.Since(begun)
	r := failsWith(t, command{argv: []string{"-n", "shop", "--pod", "orders", "--agent-image", image}}, image)
	if r.took > 30*time.Second+2*dry { // 12 s twice, if nothing is known of the container by the end of the first
		t.Errorf("took %v, want it given up after 12 s; a dry run took %v", r.took, dry)
	}
}

// verb is one permission.
type verb struct{ verb, group, resource string }

// verbs returns what the Role that `borrownet rbac` prints allows.
func verbs(t *testing.T, args ...string) []verb {
	t.Helper()
	text := mustBorrownet(t, append([]string{"rbac", "-n", "shop"}, args...)...).stdout
	var role struct {
		Rules []struct {
			APIGroups []string `json:"apiGroups"`
			Resources []string `json:"resources"`
			Verbs     []string `json:"verbs"`
		} `json:"rules"`
	}
	decode(t, kubectl(t, "create", "--dry-run=client", "-o", "json", "-f", writeFile(t, text)), &role)
	var all []verb
	for _, rule := range role.Rules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, v := range rule.Verbs {
					all = append(all, verb{v, group, resource})
				}
			}
		}
	}
	if len(all) < 5 {
		t.Fatalf("only %v in:\n%s", all, text)
	}
	return all
}

// userWith makes a user who has only these verbs and returns a kubeconfig.
func userWith(t *testing.T, name string, allowed []verb) string {
	t.Helper()
	var rules strings.Builder
	for _, v := range allowed {
		fmt.Fprintf(&rules, "- {apiGroups: ['%s'], resources: [%s], verbs: [%s]}\n", v.group, v.resource, v.verb)
	}
	return userOf(t, name, fmt.Sprintf(`
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: %[1]s, namespace: shop}
rules:
%[2]s---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: %[1]s, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: %[1]s}
subjects: [{kind: ServiceAccount, name: %[1]s, namespace: shop}]
`, name, rules.String()))
}

// userOf makes a service account of that name with the rights in roles, which
// are YAML with objects of that name, and returns a kubeconfig.
func userOf(t *testing.T, name, roles string) string {
	t.Helper()
	account := fmt.Sprintf("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: %s, namespace: shop}\n---\n", name)
	kubectl(t, "apply", "-f", writeFile(t, account+roles))
	t.Cleanup(func() { kubectl(t, "-n", "shop", "delete", "serviceaccount,role,rolebinding", name) })
	token := strings.TrimSpace(kubectl(t, "-n", "shop", "create", "token", name))
	return rewrite(t, func(k *kubeconfig) { k.Users[0].User = map[string]any{"token": token} })
}

// TestRoleSuffices: with exactly the Role of `borrownet rbac` all works.
func TestRoleSuffices(t *testing.T) {
	const subject = "serviceaccount:shop/rbac-all"
	role := mustBorrownet(t, "rbac", "-n", "shop", "--workloads", "--name", "rbac-all", "--subject", subject).stdout
	config := userOf(t, "rbac-all", role)
	for _, target := range []string{"orders", "deploy/orders", "svc/orders", "api", podOf(t, "orders").Metadata.Name} {
		r := mustBorrownet(t, "up", "--dry-run", "-n", "shop", "--pod", target, "--kubeconfig", config)
		if strings.Contains(r.stdout, "MISSING") {
			t.Errorf("%s: a right is missing:\n%s", target, r.stdout)
		}
	}
	r := borrownet(t, "up", "--dry-run", "-n", "shop", "--pod", "no-such-app", "--kubeconfig", config)
	if r.code == 0 || strings.Contains(r.stderr, "RBAC") {
		t.Errorf("a name that is not there is blamed on rights: %v", r)
	}
	mustBorrownet(t, "up", "-d", "-n", "shop", "--pod", "orders", "--kubeconfig", config)
	if got := mustBorrownet(t, "run", "--", "curl", "-sS", "http://orders").stdout; !strings.Contains(got, "orders") {
		t.Errorf("orders says %q", got)
	}
	mustBorrownet(t, "status")
	mustBorrownet(t, "down", "--all")
	mustBorrownet(t, "up", "-d", "-n", "shop", "--pod", "deploy/orders", "--kubeconfig", config)
	mustBorrownet(t, "down", "--all", "--stop-agent")
}

// TestMissingVerbIsNamed takes one right at a time away from the Role of
// `borrownet rbac`: each is needed, so the Role is minimal.
func TestMissingVerbIsNamed(t *testing.T) {
	all := verbs(t, "--workloads")
	podName := podOf(t, "orders").Metadata.Name
	// What needs a right that not every target needs.
	targets := map[verb]string{{"list", "", "pods"}: "orders", {"get", "", "services"}: "svc/orders"}
	for i, v := range all {
		t.Run("without_"+v.verb+"_"+strings.ReplaceAll(v.resource, "/", "_"), func(t *testing.T) {
			target := podName
			if special, ok := targets[v]; ok {
				target = special
			}
			config := userWith(t, fmt.Sprintf("rbac-%d", i), slices.Delete(slices.Clone(all), i, i+1))
			up := failsWith(t, command{argv: []string{"-n", "shop", "--pod", target, "--kubeconfig", config}}, v.verb+" "+v.resource,
				"borrownet rbac -n shop", fmt.Sprintf("--subject serviceaccount:shop/rbac-%d | kubectl", i))
			dry := borrownet(t, "up", "--dry-run", "-n", "shop", "--pod", target, "--kubeconfig", config)
			if dry.code != up.code || !strings.Contains(dry.stderr, v.verb+" "+v.resource) || !strings.Contains(dry.stderr, "hint: ") {
				t.Errorf("dry run, want exit code %d and the same right: %v", up.code, dry)
			}
		})
	}
}

// TestPolicyRefusalNamesThePolicy lets a ValidatingAdmissionPolicy forbid
// ephemeral containers.
func TestPolicyRefusalNamesThePolicy(t *testing.T) {
	kubectl(t, "apply", "-f", writeFile(t, `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: no-debugging-here}
spec:
  matchConstraints:
    resourceRules:
    - {apiGroups: [""], apiVersions: [v1], operations: [UPDATE], resources: [pods/ephemeralcontainers]}
  validations:
  - {expression: "false", message: ephemeral containers are not welcome}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: no-debugging-here}
spec:
  policyName: no-debugging-here
  validationActions: [Deny]
  matchResources:
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}
`))
	orders := podOf(t, "orders")
	dryRun := []string{"borrownet", "up", "--dry-run", "-n", "shop", "--pod", orders.Metadata.Name}
	t.Cleanup(func() {
		kubectl(t, "delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", "no-debugging-here")
		waitFor(t, "the policy is gone", patience, func() bool { return command{argv: dryRun}.run(t).code == 0 })
	})
	waitFor(t, "the policy is in force", patience, func() bool { return command{argv: dryRun}.run(t).code != 0 })
	before := specOf(t, "shop", orders.Metadata.Name)
	r := failsWith(t, command{argv: []string{"-n", "shop", "--pod", orders.Metadata.Name}}, "no-debugging-here", "not welcome")
	if dry := (command{argv: dryRun}).run(t); dry.code != r.code || !strings.Contains(dry.stderr, "no-debugging-here") {
		t.Errorf("dry run, want exit code %d: %v", r.code, dry)
	}
	if after := specOf(t, "shop", orders.Metadata.Name); after != before {
		t.Errorf("the refused attach changed the pod (-before +after):\n%s", cmp.Diff(before, after))
	}
}

// specOf is all of a pod that an attach could change.
func specOf(t *testing.T, namespace, name string) string {
	t.Helper()
	return kubectl(t, "-n", namespace, "get", "pod", name, "-o", "jsonpath={.metadata.generation} {.metadata.labels} {.metadata.annotations} {.spec}")
}

// TestAuthPluginRuns logs in through an exec credential plugin, as users of
// managed clusters do.
func TestAuthPluginRuns(t *testing.T) {
	token := strings.TrimSpace(kubectl(t, "-n", "shop", "create", "token", "default"))
	plugin := filepath.Join(t.TempDir(), "auth-plugin")
	script := fmt.Sprintf("#!/bin/sh\necho '{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\"status\":{\"token\":\"%s\"}}'\n", token)
	if err := os.WriteFile(plugin, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	config := rewrite(t, func(k *kubeconfig) {
		k.Users[0].User = map[string]any{"exec": map[string]any{
			"apiVersion": "client.authentication.k8s.io/v1", "command": plugin, "interactiveMode": "Never",
		}}
	})
	// The plugin's user has no rights: the answer proves that it was asked.
	failsWith(t, command{argv: []string{"-n", "shop", "--pod", "api", "--kubeconfig", config}}, "system:serviceaccount:shop:default")
}

// TestDryRunChangesNothing prints the patch and leaves pod and laptop alone.
func TestDryRunChangesNothing(t *testing.T) {
	before := podOf(t, "orders")
	r := mustBorrownet(t, "up", "--dry-run", "-n", "shop", "--pod", "orders")
	for _, want := range []string{"ephemeralContainers", "allowPrivilegeEscalation: false", "--client-key", "# right to patch pods/ephemeralcontainers: yes"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("no %q in:\n%s", want, r.stdout)
		}
	}
	if after := podOf(t, "orders"); len(after.Spec.EphemeralContainers) != len(before.Spec.EphemeralContainers) {
		t.Error("the dry run changed the pod")
	}
	nothingLeft(t)
}
