//go:build lab

package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"
)

const (
	guarded   = "guarded"   // has the policy's label
	unguarded = "unguarded" // has not
	policyOf  = "borrownet-agent-only"
	agentRepo = "lab.local/borrownet-agent"
	foreign   = "tell-nobody" // what the Secret of these tests says
)

// yard makes a namespace without a Pod Security level, with a Secret that no
// pod uses, a pod to borrow and the Role of `borrownet rbac` for the laptop's
// user, who may change or read nothing else in it.
func yard(t *testing.T, namespace, labels string) {
	t.Helper()
	// Another test's namespace of this name may be on its way out.
	kubectl(t, "delete", "namespace", namespace, "--ignore-not-found", "--timeout=180s")
	var many strings.Builder // as many variables as a pod may have: what CEL may cost is bounded
	for i := range 200 {
		fmt.Fprintf(&many, "    - {name: VAR_%d, value: '%d'}\n", i, i)
	}
	newNamespace(t, namespace, labels)
	kubectl(t, "apply", "-f", writeFile(t, fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: own, namespace: %[1]s}
stringData: {colour: green}
---
apiVersion: v1
kind: Secret
metadata: {name: foreign, namespace: %[1]s}
stringData: {password: %[2]s}
---
apiVersion: v1
kind: Pod
metadata: {name: app, namespace: %[1]s}
spec:
  terminationGracePeriodSeconds: 1
  automountServiceAccountToken: false
  volumes:
  - {name: keys, secret: {secretName: own}}
  - {name: work, emptyDir: {}}
  initContainers:
  - name: migrate
    image: lab.local/borrownet-agent:1
    command: [/borrownet-agent, -h]
    env:
    - {name: BEFORE, value: start}
  containers:
  - name: app
    image: lab.local/api:1
    volumeMounts:
    - {name: work, mountPath: /work}
    env:
%[3]s    - {name: MODE, value: live}
    - {name: AWS_CONTAINER_CREDENTIALS_FULL_URI, value: "http://169.254.170.23/v1/credentials"}
    - {name: EMPTY}
    - {name: COLOUR, valueFrom: {secretKeyRef: {name: own, key: colour}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: CPUS, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}
    envFrom:
    - {prefix: OWN_, secretRef: {name: own}}
    securityContext: {runAsUser: 10001}
  - name: istio-proxy # by its name and uid
    image: lab.local/pause:1
    securityContext: {runAsUser: 4000, runAsGroup: 4001}
`, namespace, foreign, many.String())))
	role := mustBorrownet(t, "rbac", "-n", namespace, "--workloads", "--subject", "user:dev").stdout
	kubectl(t, "apply", "-f", writeFile(t, role))
	t.Cleanup(func() { kubectl(t, "delete", "namespace", namespace, "--wait=false") })
	kubectl(t, "-n", namespace, "wait", "--for=condition=Ready", "pod/app", "--timeout=180s")
	if r := (command{argv: []string{"kubectl", "-n", namespace, "auth", "can-i", "get", "secrets"}}).run(t); strings.TrimSpace(r.stdout) != "no" {
		t.Fatalf("the user may read Secrets anyway, so this test proves nothing: %v", r)
	}
}

// admit applies the policy that `borrownet policy` prints with args and waits until it
// is in force in the guarded namespace.
func admit(t *testing.T, args ...string) {
	t.Helper()
	text := mustBorrownet(t, append([]string{"policy"}, args...)...).stdout
	kubectl(t, "apply", "-f", writeFile(t, text))
	t.Cleanup(func() {
		kubectl(t, "delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", policyOf, "--ignore-not-found")
	})
	waitFor(t, "the policy is in force", patience, func() bool {
		return strings.Contains(add(t, guarded, true, debugContainer()).stderr, policyOf)
	})
}

type object = map[string]any

// debugContainer is what `kubectl debug` would add.
func debugContainer() object {
	return object{"name": "debugger-x", "image": "lab.local/api:1", "stdin": true, "tty": true}
}

// add adds an ephemeral container to the pod app as the laptop's user.
func add(t *testing.T, namespace string, dryRun bool, container object) result {
	t.Helper()
	text, err := json.Marshal(object{"spec": object{"ephemeralContainers": []object{container}}})
	if err != nil {
		t.Fatal(err)
	}
	argv := []string{"python3", "-c", addScript, namespace, fmt.Sprint(dryRun)}
	return command{argv: argv, stdin: string(text)}.run(t)
}

// addScript sends the patch that is on standard input through `kubectl proxy`: kubectl
// itself patches no subresource of pods but a few.
const addScript = `
import subprocess, sys, urllib.request, urllib.error
proxy = subprocess.Popen(["kubectl", "proxy", "--port=0", "--reject-paths=^$"], stdout=subprocess.PIPE, text=True)
try:
    port = proxy.stdout.readline().split(":")[-1].strip()
    url = "http://127.0.0.1:%s/api/v1/namespaces/%s/pods/app/ephemeralcontainers" % (port, sys.argv[1])
    if sys.argv[2] == "true": url += "?dryRun=All"
    req = urllib.request.Request(url, sys.stdin.buffer.read(), {"Content-Type": "application/strategic-merge-patch+json"}, method="PATCH")
    urllib.request.urlopen(req)
except urllib.error.HTTPError as e:
    sys.exit(e.read().decode())
finally:
    proxy.terminate()
`

// plannedContainer returns what `up` with more arguments would add, for tests to spoil.
func plannedContainer(t *testing.T, namespace string, more ...string) object {
	t.Helper()
	r := mustBorrownet(t, append([]string{"up", "--dry-run", "-n", namespace, "--pod", "app"}, more...)...)
	var pod struct {
		Spec struct {
			EphemeralContainers []object `json:"ephemeralContainers"`
		} `json:"spec"`
	}
	// kubectl turns YAML into JSON.
	decode(t, kubectl(t, "create", "--dry-run=client", "--validate=false", "-o", "json", "-f", writeFile(t, r.stdout)), &pod)
	if len(pod.Spec.EphemeralContainers) != 1 {
		t.Fatalf("the plan has %d containers:\n%s", len(pod.Spec.EphemeralContainers), r.stdout)
	}
	return pod.Spec.EphemeralContainers[0]
}

// TestPolicyAdmitsOnlyTheAgent takes the agent's container and spoils one thing at a time.
func TestPolicyAdmitsOnlyTheAgent(t *testing.T) {
	yard(t, guarded, "borrownet.dev/agent-only: \"true\"")
	yard(t, unguarded, "")
	good := plannedContainer(t, guarded)
	admit(t, "--registry", agentRepo)
	warnings := kubectl(t, "get", "validatingadmissionpolicy", policyOf, "-o", "jsonpath={.status.typeChecking.expressionWarnings}")
	if warnings != "" && warnings != "[]" {
		t.Errorf("the API server finds fault with the expressions: %s", warnings)
	}

	security := func(key string, value any) func(object) {
		return func(c object) {
			s := maps.Clone(c["securityContext"].(object))
			s[key] = value
			c["securityContext"] = s
		}
	}
	env := func(more ...any) func(object) {
		return func(c object) { c["env"] = append(append([]any{}, c["env"].([]any)...), more...) }
	}
	args := func(change func([]any) []any) func(object) {
		return func(c object) { c["args"] = change(append([]any{}, c["args"].([]any)...)) }
	}
	secret := object{"name": "X", "valueFrom": object{"secretKeyRef": object{"name": "foreign", "key": "password"}}}
	without := func(key string) func(object) { return func(c object) { delete(c, key) } }
	tests := []struct {
		name  string
		spoil func(object)
		want  string
	}{
		{"image", func(c object) { c["image"] = "lab.local/api:1" }, "image"},
		{"image_beside_the_repository", func(c object) { c["image"] = agentRepo + "-evil:1" }, "image"},
		{"name", func(c object) { c["name"] = "debugger-x" }, "name begins with"},
		{"command", func(c object) { c["command"] = []any{"/borrownet-agent"} }, "arguments"},
		{"no_arguments", without("args"), "arguments"},
		{"more_arguments", args(func(a []any) []any { return append(a, "-v") }), "arguments"},
		{"localhost_ports", args(func(a []any) []any { return append(a, "--localhost", "15000") }), "arguments"},
		{"node_metadata", args(func(a []any) []any { a[7] = "169.254.169.254"; return a }), "--metadata names nothing but"},
		{"node_metadata_too", args(func(a []any) []any { a[7] = "169.254.170.23,169.254.169.254"; return a }), "--metadata names nothing but"},
		{"other_arguments", args(func(a []any) []any { a[2] = "--v"; return a }), "arguments"},
		{"secret_in_arguments", args(func(a []any) []any { a[1] = "$(COLOUR)"; return a }), "arguments"},
		{"eternal", args(func(a []any) []any { a[5] = "1000h0m0s"; return a }), "arguments"},
		{"foreign_secret", env(secret), "env, envFrom"},
		{"foreign_secret_as_ours", env(object{"name": "BORROWNET_X", "valueFrom": secret["valueFrom"]}), "own variables"},
		{"foreign_secret_all", func(c object) { c["envFrom"] = []any{object{"secretRef": object{"name": "foreign"}}} }, "env, envFrom"},
		{"own_secret_other_key", env(object{"name": "COLOUR", "valueFrom": object{"secretKeyRef": object{"name": "own", "key": "other"}}}), "env"},
		{"other_value", env(object{"name": "MODE", "value": "test"}), "env"},
		{"variable_of_an_init_container", env(object{"name": "BEFORE", "value": "start"}), "env, envFrom"},
		{"volume_that_is_not_mounted", func(c object) { c["volumeMounts"] = []any{object{"name": "keys", "mountPath": "/keys"}} }, "volumeMounts"},
		{"volume_elsewhere", func(c object) { c["volumeMounts"] = []any{object{"name": "work", "mountPath": "/tmp"}} }, "volumeMounts"},
		{"host_ip_forged", env(object{"name": "BORROWNET_HOST_IP", "value": "192.0.2.1"}), "own variables"},
		{"host_ip_missing", func(c object) { delete(c, "envFrom"); c["env"] = []any{object{"name": "MODE", "value": "live"}} }, "own variables"},
		{"privileged", func(c object) { security("privileged", true)(c); security("allowPrivilegeEscalation", true)(c) }, "privileged"},
		{"escalation", security("allowPrivilegeEscalation", true), "escalate"},
		{"no_security_context", without("securityContext"), "privileged"},
		{"net_raw", security("capabilities", object{"drop": []any{"ALL"}, "add": []any{"NET_RAW"}}), "capabilities"},
		{"capability", security("capabilities", object{"drop": []any{"ALL"}, "add": []any{"SYS_PTRACE"}}), "capabilities"},
		{"default_capabilities", security("capabilities", object{}), "capabilities"},
		{"root", security("runAsUser", 0), ""}, // the API server itself refuses 0 with runAsNonRoot at times
		{"may_be_root", security("runAsNonRoot", false), "root"},
		{"unconfined", security("seccompProfile", object{"type": "Unconfined"}), "seccomp"},
		{"writable_root", security("readOnlyRootFilesystem", false), "read-only"},
		{"proxy_uid_default", security("runAsUser", 1337), "mesh"},
		{"proxy_uid", security("runAsUser", 4000), "mesh"},
		{"proxy_gid_alone", security("runAsGroup", 4001), "mesh"},
		{"processes_of_the_app", func(c object) { c["targetContainerName"] = "app" }, "process namespace"},
		{"terminal", func(c object) { c["stdin"], c["tty"] = true, true }, "terminal"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bad := maps.Clone(good)
			tt.spoil(bad)
			r := add(t, guarded, true, bad)
			if r.code == 0 || !strings.Contains(r.stderr, "ValidatingAdmissionPolicy '"+policyOf+"'") || !strings.Contains(r.stderr, tt.want) {
				t.Errorf("want a refusal by %s that says %q: %v", policyOf, tt.want, r)
			}
			if r := add(t, unguarded, true, bad); strings.Contains(r.stderr, policyOf) {
				t.Errorf("the policy refuses in a namespace without the label: %v", r)
			}
		})
	}
	t.Run("no_metadata_is_fine", func(t *testing.T) {
		c := maps.Clone(good)
		args(func(a []any) []any { return a[:6] })(c)
		if r := add(t, guarded, true, c); r.code != 0 {
			t.Error(r)
		}
	})
	t.Run("own_mount_is_fine", func(t *testing.T) {
		c := maps.Clone(good)
		c["volumeMounts"] = []any{object{"name": "work", "mountPath": "/work"}}
		if r := add(t, guarded, true, c); r.code != 0 {
			t.Error(r)
		}
	})
	t.Run("debug_container", func(t *testing.T) {
		if r := add(t, guarded, false, debugContainer()); r.code == 0 || !strings.Contains(r.stderr, policyOf) {
			t.Error(r)
		}
	})
	t.Run("agent", func(t *testing.T) {
		for _, container := range []string{"app", "istio-proxy"} {
			mustBorrownet(t, "up", "-d", "-n", guarded, "--pod", "app", "-c", container, "--session", "guarded")
			out := mustBorrownet(t, "run", "--session", "guarded", "--", "env").stdout
			if got := strings.Contains(out, "COLOUR=green") && strings.Contains(out, "OWN_colour=green"); got != (container == "app") {
				t.Errorf("-c %s: has the environment of app: %v\n%s", container, got, out)
			}
			mustBorrownet(t, "down", "--all", "--stop-agent")
		}
	})
	t.Run("up_names_the_policy", func(t *testing.T) {
		const other = "registry.example.org/agent:1"
		up := failsWith(t, command{argv: []string{"-n", guarded, "--pod", "app", "--agent-image", other}}, policyOf, "its image is one that the policy names")
		dry := borrownet(t, "up", "--dry-run", "-n", guarded, "--pod", "app", "--agent-image", other)
		if dry.code != up.code || !strings.Contains(dry.stderr, policyOf) || !strings.Contains(dry.stdout, "refused by the API server") {
			t.Errorf("dry run, want exit code %d: %v", up.code, dry)
		}
	})
	t.Run("mirror", func(t *testing.T) {
		kubectl(t, "delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", policyOf, "--ignore-not-found")
		waitFor(t, "the first policy is gone", patience, func() bool { return add(t, guarded, true, debugContainer()).code == 0 })
		admit(t, "--registry", agentRepo, "--mirror")
		mirrors := plannedContainer(t, guarded, "--mirror", "8080:3000")
		if r := add(t, guarded, true, mirrors); r.code != 0 {
			t.Errorf("an agent that mirrors: %v", r)
		}
		if r := add(t, guarded, true, good); r.code != 0 {
			t.Errorf("an agent that does not: %v", r)
		}
		for name, spoil := range map[string]func(object){
			"escalation_alone": security("capabilities", object{"drop": []any{"ALL"}}),
			"more":             security("capabilities", object{"drop": []any{"ALL"}, "add": []any{"NET_RAW", "NET_ADMIN"}}),
			"keeps_more":       security("capabilities", object{"drop": []any{"CHOWN"}}),
		} {
			bad := maps.Clone(mirrors)
			spoil(bad)
			if r := add(t, guarded, true, bad); r.code == 0 || !strings.Contains(r.stderr, "NET_RAW") {
				t.Errorf("%s: %v", name, r)
			}
		}
	})
	t.Run("digest", func(t *testing.T) {
		const digest = "@sha256:05b657f6f6ae33f835cf7fa38b2bfbfe6a09575ab08b7bb7103b540c72a51041"
		kubectl(t, "delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", policyOf, "--ignore-not-found")
		waitFor(t, "the first policy is gone", patience, func() bool { return add(t, guarded, true, debugContainer()).code == 0 })
		admit(t, "--image", agentRepo+":1"+digest, "--metadata", "169.254.169.254")
		dryRun := func(image string, more ...string) result {
			return borrownet(t, append([]string{"up", "--dry-run", "-n", guarded, "--pod", "app", "--agent-image", image}, more...)...)
		}
		if r := dryRun("mirror.example.org/agent" + digest); r.code != 0 {
			t.Errorf("the digest under another name: %v", r)
		}
		if r := dryRun("mirror.example.org/agent"+digest, "--metadata", "169.254.169.254"); r.code != 0 {
			t.Errorf("metadata that the policy allows: %v", r)
		}
		for _, image := range []string{agentRepo + ":1", agentRepo + "@sha256:" + strings.Repeat("0", 64)} {
			if r := dryRun(image); r.code == 0 || !strings.Contains(r.stderr, policyOf) {
				t.Errorf("%s: %v", image, r)
			}
		}
	})
}

// TestWithoutPolicySecretsAreReadable is the control of the test above: with the same
// rights and no policy, a Secret that the user may not read is in the pod's log.
func TestWithoutPolicySecretsAreReadable(t *testing.T) {
	yard(t, unguarded, "")
	r := add(t, unguarded, false, object{
		"name": "thief", "image": os.Getenv("BORROWNET_AGENT_IMAGE"), "args": []any{"--idle-ttl", "$(X)"}, // an error repeats it
		"env": []any{object{"name": "X", "valueFrom": object{"secretKeyRef": object{"name": "foreign", "key": "password"}}}},
	})
	if r.code != 0 {
		t.Fatal(r)
	}
	waitFor(t, "the Secret is in the log that the user may read", patience, func() bool {
		return strings.Contains(command{argv: []string{"kubectl", "-n", unguarded, "logs", "app", "-c", "thief"}}.run(t).stdout, foreign)
	})
}
