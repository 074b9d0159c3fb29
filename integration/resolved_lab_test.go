//go:build lab

package integration

import (
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// How C libraries find names: Debian's and Ubuntu's way, and Fedora's and Arch's.
const (
	nssDNS     = "hosts: files dns"
	nssResolve = "hosts: files resolve [!UNAVAIL=return] dns"
)

// resolvedLaptop runs a command on a laptop whose names are systemd-resolved's business: its /etc, in a mount namespace of
// the command's own, has a resolv.conf and an nsswitch.conf as systemd's laptops do.
const resolvedLaptop = `set -e
etc=$XDG_RUNTIME_DIR/etc
mkdir -p "$etc"
mount --rbind /etc "$etc"
mount -t tmpfs tmpfs /etc
ln -s "$etc"/* /etc/
ln -sfn ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
if [ "$2" ]; then rm /etc/resolv.conf; sed "s/^search .*/search $2/" /run/systemd/resolve/stub-resolv.conf >/etc/resolv.conf; fi
rm /etc/nsswitch.conf
printf '%s\n' "passwd: files" "group: files" "$1" >/etc/nsswitch.conf
uid=$3 gid=$4
shift 4
exec unshare --user --map-user="$uid" --map-group="$gid" -- "$@"
`

// A resolvedPlace is a laptop with systemd-resolved.
type resolvedPlace struct {
	dir         string      // of systemd's programs
	world, corp *nameserver // of the laptop's network, and of its VPN for corp.example.org
}

// newResolvedPlace answers where the lab's systemd-resolved asks (integration/lab/internal/resolved).
func newResolvedPlace(t *testing.T) resolvedPlace {
	t.Helper()
	p := resolvedPlace{dir: os.Getenv("LAB_RESOLVED")}
	if p.dir == "" {
		t.Skip("needs systemd-resolved: hack/lab-build.sh fetches it where there is apt-get")
	}
	listen := func(addr string) net.PacketConn {
		pc, err := net.ListenPacket("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		return pc
	}
	p.world = answerAll(t, listen("10.77.1.2:5300"), [4]byte{192, 0, 2, 98})
	p.corp = answerAll(t, listen("10.77.1.2:5301"), [4]byte{192, 0, 2, 99})
	return p
}

// wrap is what a command on such a laptop is started by. The search list is the laptop's own if it is empty.
func (p resolvedPlace) wrap(nss, search string) []string {
	return []string{"env", "LD_LIBRARY_PATH=" + filepath.Join(p.dir, "lib"), "unshare", "-Urm", "sh", "-c", resolvedLaptop, "sh",
		nss, search, itoa(os.Getuid()), itoa(os.Getgid())}
}

func (p resolvedPlace) run(t *testing.T, nss string, argv ...string) result {
	t.Helper()
	return command{argv: append(p.wrap(nss, ""), argv...)}.run(t)
}

// TestSystemdResolved has a session on a laptop with systemd-resolved, as Ubuntu, Fedora and Arch make it: the session's
// names are the pod's, those of --local and the laptop's programs' are systemd-resolved's, as before.
func TestSystemdResolved(t *testing.T) {
	p := newResolvedPlace(t)
	p.unchanged(t, "before")
	settings := p.run(t, nssDNS, filepath.Join(p.dir, "resolvectl"), "status").stdout
	if !strings.Contains(settings, "~corp.example.org") || !strings.Contains(settings, "resolv.conf mode: ") {
		t.Fatalf("systemd-resolved is not set up: %s", settings)
	}
	if r := p.run(t, nssDNS, "borrownet", "up", "-d", "-n", "shop", "--pod", "api", "--local", "corp.example.org"); r.code != 0 {
		t.Fatal(r)
	}
	t.Cleanup(func() { noLeaks(t); mustBorrownet(t, "down", "--all") })
	p.world.forget()
	p.corp.forget()
	t.Run("cluster", p.cluster)
	if asked := append(p.world.asked(), p.corp.asked()...); len(asked) != 0 {
		t.Errorf("the laptop's nameservers were asked for %q", asked)
	}
	t.Run("local", p.local)
	t.Run("hooks", p.hooks)
	t.Run("beside", func(t *testing.T) { p.unchanged(t, "during") })
	mustBorrownet(t, "down", "--all")
	p.unchanged(t, "after")
	if diff := cmp.Diff(settings, p.run(t, nssDNS, filepath.Join(p.dir, "resolvectl"), "status").stdout); diff != "" {
		t.Errorf("systemd-resolved's settings (-before +after):\n%s", diff)
	}
}

// unchanged checks that programs beside the session find what the laptop's nameservers say.
func (p resolvedPlace) unchanged(t *testing.T, when string) {
	t.Helper()
	const world, corp = "192.0.2.98", "192.0.2.99"
	for how, argv := range map[string][]string{
		nssDNS: {"getent", "ahostsv4"}, nssResolve: {"getent", "ahostsv4"},
		"hosts: resolve": {"getent", "ahostsv4"}, // nss-resolve is there
		"resolvectl":     {filepath.Join(p.dir, "resolvectl"), "query", "-4", "--legend=no"},
	} {
		id := when + itoa(len(how))
		for name, want := range map[string]string{
			id + ".example.org": world, "db-" + id + ".corp.example.org": corp, id + ".home.example": world,
		} {
			nss := how
			if !strings.HasPrefix(how, "hosts:") {
				nss = nssDNS
			}
			if r := p.run(t, nss, append(slices.Clone(argv), name)...); r.code != 0 || !strings.Contains(r.stdout, want) {
				t.Errorf("%s, %s: %s: want %s, got %v", when, how, name, want, r)
			}
		}
		if r := p.run(t, nssDNS, "getent", "ahostsv4", id); !strings.Contains(r.stdout, world) {
			t.Errorf("%s: the laptop's search list: %v", when, r)
		}
	}
}

// cluster compares what programs of the session find with what getent finds in a pod.
func (p resolvedPlace) cluster(t *testing.T) {
	x := newTools(t)
	const domain, there, nowhere = ".shop.svc.cluster.local", "orders.shop.svc.cluster.local", "nobody.shop.svc.cluster.local"
	// No short name that is nowhere: the cluster's nameserver fails for it, and some resolvers ask again and again.
	names := []string{there, "Ledger" + domain, "orders-pods" + domain, "warehouse" + domain, nowhere, "outside.example.org",
		"orders", "orders.shop", "orders.shop.svc", "ledger-pods", "warehouse", "kubernetes.default"}
	ways := make(map[string]lookup)
	for _, l := range lookups {
		ways[l.name] = l
	}
	inside := x.inPod(t, ways["glibc"].script, names...)
	want := found(t, inside.stdout)
	if want["orders"] != want[there] || want[there] == "none" || want[nowhere] != "none" {
		t.Fatalf("in the pod it does not work: %v", inside)
	}
	for _, tt := range []struct {
		name, nss, search string
		lookups           []string
	}{
		{"nss-dns", nssDNS, "", []string{"glibc"}},
		{"nss-resolve", nssResolve, "", []string{"glibc", "go-cgo", "python"}},
		{"own-resolver", nssDNS, "", []string{"musl", "go", "dig-search", "host"}},
		// What systemd-resolved writes on a laptop without a search list. musl does not understand it, here as elsewhere.
		{"no-search-list", nssResolve, ".", []string{"glibc", "go", "dig-search"}},
	} {
		x.wrap = p.wrap(tt.nss, tt.search)
		for _, way := range tt.lookups {
			t.Run(tt.name+"/"+way, func(t *testing.T) {
				l := ways[way]
				if !x.has(l) {
					t.Skipf("needs %s: make setup", l.need)
				}
				r := x.onLaptop(t, l.script, names...)
				if diff := cmp.Diff(want, found(t, r.stdout)); diff != "" {
					t.Errorf("(-in the pod +on the laptop):\n%s\nin the pod: %v\non the laptop: %v", diff, inside, r)
				}
			})
		}
	}
	// Without the way to DNS nss-resolve finds nothing in the session: it is ours that answered above.
	x.wrap = p.wrap("hosts: resolve", "")
	if r := x.onLaptop(t, "getent ahosts "+there); r.code == 0 {
		t.Errorf("nss-resolve alone finds names of the cluster: %v", r)
	}
}

// local checks that names below --local are what systemd-resolved has its VPN's nameserver say.
func (p resolvedPlace) local(t *testing.T) {
	want := make(map[string]bool)
	x := tools{programs: filepath.Dir(self(t))}
	for name, tt := range map[string]struct{ nss, script string }{
		"db1.corp.example.org": {nssDNS, `getent ahostsv4 $1`}, "db2.corp.example.org": {nssResolve, `getent ahostsv4 $1`},
		"db3.corp.example.org": {nssDNS, `dig +short $1`}, "db4.corp.example.org": {nssDNS, `$BIN/resolve-go $1`},
	} {
		want[name+"."] = true
		x.wrap = p.wrap(tt.nss, "")
		if r := x.onLaptop(t, tt.script, name); !strings.Contains(r.stdout, "192.0.2.99") {
			t.Errorf("%s: %v", name, r)
		}
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), p.corp.asked()); diff != "" {
		t.Errorf("the nameserver of corp.example.org was asked for (-want +got):\n%s", diff)
	}
	if asked := p.world.asked(); len(asked) != 0 {
		t.Errorf("the nameserver of the laptop's network was asked for %q", asked)
	}
	if r := mustBorrownet(t, "explain", "dns", "db5.corp.example.org"); !strings.Contains(r.stdout, "laptop udp 127.0.0.53") {
		t.Errorf("explain: %v", r)
	}
}

// hookScript prints of a session on rung $1 what programs find that would ask systemd-resolved past every nameserver:
// by nss-resolve, at its socket and, over D-Bus, by resolvectl in $2. The rest is what commands are started by, if anything.
const hookScript = `rung=$1 dir=$2
shift 2
borrownet up -d -n shop --pod api --hook "$rung" --session "$rung" >&2 || exit
run() { borrownet run --session "$rung" -- "$@"; }
echo nss $(run "$@" getent ahostsv4 orders | sed -n '1s/ .*//p')
echo socket $(run "$@" /usr/bin/python3 -c '
import errno, socket
try:
    socket.socket(socket.AF_UNIX).connect("/run/systemd/resolve/io.systemd.Resolve")
    print("connected")
except OSError as e:
    print(errno.errorcode[e.errno])
')
[ "$rung" = netns ] || echo bus $(run "$@" "$dir/resolvectl" query secret.example.org 2>&1)
borrownet down "$rung" >&2
`

// hooks checks that on every rung nothing reaches systemd-resolved: its answers would be the laptop's. On the netns rung
// D-Bus is the laptop's.
func (p resolvedPlace) hooks(t *testing.T) {
	p.world.forget()
	orders := strings.TrimSpace(kubectl(t, "-n", "shop", "get", "service", "orders", "-o", "jsonpath={.spec.clusterIP}"))
	const noBus = "sd_bus_open_system: No such file or directory"
	for rung, want := range map[string]map[string]string{
		"seccomp":       {"nss": orders, "socket": "ENOENT", "bus": noBus},
		"netns":         {"nss": orders, "socket": "ECONNREFUSED"},
		"preload":       {"nss": orders, "socket": "ENOENT", "bus": noBus},
		"preload-relay": {"nss": orders, "socket": "ENOENT", "bus": noBus},
		"relay":         {"nss": orders, "socket": "ENOENT", "bus": noBus},
	} {
		t.Run(rung, func(t *testing.T) {
			argv := []string{"sh", "-c", hookScript, "sh", rung, p.dir}
			if rung == "netns" { // whoever enters the session's namespace has to be outside of the laptop's of the test
				argv = append(argv, p.wrap(nssResolve, "")...)
			} else {
				argv = append(p.wrap(nssResolve, ""), argv...)
			}
			r := command{argv: argv}.run(t)
			got := make(map[string]string)
			for line := range strings.Lines(r.stdout) {
				what, said, _ := strings.Cut(strings.TrimSpace(line), " ")
				got[what] = said
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s\n%v", diff, r)
			}
		})
	}
	if asked := p.world.asked(); len(asked) != 0 {
		t.Errorf("the nameserver of the laptop's network was asked for %q", asked)
	}
}
