//go:build lab

package integration

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// filer makes a pod whose container has files of every kind that the kubelet fills.
func filer(t *testing.T) {
	t.Helper()
	kubectl(t, "apply", "-f", writeFile(t, `
apiVersion: v1
kind: Secret
metadata: {name: filer, namespace: shop}
stringData: {password: old, planted: `+planted+`}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: filer, namespace: shop}
data: {app.yaml: "mode: live"}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: filer, namespace: shop}
rules:
- {apiGroups: [""], resources: [pods], verbs: [list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: filer, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: filer}
subjects: [{kind: ServiceAccount, name: web, namespace: shop}]
---
apiVersion: v1
kind: Pod
metadata: {name: filer, namespace: shop, labels: {app: filer}}
spec:
  terminationGracePeriodSeconds: 1
  serviceAccountName: web
  securityContext: {runAsNonRoot: true, runAsUser: 10001, seccompProfile: {type: RuntimeDefault}}
  volumes:
  - {name: secret, secret: {secretName: filer}}
  - {name: config, configMap: {name: filer}}
  - name: role
    projected: {sources: [{serviceAccountToken: {path: token, audience: sts.example.org}}]}
  - name: labels
    downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}
  - {name: work, emptyDir: {}}
  containers:
  - name: app
    image: lab.local/api:1
    env:
    - {name: TOKEN_FILE, value: /var/run/secrets/sts.example.org/serviceaccount/token}
    volumeMounts:
    - {name: secret, mountPath: /config/secret}
    - {name: config, mountPath: /run/app}
    - {name: config, mountPath: /etc/app}
    - {name: config, mountPath: /single/app.yaml, subPath: app.yaml}
    - {name: role, mountPath: /var/run/secrets/sts.example.org/serviceaccount}
    - {name: labels, mountPath: /podinfo}
    - {name: work, mountPath: /scratch-of-the-app}
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
`))
	t.Cleanup(func() {
		kubectl(t, "-n", "shop", "delete", "pod/filer", "configmap/filer", "secret/filer", "role/filer", "rolebinding/filer", "--grace-period=1")
	})
	kubectl(t, "-n", "shop", "wait", "--for=condition=Ready", "pod/filer", "--timeout=180s")
}

// claims are what a ServiceAccount's token says.
func claims(t *testing.T, token string) string {
	t.Helper()
	parts := strings.Split(strings.TrimSpace(token), ".")
	if len(parts) != 3 {
		t.Fatalf("no token: %q", token)
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestFilesOfThePod finds the pod's files at the pod's paths, live, read-only, and gone
// at the end; what cannot be there is named with the reason.
func TestFilesOfThePod(t *testing.T) {
	filer(t)
	r := mustBorrownet(t, "up", "-d", "-n", "shop", "--pod", "filer")
	t.Cleanup(func() { command{argv: []string{"borrownet", "down", "--all"}}.run(t) })
	for _, want := range []string{"/single/app.yaml (configmap filer) are missing: it is mounted with a subPath", "/etc/app (configmap filer) are missing: it would change this machine's /etc"} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("not said: %q in:\n%s", want, r.stderr)
		}
	}
	sh := func(script string) result {
		return command{argv: []string{"borrownet", "run", "--", "sh", "-c", script}}.run(t)
	}
	const sa = "/var/run/secrets/kubernetes.io/serviceaccount"
	for script, want := range map[string]string{
		"cat /config/secret/password":              "old",
		"cat /run/app/app.yaml":                    "mode: live",
		"cat /podinfo/labels":                      `app="filer"`,
		"cat " + sa + "/namespace":                 "shop",
		"head -1 " + sa + "/ca.crt":                "-----BEGIN CERTIFICATE-----\n",
		"stat -Lc %a /config/secret/*":             "600\n600\n",
		"test -e /scratch-of-the-app || echo none": "none\n",
		"cat /etc/hostname >/dev/null; pwd":        mustGetwd(t) + "\n",
	} {
		if r := sh(script); r.code != 0 || r.stdout != want {
			t.Errorf("%s: want %q: %v", script, want, r)
		}
	}
	token := claims(t, sh(`cat "$TOKEN_FILE"`).stdout)
	uid := strings.TrimSpace(kubectl(t, "-n", "shop", "get", "pod", "filer", "-o", "jsonpath={.metadata.uid}"))
	for _, want := range []string{`"system:serviceaccount:shop:web"`, `"sts.example.org"`, uid} {
		if !strings.Contains(token, want) {
			t.Errorf("no %s in the token: %s", want, token)
		}
	}
	for _, path := range []string{"/config/secret/x", "/run/app/app.yaml", sa + "/token"} {
		if r := sh("echo x >" + path); r.code == 0 || !strings.Contains(r.stderr, "Read-only") {
			t.Errorf("%s can be written: %v", path, r)
		}
	}
	t.Run("no_files", func(t *testing.T) {
		r := mustBorrownet(t, "run", "--no-files", "--", "sh", "-c", `cat "$TOKEN_FILE"; test -e /config || echo; stat -c %u /etc/passwd`)
		if lines := strings.Split(r.stdout, "\n"); len(lines) != 3 || lines[1] != "0" || !strings.Contains(claims(t, lines[0]), "sts.example.org") {
			t.Errorf("%q", lines)
		}
	})
	t.Run("cp", func(t *testing.T) {
		to := filepath.Join(t.TempDir(), "app.yaml")
		mustBorrownet(t, "cp", "/etc/app/app.yaml", to) // where programs do not see it
		if text, err := os.ReadFile(to); err != nil || string(text) != "mode: live" {
			t.Errorf("%q, %v", text, err)
		}
		if r := borrownet(t, "cp", "/etc/passwd", "-"); r.code != 11 || !strings.Contains(r.stderr, "none of the volumes") || !strings.Contains(r.stderr, "hint: kubectl -n shop exec filer") {
			t.Error(r)
		}
	})
	// Root's files are nobody's in the commands' user namespace, which ssh's configuration
	// must not be; git wants the repository to be one's own.
	t.Run("ssh_and_git", func(t *testing.T) {
		if r := mustBorrownet(t, "run", "--", "ssh", "-G", "lab-alias"); !strings.Contains(r.stdout, "hostname lab.example.org\n") {
			t.Errorf("ssh: %v", r)
		}
		repo := t.TempDir()
		r := mustBorrownet(t, "run", "--", "sh", "-ec", `git init -q "$1"; cd "$1"; echo x >x; git add x
			git -c user.name=x -c user.email=x@example.org commit -qm x; git clone -q "$1" copy; git -C copy log --format=%s`, "sh", repo)
		if r.stdout != "x\n" {
			t.Errorf("git: %v", r)
		}
	})
	t.Run("hostname", func(t *testing.T) {
		if r := mustBorrownet(t, "run", "--hostname", "--", "cat", "/proc/sys/kernel/hostname"); r.stdout != "filer\n" {
			t.Error(r)
		}
	})
	t.Run("in_cluster_client", func(t *testing.T) {
		kube := func(args ...string) result {
			return command{argv: append([]string{"borrownet", "run", "--unset", "KUBECONFIG", "--env", "HOME=/nonexistent", "--", "kubectl"}, args...)}.run(t)
		}
		if r := kube("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"); r.stdout != "system:serviceaccount:shop:web" {
			t.Errorf("kubectl in the pod's place is: %v", r)
		}
		if r := kube("get", "pods", "-o", "name"); r.code != 0 || !strings.Contains(r.stdout, "pod/filer\n") {
			t.Errorf("what the ServiceAccount may: %v", r)
		}
		r := mustBorrownet(t, "run", "--unset", "KUBECONFIG", "--", "cloud", "pods") // client-go's InClusterConfig
		if !strings.Contains(r.stdout, "pod filer\n") || !strings.Contains(r.stdout, `"system:serviceaccount:shop:web" cannot list resource "secrets"`) {
			t.Errorf("client-go in the pod's place: %v", r)
		}
		if r := kube("get", "secrets"); r.code == 0 || !strings.Contains(r.stderr, "system:serviceaccount:shop:web") {
			t.Errorf("what the ServiceAccount may not: %v", r)
		}
	})
	t.Run("live", func(t *testing.T) {
		seen := make(chan result, 1)
		go func() {
			seen <- command{argv: []string{"borrownet", "run", "--", "sh", "-c",
				`cat /config/secret/password; until grep -q new /config/secret/password; do sleep 0.1; done; echo " then new"`}, timeout: 4 * time.Minute}.run(t)
		}()
		kubectl(t, "-n", "shop", "patch", "secret", "filer", "-p", `{"stringData": {"password": "new"}}`)
		// Makes the kubelet look at the pod's volumes now and not within a minute.
		for i := 0; ; i++ {
			select {
			case r := <-seen:
				if !strings.HasSuffix(r.stdout, " then new\n") {
					t.Error(r)
				}
				return
			case <-time.After(2 * time.Second):
				kubectl(t, "-n", "shop", "annotate", "pod", "filer", "--overwrite", fmt.Sprintf("example.org/look=%d", i))
			}
		}
	})
	t.Run("asked", func(t *testing.T) {
		r := mustBorrownet(t, "up", "-d", "-n", "shop", "--pod", "filer", "--session", "asked", "--pod-mount", "/etc/app")
		if strings.Contains(r.stderr, "/etc/app") {
			t.Errorf("what was asked for is missing: %v", r)
		}
		// The rest of the directory stays this machine's.
		r = mustBorrownet(t, "run", "--session", "asked", "--", "sh", "-c", "cat /etc/app/app.yaml; stat -c %s /etc/passwd; test -e /etc/ssl && echo ' and more'")
		info, err := os.Stat("/etc/passwd")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(r.stdout, "mode: live") || !strings.HasSuffix(r.stdout, strconv.FormatInt(info.Size(), 10)+"\n and more\n") {
			t.Errorf("%q, want the pod's file and this machine's of %d bytes", r.stdout, info.Size())
		}
		mustBorrownet(t, "down", "asked")
		r = borrownet(t, "up", "-d", "-n", "shop", "--pod", "filer", "--session", "asked", "--pod-mount", "/etc/other")
		if r.code != 2 || !strings.Contains(r.stderr, "error: take the pod's files at /etc/other: its container mounts no volume there") || !strings.Contains(r.stderr, "hint: it has files at: ") {
			t.Error(r)
		}
	})
	t.Run("relay", func(t *testing.T) {
		mustBorrownet(t, "up", "-d", "-n", "shop", "--pod", "filer", "--hook", "relay", "--session", "relayed")
		r := mustBorrownet(t, "run", "--session", "relayed", "--", "sh", "-c", `cat "$TOKEN_FILE"`)
		if got := claims(t, r.stdout); !strings.Contains(got, "system:serviceaccount:shop:web") {
			t.Errorf("token: %s", got)
		}
		mustBorrownet(t, "down", "relayed")
	})
	noLeaks(t)
	noLeaksInPod(t, "filer")
	copies := func() []string {
		paths, err := filepath.Glob(filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "borrownet", "files-*"))
		if err != nil {
			t.Fatal(err)
		}
		return paths
	}
	waitFor(t, "there is one copy of the pod's files", patience, func() bool { return len(copies()) == 1 })
	mustBorrownet(t, "down", "--stop-agent")
	waitFor(t, "no copy is left", patience, func() bool { return len(copies()) == 0 })
	for _, path := range []string{"/config", sa, "/podinfo"} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is on the laptop", path)
		}
	}
}

func mustGetwd(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestSoakTokenRotation waits for the kubelet to replace a token, which takes eight
// minutes at least: a program that runs sees the new one, and the API server takes it.
func TestSoakTokenRotation(t *testing.T) {
	kubectl(t, "apply", "-f", writeFile(t, `
apiVersion: v1
kind: Pod
metadata: {name: rotating, namespace: shop}
spec:
  terminationGracePeriodSeconds: 1
  serviceAccountName: web
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, runAsUser: 10001, seccompProfile: {type: RuntimeDefault}}
  volumes: [{name: role, projected: {sources: [{serviceAccountToken: {path: token, expirationSeconds: 600}}]}}]
  containers:
  - name: app
    image: lab.local/api:1
    volumeMounts: [{name: role, mountPath: /run/borrownet.test}]
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`))
	t.Cleanup(func() { kubectl(t, "-n", "shop", "delete", "pod/rotating", "--grace-period=1") })
	kubectl(t, "-n", "shop", "wait", "--for=condition=Ready", "pod/rotating", "--timeout=180s")
	up(t, "rotating")
	r := command{argv: []string{"borrownet", "run", "--", "sh", "-c", `at=/run/borrownet.test/token; cat $at; echo; old=$(cat $at)
		until [ "$(cat $at)" != "$old" ]; do sleep 1; done; cat $at`}, timeout: 12 * time.Minute}.run(t)
	before, after, _ := strings.Cut(strings.TrimSpace(r.stdout), "\n")
	if claims(t, before) == claims(t, after) {
		t.Fatal("the token is the same")
	}
	who := command{argv: []string{"borrownet", "run", "--unset", "KUBECONFIG", "--env", "HOME=/nonexistent", "--", "sh", "-c",
		`kubectl --server https://kubernetes.default --insecure-skip-tls-verify --token "$(cat /run/borrownet.test/token)" auth whoami -o jsonpath={.status.userInfo.username}`}}.run(t)
	if who.stdout != "system:serviceaccount:shop:web" {
		t.Errorf("the new token is: %v", who)
	}
}
