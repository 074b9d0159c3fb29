//go:build !lab

package integration

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// resolvePrograms builds the programs of integration/apps/resolve that this machine has compilers for into dir.
func resolvePrograms(t *testing.T, dir string) {
	t.Helper()
	for _, build := range []struct {
		need string
		env  string
		argv []string
	}{
		{"go", "CGO_ENABLED=0", []string{"go", "build", "-o", filepath.Join(dir, "resolve-go"), "./integration/apps/resolve"}},
		{"cc", "CGO_ENABLED=1", []string{"go", "build", "-o", filepath.Join(dir, "resolve-cgo"), "./integration/apps/resolve"}},
		{"cc", "", []string{"cc", "-Wall", "-Wextra", "-Werror", "-o", filepath.Join(dir, "resolve-glibc"), "integration/apps/resolve/libc/resolve.c", "-lresolv"}},
		{"musl-gcc", "", []string{"musl-gcc", "-static", "-o", filepath.Join(dir, "resolve-musl"), "integration/apps/resolve/libc/resolve.c"}},
	} {
		if _, err := exec.LookPath(build.need); err != nil {
			continue // its lookups are skipped
		}
		cmd := exec.Command(build.argv[0], build.argv[1:]...)
		cmd.Dir = root
		cmd.Env = append(cmd.Environ(), build.env)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", build.argv, err, out)
		}
	}
}

// TestDemoResolvers resolves names of the demo's cluster in every way that a program of this machine can, and its services in
// those that need no runtime.
func TestDemoResolvers(t *testing.T) {
	const orders, ledger, echo = "198.51.100.21", "198.51.100.22 2001:db8:0:2::22", "ledger.shop.svc.cluster.local:7"
	names := map[string]string{
		"orders": orders, "orders.shop": orders, "orders.shop.svc": orders, "Orders.shop.svc.cluster.local": orders,
		"ledger": ledger, "books": ledger, "nobody": "none", "nobody.shop.svc.cluster.local": "none", "ledger.shop.svc.cluster.local.": ledger,
	}
	records := map[string]string{
		"_echo._tcp.ledger": echo, "_echo._tcp.ledger.shop": echo, "_Echo._TCP.ledger.shop.svc.cluster.local": echo,
		"_films._tcp.ledger": "none", "_films._tcp.ledger.shop.svc.cluster.local": "none", "ledger.shop.svc.cluster.local": "none",
	}
	asUsers(t, func(t *testing.T, p *demoPlace) {
		bin := filepath.Dir(p.bin)
		resolvePrograms(t, bin)
		k := p.keep()
		for _, l := range lookups {
			t.Run(l.name, func(t *testing.T) { p.resolve(t, l, names) })
		}
		for _, l := range services {
			if strings.HasPrefix(l.need, "resolve-") {
				t.Run("srv-"+l.name, func(t *testing.T) { p.resolve(t, l, records) })
			}
		}
		k.end()
	})
}

// resolve looks names up in one way, and wants of each what names says.
func (p *demoPlace) resolve(t *testing.T, l lookup, names map[string]string) {
	bin := filepath.Dir(p.bin)
	if _, err := exec.LookPath(l.need); err != nil {
		if _, err := os.Stat(filepath.Join(bin, l.need)); err != nil {
			t.Skipf("needs %s: make setup", l.need)
		}
	}
	argv := []string{"run", "--", "sh", "-c", "BIN=" + bin + "\n" + l.script, "sh"}
	for name := range names {
		argv = append(argv, name)
	}
	said, _ := p.run(argv...) // tools differ in what they call a failure
	got := found(t, said)
	for name, want := range names {
		if got[name] != want {
			t.Errorf("%s: got %q, want %q", name, got[name], want)
		}
	}
	if t.Failed() {
		t.Logf("it said:\n%s", said)
	}
}

// TestDemoNames checks what a person sees of names: addresses of their own in borrownet.yaml, the explanation, the counts.
func TestDemoNames(t *testing.T) {
	asUsers(t, func(t *testing.T, p *demoPlace) {
		k := p.keep()
		p.must("down")
		p.wd = p.dir
		file := filepath.Join(p.dir, "borrownet.yaml")
		if err := errors.Join(os.WriteFile(file, []byte("hosts:\n  pinned.example.org: 192.0.2.77\n  orders.shop.svc.cluster.local: [192.0.2.78, '2001:db8::78']\n"), 0o600),
			os.Chown(file, p.uid, -1)); err != nil {
			t.Fatal(err)
		}
		p.must("up", "--pod", "api", "--context", "demo", "-d")
		for url, want := range map[string]string{
			"dns://pinned.example.org": "192.0.2.77\n", "dns://orders": "192.0.2.78\n2001:db8::78\n", "dns://ledger": "198.51.100.22\n2001:db8:0:2::22\n",
		} {
			if said, _ := p.call(url); said != want {
				t.Errorf("%s: got %q, want %q", url, said, want)
			}
		}
		for _, tt := range []struct {
			args []string
			code int
			want []string
		}{
			{[]string{"nobody.shop"}, 0, []string{"search shop.svc.cluster.local.", "nobody.shop.shop.svc.cluster.local.", "pod udp 198.51.100.53", "NXDOMAIN"}},
			{[]string{"nobody.shop"}, 0, []string{"cache", "NXDOMAIN in "}},
			{[]string{"pinned.example.org"}, 0, []string{"hosts in borrownet.yaml", "pinned.example.org. 5 IN A 192.0.2.77"}},
			{[]string{"_echo._tcp.ledger", "--type", "srv"}, 0, []string{"IN SRV 0 100 7 ledger.shop.svc.cluster.local."}},
			{[]string{"ledger", "-o", "json"}, 0, []string{`"rcode": "NOERROR"`, `"from": "`}},
			{[]string{"ledger", "--type", "x"}, 2, []string{"error: explain ledger: ", "hint: borrownet explain dns"}},
			{[]string{"a..b"}, 2, []string{"is no domain name"}},
		} {
			said, code := p.run(append([]string{"explain", "dns"}, tt.args...)...)
			for _, want := range tt.want {
				if code != tt.code || !strings.Contains(said, want) {
					t.Errorf("explain dns %q: exit code %d, want %q in\n%s", tt.args, code, want, said)
				}
			}
		}
		var status struct {
			DNS struct{ Queries, Cached, Overridden, NXDomain, Failed int }
		}
		if err := json.Unmarshal([]byte(p.must("status", "api", "-o", "json")), &status); err != nil {
			t.Fatal(err)
		}
		if d := status.DNS; d.Queries < 6 || d.Cached < 1 || d.Overridden < 3 || d.NXDomain < 2 || d.Failed != 0 {
			t.Errorf("counts %+v", d)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		k.end()
	})
}

// TestDemoLocalNames checks against a nameserver of this machine which names get there: those of --local, and no other, and
// none of the programs' by another way.
func TestDemoLocalNames(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: for the nameserver's port and a resolv.conf of its own")
	}
	if out, err := exec.Command("unshare", "-m", "true").CombinedOutput(); err != nil {
		t.Skipf("needs a mount namespace, for a resolv.conf of its own: %v, %s", err, out)
	}
	pc, err := net.ListenPacket("udp", "127.0.0.153:53")
	if err != nil {
		t.Skipf("needs port 53 of a loopback address: %v", err)
	}
	laptops := answerAll(t, pc, [4]byte{192, 0, 2, 99})
	as(t, map[string]int{"root": 0}, func(t *testing.T, p *demoPlace) {
		conf := filepath.Join(t.TempDir(), "resolv.conf")
		if err := os.WriteFile(conf, []byte("nameserver 127.0.0.153\nsearch home.example\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		p.wrap = []string{"unshare", "-m", "sh", "-c", `mount --bind "$0" /etc/resolv.conf && exec "$@"`, conf}
		k := p.keep()
		p.must("down")
		laptops.forget() // the demo's own calls without a session
		p.must("up", "--pod", "api", "--context", "demo", "-d", "--local", "corp.example")
		for _, tt := range []struct{ url, want string }{
			{"dns://db.corp.example", "192.0.2.99\n"},
			{"dns://orders", "198.51.100.21\n"}, // by way of orders.home.example, which the pod is asked for
			{"dns://nobody", "error: "},
			{"dns://db.other.example", "error: "},
		} {
			if said, _ := p.call(tt.url); !strings.HasPrefix(said, tt.want) {
				t.Errorf("%s: got %q, want %q", tt.url, said, tt.want)
			}
		}
		asked := laptops.asked()
		for _, name := range asked {
			if name != "db.corp.example." {
				t.Errorf("the laptop's nameserver was asked for %s", name)
			}
		}
		if len(asked) == 0 {
			t.Error("the laptop's nameserver was not asked")
		}
		if said := p.must("explain", "dns", "db.corp.example", "--type", "MX"); !strings.Contains(said, "laptop udp 127.0.0.153") {
			t.Errorf("explain:\n%s", said)
		}
		if said := p.must("status"); !strings.Contains(said, "by this machine's resolver") {
			t.Errorf("status:\n%s", said)
		}
		k.end()
	})
}
