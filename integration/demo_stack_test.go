//go:build !lab

package integration

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// stackDir makes a directory of a project, with a borrownet.yaml, that the user of p may
// read.
func stackDir(t *testing.T, p *demoPlace, text string) string {
	t.Helper()
	dir := filepath.Join(filepath.Dir(p.dir), "project-"+filepath.Base(p.dir))
	if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "borrownet.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestDemoStack sets a stack up on the demo's world, runs services of it, sends the calls
// for one of them to a local copy, and takes it down.
func TestDemoStack(t *testing.T) {
	asUsers(t, func(t *testing.T, p *demoPlace) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		go http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // ends with ln
			fmt.Fprintf(w, "the local copy of %s", r.Host)
		}))
		k := p.keep()
		p.must("down")
		p.wd = stackDir(t, p, fmt.Sprintf(`
context: demo
namespace: shop
sessions:
  api:
    redirect: {orders: %q}
    env: {NUMBER: 7}
    podEnv: [APP_NAME]
    unset: [LEDGER_SERVICE_PORT]
    dir: sub
    command: echo $APP_NAME $NUMBER ${LEDGER_SERVICE_PORT-none} $PWD
  caller:
    pod: deploy/api
    redirect: {"orders.shop:80": %[1]q}
    command: [%q, demo, call, http://orders.shop/path]
  orders: {pod: svc/orders}
  ledger:
`, ln.Addr(), p.bin))
		said := p.must("up", "-f", "borrownet.yaml", "-d")
		for _, want := range []string{"api: ready", "ledger: ready", "pod shop/orders-", "4 of 4 sessions are ready"} {
			if !strings.Contains(said, want) {
				t.Errorf("up does not say %q:\n%s", want, said)
			}
		}
		if said := p.must("up", "-f", "borrownet.yaml", "-d", "api", "ledger"); strings.Count(said, "is up already") != 2 {
			t.Errorf("a second up:\n%s", said)
		}
		if said, want := p.must("run", "api"), "api 7 none "+filepath.Join(p.wd, "sub")+"\n"; !strings.Contains(said, want) {
			t.Errorf("run api: %q, want %q", said, want)
		}
		if said := p.must("run", "caller"); !strings.Contains(said, "the local copy of orders.shop") {
			t.Errorf("run caller: %s", said)
		}
		for _, name := range []string{"orders", "orders.shop.svc", "orders.shop.svc.cluster.local"} {
			if said := p.must("run", "--session", "api", "--", p.bin, "demo", "call", "http://"+name); !strings.Contains(said, "the local copy of "+name) {
				t.Errorf("a call for %s: %s", name, said)
			}
		}
		if said := p.must("run", "--session", "ledger", "--", p.bin, "demo", "call", "http://orders"); !strings.Contains(said, `"remote": "192.0.2.22:`) {
			t.Errorf("a session without redirect: %s", said)
		}
		if said := p.must("status", "api"); !strings.Contains(said, "orders to "+ln.Addr().String()) {
			t.Errorf("status:\n%s", said)
		}
		for _, tt := range []struct {
			args []string
			code int
			want string
		}{
			{[]string{"run", "ledger"}, 125, "names no command for it"},
			{[]string{"run", "-f", "borrownet.yaml", "nobody"}, 125, "it has: api, caller, ledger, orders"},
			{[]string{"up", "-f", "borrownet.yaml", "nobody"}, 2, "describes no session nobody"},
			{[]string{"up", "-f", "nowhere.yaml"}, 2, "no such file"},
			{[]string{"up", "-f", "borrownet.yaml", "--pod", "api"}, 2, "is not said on the command line"},
		} {
			if said, code := p.run(tt.args...); code != tt.code || !strings.Contains(said, tt.want) || !strings.Contains(said, "hint: ") {
				t.Errorf("%q: exit code %d, %s", tt.args, code, said)
			}
		}
		p.must("down", "-f", "borrownet.yaml", "caller")
		if said := p.must("down", "-f", "borrownet.yaml", "--stop-agent"); strings.Count(said, " is down") != 3 {
			t.Errorf("down:\n%s", said)
		}
		if said, code := p.run("status"); code != 30 {
			t.Errorf("status of nothing: exit code %d, %s", code, said)
		}
		// What does not come up leaves the others alone.
		p.wd = stackDir(t, p, "context: demo\nsessions: {api: {namespace: shop}, ghost: {namespace: shop}, ledger: {namespace: nowhere}}\n")
		said, code := p.run("up", "-f", "borrownet.yaml", "-d")
		for _, want := range []string{"error: session ghost: ", "error: session ledger: ", "there is no namespace nowhere", "1 of 3 sessions are ready"} {
			if code != 11 || !strings.Contains(said, want) {
				t.Errorf("a stack with errors, exit code %d, does not say %q:\n%s", code, want, said)
			}
		}
		p.must("down", "api")
		k.end()
	})
}
