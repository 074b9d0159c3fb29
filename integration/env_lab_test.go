//go:build lab

package integration

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// TestEnvironmentOfThePod resolves what the container declares, ConfigMaps, Secrets and
// fields too, leaves out what would harm the laptop, and leaks no value.
func TestEnvironmentOfThePod(t *testing.T) {
	kubectl(t, "apply", "-f", writeFile(t, `
apiVersion: v1
kind: ConfigMap
metadata: {name: envy, namespace: shop}
data: {colour: blue, LD_PRELOAD: /evil.so, GIT_SSH_COMMAND: evil, NODE_OPTIONS: --require=/evil.js, multi: "one\ntwo"}
---
apiVersion: v1
kind: Secret
metadata: {name: envy, namespace: shop}
stringData: {password: `+planted+`, key: other}
---
apiVersion: v1
kind: Pod
metadata: {name: envy, namespace: shop, labels: {app: envy}}
spec:
  terminationGracePeriodSeconds: 1
  serviceAccountName: api
  securityContext: {runAsNonRoot: true, runAsUser: 10001, seccompProfile: {type: RuntimeDefault}}
  volumes: [{name: colour, configMap: {name: envy}}]
  containers:
  - name: app
    image: lab.local/api:1
    resources: {limits: {memory: 64Mi}}
    env:
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: envy, key: password}}}
    - {name: HTTPS_PROXY, value: "http://proxy.pod.example.org"}
    - {name: JAVA_HOME, value: /opt/java}
    - {name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory}}}
    - {name: GREETING, value: "hello $(NODE_NAME)"}
    - {name: AWS_WEB_IDENTITY_TOKEN_FILE, value: /nowhere}
    - {name: AWS_ROLE_ARN, value: "arn:\e[2J\x9b31mrole"}
    volumeMounts: [{name: colour, mountPath: "/config/\e]0;owned\a"}]
    envFrom:
    - {configMapRef: {name: envy}}
    - {prefix: S_, secretRef: {name: envy}}
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`))
	t.Cleanup(func() {
		kubectl(t, "-n", "shop", "delete", "pod/envy", "configmap/envy", "secret/envy", "--grace-period=1")
	})
	kubectl(t, "-n", "shop", "wait", "--for=condition=Ready", "pod/envy", "--timeout=180s")
	up(t, "envy")
	t.Run("terminal", podsDoNotDriveTheTerminal)

	laptop := []string{"AWS_PROFILE=me", "HTTPS_PROXY=http://laptop.example.org"}
	run := func(args ...string) result {
		t.Helper()
		r := command{argv: append([]string{"borrownet", "run"}, args...), env: laptop}.run(t)
		if r.code != 0 {
			t.Fatal(r)
		}
		return r
	}
	r := run("-v", "--", "env", "-0")
	env := strings.Split(strings.TrimSuffix(r.stdout, "\x00"), "\x00")
	for _, want := range []string{
		"PASSWORD=" + planted, "S_password=" + planted, "S_key=other", "colour=blue", "multi=one\ntwo", "NODE_NAME=lab", "MEMORY=67108864",
		"GREETING=hello lab", "BORROWNET_SESSION=envy",
	} {
		if !slices.Contains(env, want) {
			t.Errorf("no %q in %q", want, env)
		}
	}
	for _, name := range []string{"LD_PRELOAD", "GIT_SSH_COMMAND", "NODE_OPTIONS", "HTTPS_PROXY", "JAVA_HOME", "AWS_PROFILE"} {
		if slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, name+"=") }) {
			t.Errorf("%s is in %q", name, env)
		}
	}
	for _, want := range []string{"the pod: AWS_PROFILE", "through the pod: HTTPS_PROXY", "not taken from the pod: "} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("not said: %q in:\n%s", want, r.stderr)
		}
	}
	if out := run("--pod-env", "JAVA_HOME", "--local-identity", "--", "env").stdout; !strings.Contains(out, "JAVA_HOME=/opt/java\n") || !strings.Contains(out, "AWS_PROFILE=me\n") {
		t.Errorf("what was asked for is not there:\n%s", out)
	}
	file := filepath.Join(t.TempDir(), "pod.sh")
	run("--env-out", file, "--format", "sh", "--", "true")
	if out := (command{argv: []string{"sh", "-c", `. "$1" && printf %s "$PASSWORD-$multi"`, "sh", file}}.run(t).stdout); out != planted+"-one\ntwo" {
		t.Errorf("read back: %q", out)
	}
	noLeaks(t)
	noLeaksInPod(t, "envy")
}

// podsDoNotDriveTheTerminal: a role and a path of the pod of session envy, as its spec calls
// them, would clear a terminal and rename its window. The files at that path are nowhere.
func podsDoNotDriveTheTerminal(t *testing.T) {
	t.Cleanup(func() { borrownet(t, "down", "again") })
	for _, args := range [][]string{
		{"up", "-d", "-n", "shop", "--pod", "envy", "--session", "again"}, {"up", "--dry-run", "-n", "shop", "--pod", "envy"}, {"status", "envy"},
		{"status", "envy", "-o", "json"}, {"status", "envy", "-o", "yaml"}, {"explain", "envy"}, {"ls", "-n", "shop", "-o", "wide"},
	} {
		r := mustBorrownet(t, args...)
		said := r.stdout + r.stderr
		if strings.ContainsFunc(said, func(c rune) bool { return c != '\n' && c != '\t' && unicode.IsControl(c) }) {
			t.Errorf("borrownet %q would drive a terminal: %q", args, said)
		}
		if args[0] == "status" && len(args) == 2 && (!strings.Contains(said, "arn:?[2J?31mrole") || !strings.Contains(said, "/config/?]0;owned? (configmap envy), missing: it is no clean absolute path")) {
			t.Errorf("the pod's words are not there, so nothing is shown by this: %q", said)
		}
	}
}
