//go:build lab

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// toolsPod is a pod with the programs of this machine, so that the same ones run in a pod and on the laptop. Its
// resolv.conf is the kubelet's work, as if it were in namespace shop; there nobody may mount the node's files. %[1]s is the
// directory of the test's own programs.
const toolsPod = `apiVersion: v1
kind: Pod
metadata: {name: tools, namespace: kube-system}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  dnsPolicy: None
  dnsConfig:
    nameservers: [10.96.0.10]
    searches: [shop.svc.cluster.local, svc.cluster.local, cluster.local]
    options: [{name: ndots, value: "5"}]
  containers:
  - name: tools
    image: lab.local/pause:1
    imagePullPolicy: IfNotPresent
    securityContext: {runAsUser: 0, runAsGroup: 0}
    volumeMounts:
    - {name: usr, mountPath: /usr, readOnly: true}
    - {name: bin, mountPath: /bin, readOnly: true}
    - {name: lib, mountPath: /lib, readOnly: true}
    - {name: lib64, mountPath: /lib64, readOnly: true}
    - {name: etc, mountPath: /host/etc, readOnly: true}
    - {name: programs, mountPath: %[1]s, readOnly: true}
    - {name: tmp, mountPath: /tmp}
  volumes:
  - {name: usr, hostPath: {path: /usr}}
  - {name: bin, hostPath: {path: /usr/bin}}
  - {name: lib, hostPath: {path: /usr/lib}}
  - {name: lib64, hostPath: {path: /usr/lib64, type: DirectoryOrCreate}}
  - {name: etc, hostPath: {path: /etc}}
  - {name: programs, hostPath: {path: %[1]s}}
  - {name: tmp, emptyDir: {}}
`

// toolsEtc is what the programs need of a machine's /etc: the container's own has its resolv.conf alone.
const toolsEtc = `for f in alternatives java-17-openjdk java-21-openjdk; do
  if [ -d /host/etc/$f ]; then ln -s /host/etc/$f /etc/$f; fi
done
echo 'hosts: files dns' >/etc/nsswitch.conf
`

// moreNames are a StatefulSet's Service, with a name per pod.
const moreNames = `apiVersion: v1
kind: Service
metadata: {name: shelves, namespace: shop}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {app: shelves}
  ports: [{name: books, port: 7}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: shelves, namespace: shop}
spec:
  serviceName: shelves
  replicas: 2
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: shelves}}
  template:
    metadata: {labels: {app: shelves}}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 0
      securityContext: {runAsNonRoot: true, runAsUser: 10001, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: shelf
        image: lab.local/pause:1
        imagePullPolicy: IfNotPresent
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`

// tools runs shell scripts in the tools pod and on the laptop, in a session on api.
type tools struct {
	programs string
	wrap     []string // what commands on the laptop are started by, if anything
	session  string   // "" = the only one
}

// newTools makes the pod, and the StatefulSets named. Tests have one each: names of pods that were there a moment ago
// may be in some cache.
func newTools(t *testing.T, sets ...string) tools {
	t.Helper()
	x := tools{programs: filepath.Dir(self(t))}
	manifests := []string{fmt.Sprintf(toolsPod, x.programs)}
	for _, set := range sets {
		manifests = append(manifests, strings.ReplaceAll(moreNames, "shelves", set))
	}
	admin := []string{"kubectl", "--kubeconfig", os.Getenv("LAB_ADMIN_KUBECONFIG")}
	for _, manifest := range manifests {
		if r := (command{argv: append(admin, "apply", "-f", "-"), stdin: manifest}).run(t); r.code != 0 {
			t.Fatal(r)
		}
	}
	t.Cleanup(func() {
		kubectl(t, "-n", "kube-system", "delete", "pod", "tools", "--now")
		for _, set := range sets {
			kubectl(t, "-n", "shop", "delete", "statefulset/"+set, "service/"+set, "--now")
		}
	})
	kubectl(t, "-n", "kube-system", "wait", "pod/tools", "--for=condition=Ready", "--timeout=180s")
	for _, set := range sets {
		kubectl(t, "-n", "shop", "rollout", "status", "statefulset/"+set, "--timeout=180s")
	}
	if r := x.inPod(t, toolsEtc); r.code != 0 {
		t.Fatal(r)
	}
	for _, set := range sets { // what is asked for before the cluster's DNS has heard of both pods is not there for a while
		waitFor(t, "the pods' addresses are told of", patience, func() bool {
			const each = `jsonpath={range .items[*].endpoints[*]}{.hostname}{" "}{end}`
			return len(strings.Fields(kubectl(t, "-n", "shop", "get", "endpointslices", "-l", "kubernetes.io/service-name="+set, "-o", each))) == 2
		})
		waitFor(t, "the cluster's DNS knows the pods", patience, func() bool {
			return x.inPod(t, `for n; do getent hosts $n.shop.svc.cluster.local >/dev/null || exit 1; done`, set+"-0."+set, set+"-1."+set, set).code == 0
		})
	}
	return x
}

func (x tools) inPod(t *testing.T, script string, args ...string) result {
	t.Helper()
	argv := []string{"kubectl", "--kubeconfig", os.Getenv("LAB_ADMIN_KUBECONFIG"), "-n", "kube-system", "exec", "tools", "--", "/bin/sh", "-c"}
	prelude := "export PATH=/usr/sbin:/usr/bin BIN=" + x.programs + "\n"
	return command{argv: append(append(argv, prelude+script, "sh"), args...), timeout: 3 * time.Minute}.run(t)
}

func (x tools) onLaptop(t *testing.T, script string, args ...string) result {
	t.Helper()
	argv := append(slices.Clone(x.wrap), "borrownet", "run")
	if x.session != "" {
		argv = append(argv, "--session", x.session)
	}
	argv = append(argv, "--", "/bin/sh", "-c", "export PATH=/usr/sbin:/usr/bin BIN="+x.programs+"\n"+script, "sh")
	return command{argv: append(argv, args...), timeout: 3 * time.Minute}.run(t)
}

// has reports whether the machine has what l needs.
func (x tools) has(l lookup) bool {
	for _, dir := range []string{"/usr/bin", x.programs, ""} {
		if _, err := os.Stat(filepath.Join(dir, l.need)); err == nil {
			return true
		}
	}
	return false
}

// TestResolversAsInThePod resolves names of every kind with every resolver, on the laptop and in a pod, and wants the same.
func TestResolversAsInThePod(t *testing.T) {
	up(t, "api")
	x := newTools(t, "shelves")
	const domain = ".shop.svc.cluster.local"
	complete := []string{"orders" + domain, "Ledger" + domain, "orders-pods" + domain, "warehouse" + domain, "shelves-0.shelves" + domain,
		"shelves" + domain, "nobody" + domain, "outside.example.org"}
	short := []string{"orders", "orders.shop", "orders.shop.svc", "shelves-1.shelves", "ledger-pods", "warehouse", "kubernetes.default", "nobody", "nobody.shop"}
	for _, l := range lookups {
		t.Run(l.name, func(t *testing.T) { x.compare(t, l, complete, short, "orders"+domain, "nobody"+domain) })
	}
	// A headless Service has a record per pod and port; the pods of orders-pods have names made of their addresses.
	complete = []string{"_books._tcp.shelves" + domain, "_http-web._tcp.orders-pods" + domain, "_Books._TCP.shelves" + domain, "_films._tcp.shelves" + domain}
	short = []string{"_books._tcp.shelves", "_books._tcp.shelves.shop", "_books._tcp.shelves.shop.svc", "_films._tcp.shelves"}
	for _, l := range services {
		t.Run("srv-"+l.name, func(t *testing.T) { x.compare(t, l, complete, short, complete[0], complete[3]) })
	}
}

// compare looks names up in a pod and on the laptop and wants the same. It knows of one that is there, and of one that is not.
func (x tools) compare(t *testing.T, l lookup, complete, short []string, there, nowhere string) {
	if !x.has(l) {
		t.Skipf("needs %s: make setup", l.need)
	}
	names := slices.Clone(complete)
	if !l.exact {
		names = append(names, short...)
	}
	inside, outside := x.inPod(t, l.script, names...), x.onLaptop(t, l.script, names...)
	want, got := found(t, inside.stdout), found(t, outside.stdout)
	for _, name := range names {
		if want[name] == "" {
			t.Errorf("in the pod nothing is said of %s", name)
		}
	}
	if want[there] == "none" || want[nowhere] != "none" {
		t.Errorf("in the pod it does not work: %v", inside)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-in the pod +on the laptop):\n%s\nin the pod: %v\non the laptop: %v", diff, inside, outside)
	}
}

// TestDigAsInThePod compares whole answers: flags, rcodes, names, types and records of complete names.
func TestDigAsInThePod(t *testing.T) {
	up(t, "api")
	x := newTools(t, "racks")
	if !x.has(lookup{need: "dig"}) {
		t.Skip("needs dig: make setup")
	}
	const domain = ".shop.svc.cluster.local"
	// Without what differs by nature: ids, times, serial numbers, which are times here, the order of records, and the
	// server's name and cookie. Of a TTL, which runs down, its order of magnitude stays.
	const normal = `ask() {
  echo "? $*"
  dig +nocmd +nostats +nocookie +tries=1 +time=30 "$@" | sed -E 's/, id: [0-9]+//; /OPT PSEUDO|^; EDNS|^;; Got|^$/d
    s/^([^;[:space:]]+)[[:space:]]+[0-9]{1,2}[[:space:]]+IN/\1 SECONDS IN/; s/^([^;[:space:]]+)[[:space:]]+[0-9]{3,4}[[:space:]]+IN/\1 MINUTES IN/
    s/^([^;[:space:]]+)[[:space:]]+[0-9]{5,}[[:space:]]+IN/\1 HOURS IN/; s/(hostmaster[^ ]* )[0-9]+/\1SERIAL/' | tr -s '\t' ' ' | sort
}
`
	queries := []string{
		"orders" + domain + " A", "orders" + domain + " AAAA", "ORDERS" + domain + " A", "orders" + domain + " MX", "orders" + domain + " TXT", "orders" + domain + " HTTPS",
		"_http-web._tcp.orders-pods" + domain + " SRV", "_books._tcp.racks" + domain + " SRV", "racks-0.racks" + domain + " A",
		"warehouse" + domain + " A", "warehouse" + domain + " CNAME", "nobody" + domain + " A", "nobody" + domain + " SRV",
		"cluster.local SOA", "cluster.local NS", "-x 10.96.0.10", "-x 10.96.255.254", "outside.example.org A", "kubernetes.default.svc.cluster.local A",
		"+dnssec orders" + domain + " A", "+noedns orders" + domain + " A", "+tcp orders" + domain + " A", "+bufsize=512 racks" + domain + " A", "+norecurse orders" + domain + " A",
	}
	script := normal
	for _, q := range queries {
		script += "ask " + q + "\n"
	}
	inside := x.inPod(t, script)
	if !strings.Contains(inside.stdout, " SECONDS IN A ") {
		t.Fatalf("in the pod no TTL is as short as the cluster's: %v", inside)
	}
	// The second time from the cache, then by the address of systemd-resolved.
	for _, how := range []struct{ name, server string }{{"first", ""}, {"cached", ""}, {"stub", "@127.0.0.53 "}} {
		t.Run(how.name, func(t *testing.T) {
			outside := x.onLaptop(t, strings.ReplaceAll(script, "+tries=1 ", "+tries=1 "+how.server))
			want, got := sections(inside.stdout), sections(outside.stdout)
			if len(want) != len(queries) {
				t.Fatalf("in the pod: %v", inside)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-in the pod +on the laptop):\n%s", diff)
			}
		})
	}
}

// sections takes dig's answers apart.
func sections(said string) map[string][]string {
	out := make(map[string][]string)
	question := ""
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(line)
		if q, ok := strings.CutPrefix(line, "? "); ok {
			question = q
		} else {
			out[question] = append(out[question], line)
		}
	}
	return out
}

// TestServiceMadeAnew checks that programs see a Service that is deleted and made again with another address within its TTL.
func TestServiceMadeAnew(t *testing.T) {
	up(t, "api")
	const name = "fleeting.shop.svc.cluster.local"
	service := func(ip string) string {
		return `apiVersion: v1
kind: Service
metadata: {name: fleeting, namespace: shop}
spec: {clusterIP: ` + ip + `, ports: [{port: 80}]}
`
	}
	admin := []string{"kubectl", "--kubeconfig", os.Getenv("LAB_ADMIN_KUBECONFIG")}
	create := func(ip string) {
		t.Helper()
		if r := (command{argv: append(admin, "apply", "-f", "-"), stdin: service(ip)}).run(t); r.code != 0 {
			t.Fatal(r)
		}
	}
	t.Cleanup(func() { kubectl(t, "-n", "shop", "delete", "service", "fleeting", "--ignore-not-found") })
	// The cluster's own cache and its TTL are 5 s each.
	waitForName := func(want string) {
		t.Helper()
		waitFor(t, name+" is "+want, patience, func() bool {
			var e struct {
				Rcode  string
				Answer []string
			}
			r := mustBorrownet(t, "explain", "dns", name, "-o", "json")
			if err := json.Unmarshal([]byte(r.stdout), &e); err != nil {
				t.Fatal(err)
			}
			return e.Rcode == want || len(e.Answer) == 1 && strings.HasSuffix(e.Answer[0], want)
		})
	}
	waitForName("NXDOMAIN")
	create("10.96.77.1")
	waitForName("10.96.77.1")
	kubectl(t, "-n", "shop", "delete", "service", "fleeting")
	create("10.96.77.2")
	waitForName("10.96.77.2")
}

// TestLocalNamesLeaveByTheLaptop checks in whose network a name is asked for. The laptop's nameserver is a dead one.
func TestLocalNamesLeaveByTheLaptop(t *testing.T) {
	up(t, "api", "--local", "corp.example")
	for _, tt := range []struct{ name, want string }{
		{"db.corp.example", "laptop udp 192.0.2.53"},
		{"outside.example.org", "pod udp 10.96.0.10"},
	} {
		if r := mustBorrownet(t, "explain", "dns", tt.name); !strings.Contains(r.stdout, tt.want) {
			t.Errorf("%s: want %q in\n%s", tt.name, tt.want, r.stdout)
		}
	}
}
