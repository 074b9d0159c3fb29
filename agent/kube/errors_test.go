package kube

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/borrownet/borrownet/agent/kube/api"
)

func TestNewFails(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := writeKubeconfig(t, "https://192.0.2.1:6443", "tls-server-name: api.example.org", "token: x")
	for _, tt := range []struct {
		name  string
		flags Flags
		want  string
		hint  string
	}{
		{"missing-file", Flags{Kubeconfig: filepath.Join(dir, "none")}, "none: there is no such file", "--kubeconfig"},
		{"no-kubeconfig", Flags{Env: []string{"HOME=" + dir}}, "it names no cluster", "KUBECONFIG"},
		{"no-home", Flags{Env: []string{}}, "it names no cluster", "KUBECONFIG"},
		{"empty-file", Flags{Kubeconfig: file("empty", "")}, "it names no cluster", "KUBECONFIG"},
		{"not-yaml", Flags{Kubeconfig: file("bad", "{{")}, "bad: ", "kubectl config view"},
		{"unknown-context", Flags{Kubeconfig: good, Context: "moon"}, "use context moon: the kubeconfig has no such context", "get-contexts"},
		{"no-current", Flags{Kubeconfig: file("nocur", "apiVersion: v1\nkind: Config\ncontexts: [{name: a, context: {cluster: c}}]\nclusters: [{name: c, cluster: {server: 'https://x'}}]\n")},
			"no current context", "use-context"},
		{"dangling-current", Flags{Kubeconfig: file("dang", "apiVersion: v1\nkind: Config\ncurrent-context: b\ncontexts: [{name: a, context: {cluster: c}}]\n")},
			`current context "b" does not exist`, "get-contexts"},
		{"namespace-is-a-path", Flags{Kubeconfig: good, Namespace: ".."}, `use namespace "..": that is no name`, "get namespaces"},
		{"namespace-has-a-slash", Flags{Kubeconfig: good, Namespace: "a/b"}, `use namespace "a/b": that is no name`, "get namespaces"},
		{"unknown-cluster", Flags{Kubeconfig: good, Cluster: "moon"}, `"moon"`, "kubectl config view"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New(tt.flags)
			wantError(t, err, tt.want, tt.hint)
		})
	}
}

func TestNewFlags(t *testing.T) {
	path := writeKubeconfig(t, "https://192.0.2.1:6443", "tls-server-name: api.example.org", "token: x")
	for _, tt := range []struct {
		name      string
		flags     Flags
		namespace string
		server    string
	}{
		{"file", Flags{Kubeconfig: path}, "shop", "https://192.0.2.1:6443/"},
		{"env", Flags{Env: []string{"KUBECONFIG=" + filepath.Join(t.TempDir(), "none") + string(os.PathListSeparator) + path}}, "shop", "https://192.0.2.1:6443/"},
		{"namespace", Flags{Kubeconfig: path, Namespace: "other"}, "other", "https://192.0.2.1:6443/"},
		{"server", Flags{Kubeconfig: path, Server: "https://192.0.2.2/k8s/clusters/c1"}, "shop", "https://192.0.2.2/k8s/clusters/c1"},
		{"server-only", Flags{Env: []string{}, Server: "https://192.0.2.3", Token: "t"}, "default", "https://192.0.2.3/"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := New(tt.flags)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSuffix(c.Server(), "/"); c.Namespace() != tt.namespace || got != strings.TrimSuffix(tt.server, "/") {
				t.Errorf("namespace %s, server %s", c.Namespace(), c.Server())
			}
		})
	}
}

func resolveError(t *testing.T, f Flags) error {
	t.Helper()
	c, err := New(f)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Resolve(context.Background(), "pod/api", "")
	return err
}

func TestServerUnreachable(t *testing.T) {
	const addr = "127.0.0.1:1" // nobody is given that port
	insecure := "insecure-skip-tls-verify: true"
	closed := writeKubeconfig(t, "https://"+addr, insecure, "token: x")
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	for _, tt := range []struct {
		name  string
		flags Flags
		want  string
		hint  string
	}{
		{"refused", Flags{Kubeconfig: closed}, "https://" + addr + " cannot be reached", "cluster-info"},
		{"no-such-host", Flags{Kubeconfig: writeKubeconfig(t, "https://nowhere.invalid", insecure, "token: x")}, "no address for nowhere.invalid", "cluster-info"},
		{"silent", Flags{Kubeconfig: writeKubeconfig(t, "https://"+silent.Addr().String(), insecure, "token: x"), RequestTimeout: 200 * time.Millisecond}, "did not answer in time", "cluster-info"},
		{"not-kubernetes", Flags{Kubeconfig: writeKubeconfig(t, plain.URL, "tls-server-name: x", "token: x")}, "", ""},
		{"proxy", Flags{Kubeconfig: writeKubeconfig(t, "https://192.0.2.1", insecure+`, proxy-url: "http://`+addr+`"`, "token: x")}, "proxy before", "proxy-url"},
		{"proxy-env", Flags{Kubeconfig: writeKubeconfig(t, "https://192.0.2.1", insecure, "token: x"), Env: []string{"https_proxy=http://" + addr}}, "proxy before", "HTTPS_PROXY"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wantError(t, resolveError(t, tt.flags), tt.want, tt.hint)
		})
	}
}

func TestCredentials(t *testing.T) {
	f := newFakeAPI(t)
	stranger := httptest.NewTLSServer(http.NotFoundHandler())
	defer stranger.Close()
	stranger.Config.ErrorLog = nil
	cert, key := expiredCert(t)
	for _, tt := range []struct {
		name   string
		config string
		want   string
		hint   string
	}{
		{"token", f.kubeconfig("token: old"), "does not accept your credentials", "log in"},
		{"expired-certificate", f.kubeconfig("client-certificate-data: " + cert + ", client-key-data: " + key), "your client certificate expired on 2001-", "log in"},
		{"plugin-missing", f.kubeconfig("exec: {apiVersion: client.authentication.k8s.io/v1, command: no-such-login, interactiveMode: Never}"), "no-such-login, which is not installed", "install no-such-login"},
		{"plugin-hint", f.kubeconfig("exec: {apiVersion: client.authentication.k8s.io/v1, command: no-such-login, interactiveMode: Never, installHint: get it from example.org}"), "not installed", "get it from example.org"},
		{"plugin-fails", f.kubeconfig("exec: {apiVersion: client.authentication.k8s.io/v1, command: 'false', interactiveMode: Never}"), "false, from which the kubeconfig gets credentials, failed", "auth whoami"},
		{"plugin-interactive", f.kubeconfig("exec: {apiVersion: client.authentication.k8s.io/v1, command: 'true', interactiveMode: Always}"), "there is no terminal", "auth whoami"},
		{"unknown-authority", writeKubeconfig(t, stranger.URL, "certificate-authority-data: "+caOf(f), "token: x"), "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := resolveError(t, Flags{Kubeconfig: tt.config})
			wantError(t, err, tt.want, tt.hint)
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error shows a credential: %v", err)
			}
		})
	}
}

// An exec plugin gets the caller's environment and its token is used, on
// upgrades too.
func TestExecPlugin(t *testing.T) {
	f := newFakeAPI(t)
	f.addPod("api-1", nil)
	newForwarder(f)
	plugin := filepath.Join(t.TempDir(), "login")
	script := "#!/bin/sh\nprintf '{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\"status\":{\"token\":\"%s\"}}' \"$LOGIN_TOKEN\"\n"
	if err := os.WriteFile(plugin, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	config := f.kubeconfig("exec: {apiVersion: client.authentication.k8s.io/v1, command: " + plugin + ", interactiveMode: IfAvailable}")
	c, err := New(Flags{Kubeconfig: config, Env: []string{"LOGIN_TOKEN=secret"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Resolve(context.Background(), "api-1", ""); err != nil {
		t.Fatal(err)
	}
	for _, protocol := range protocols() {
		carrier, err := c.DialVia(context.Background(), target(), 40000, protocol)
		if err != nil {
			t.Fatal(err)
		}
		carrier.Close()
	}
}

// A kubeconfig's proxy carries everything, upgrades too.
func TestProxy(t *testing.T) {
	f := newFakeAPI(t)
	f.addPod("api-1", nil)
	newForwarder(f)
	connects := make(chan string, 100)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connects <- r.Method + " " + r.Host
		up, err := net.Dial("tcp", f.srv.Listener.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { conn.Close(); up.Close() })
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(up, conn) }()
		go func() { _, _ = io.Copy(conn, up) }()
	}))
	defer proxy.Close()
	config := writeKubeconfig(t, "https://api.example.org", "certificate-authority-data: "+caOf(f)+", tls-server-name: example.com, proxy-url: "+`"`+proxy.URL+`"`, "token: secret")
	c, err := New(Flags{Kubeconfig: config})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Resolve(context.Background(), "api-1", ""); err != nil {
		t.Fatal(err)
	}
	for _, protocol := range protocols() {
		carrier, err := c.DialVia(context.Background(), target(), 40000, protocol)
		if err != nil {
			t.Fatal(err)
		}
		carrier.Close()
	}
	for range 3 {
		if got := <-connects; got != "CONNECT api.example.org:443" {
			t.Errorf("proxy saw %q", got)
		}
	}
}

func TestBusyServer(t *testing.T) {
	f := newFakeAPI(t)
	f.addPod("api-1", nil)
	busy := 1
	f.intercept = func(w http.ResponseWriter, _ *http.Request) bool {
		if busy--; busy < 0 {
			return false
		}
		w.Header().Set("Retry-After", "1")
		f.reply(w, status(429, metav1.StatusReasonTooManyRequests, "later"))
		return true
	}
	if _, err := f.client().Resolve(context.Background(), "api-1", ""); err != nil {
		t.Error(err)
	}
}

func TestServerError(t *testing.T) {
	f := newFakeAPI(t)
	f.intercept = func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, "etcd is away", http.StatusInternalServerError)
		return true
	}
	_, err := f.client().Resolve(context.Background(), "api-1", "")
	wantError(t, err, "the API server failed", "readyz")
}

func TestImpersonation(t *testing.T) {
	f := newFakeAPI(t)
	f.addPod("api-1", nil)
	var got http.Header
	f.intercept = func(_ http.ResponseWriter, r *http.Request) bool { got = r.Header.Clone(); return false }
	c, err := New(Flags{Kubeconfig: f.kubeconfig("token: secret"), As: "jane", AsGroups: []string{"dev", "ops"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Resolve(context.Background(), "pod/api-1", ""); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"jane", "dev", "ops"}, append(got["Impersonate-User"], got["Impersonate-Group"]...)); diff != "" {
		t.Errorf("impersonation (-want +got):\n%s", diff)
	}
}

func TestCheckAccess(t *testing.T) {
	f := newFakeAPI(t)
	f.deny["get pods/log"] = true
	f.deny["get services"] = true
	got, err := f.client().CheckAccess(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	var denied []string
	for _, a := range got {
		if !a.Allowed {
			denied = append(denied, a.String())
		}
	}
	if diff := cmp.Diff([]string{"get pods/log", "get services"}, denied); diff != "" {
		t.Errorf("denied (-want +got):\n%s", diff)
	}
}

func TestRBAC(t *testing.T) {
	for name, cfg := range map[string]RoleConfig{
		"role.yaml":           {Namespace: "shop"},
		"role-workloads.yaml": {Namespace: "shop", Features: []Feature{Workloads}},
		"role-attach.yaml":    {Namespace: "shop", Features: []Feature{OverAttach, TargetAsImage, WebSocket}},
		"role-all.yaml": {Name: "borrowers", Features: []Feature{Workloads, TargetAsImage, WebSocket, Events, Google},
			Subjects: []string{"user:jane: the \"first\"", "group:oidc:dev", "serviceaccount:ci/runner"}},
	} {
		b, err := RBAC(cfg)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, b)
	}
	for _, cfg := range []RoleConfig{
		{Name: "No Name"}, {Namespace: "a.b"}, {Subjects: []string{"jane"}}, {Subjects: []string{"user:"}}, {Subjects: []string{"robot:x"}},
		{Subjects: []string{"user:a\nb"}}, {Subjects: []string{"serviceaccount:runner"}}, {Subjects: []string{"serviceaccount:a/b/c"}},
	} {
		if b, err := RBAC(cfg); err == nil {
			t.Errorf("%+v gives:\n%s", cfg, b)
		}
	}
}

func TestAgentsOfGonePod(t *testing.T) {
	f := newFakeAPI(t)
	c := f.client()
	if got, err := c.Agents(context.Background(), target()); err != nil || got != nil {
		t.Errorf("agents of a pod that is gone: %v, %v", got, err)
	}
	f.addPod("api-1", func(p *api.Pod) { p.UID = "successor" })
	if got, err := c.Agents(context.Background(), target()); err != nil || got != nil {
		t.Errorf("agents of a pod that was replaced: %v, %v", got, err)
	}
}

func caOf(f *fakeAPI) string {
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.srv.Certificate().Raw}))
}

// expiredCert returns a client certificate and key as a kubeconfig holds them.
func expiredCert(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(946684800, 0), NotAfter: time.Unix(980000000, 0)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	priv, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	enc := func(kind string, b []byte) string {
		return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	return enc("CERTIFICATE", der), enc("EC PRIVATE KEY", priv)
}
