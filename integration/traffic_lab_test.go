//go:build lab

package integration

import (
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/borrownet/borrownet/integration/apps/stream"
)

// TestProgramsCallServicesAsThePod is the main job: a program of any language
// reaches a Service by name, and the Service sees the pod.
func TestProgramsCallServicesAsThePod(t *testing.T) {
	programs := []struct {
		name string
		argv []string
		env  []string
	}{
		{"curl", []string{"curl", "-sS", "--max-time", "20", "http://orders/curl"}, nil},
		{"static_go", []string{self(t), "http://orders/go"}, []string{probeVar + "=get"}},
		{"python3", []string{"python3", "-c", "import urllib.request as u; print(u.urlopen('http://orders/python', timeout=20).read().decode())"}, nil},
		{"node", []string{"node", "-e", "fetch('http://orders/node').then(r => r.text()).then(console.log)"}, nil},
	}
	for _, p := range programs {
		if r := (command{argv: p.argv, env: p.env}).run(t); r.code == 0 {
			t.Fatalf("%s reached orders without borrownet: %v", p.name, r)
		}
	}
	up(t, "api")
	api := podOf(t, "api")
	for _, p := range programs {
		t.Run(p.name, func(t *testing.T) {
			argv := append([]string{"borrownet", "run", "--"}, p.argv...)
			r := command{argv: argv, env: p.env}.run(t)
			if r.code != 0 {
				t.Fatal(r)
			}
			var s seen
			decode(t, r.stdout, &s)
			if s.App != "orders" || !api.has(s.Remote) {
				t.Errorf("app %s saw %s, want orders to see one of the pod's addresses %v", s.App, s.Remote, api.Status.PodIPs)
			}
		})
	}
}

func TestConnectFailsAsInThePod(t *testing.T) {
	up(t, "api")
	ledger := podOf(t, "ledger").Status.PodIP
	out := probe(t, 2*time.Minute, "dial",
		net.JoinHostPort(ledger, "7999"), // nothing listens
		"192.0.2.1:80@3s",                // the node drops every packet
		"198.51.100.1:80",                // the node has no route
	)
	lines := strings.Split(out, "\n")
	if len(lines) != 3 {
		t.Fatalf("output: %s", out)
	}
	// On a machine that is busy a refusal takes seconds, and a timeout longer than asked for.
	for i, want := range []string{`ECONNREFUSED (\d{1,3}ms|\d(\.\d+)?s)`, `timeout [3-9](\.\d+)?s`, `(EHOSTUNREACH|ENETUNREACH) .*`} {
		if !regexp.MustCompile(want + "$").MatchString(lines[i]) {
			t.Errorf("%q, want %s", lines[i], want)
		}
	}
}

func TestHalfClose(t *testing.T) {
	up(t, "api")
	if out := probe(t, time.Minute, "halfclose", "ledger:7004"); out != "ok" {
		t.Error(out)
	}
}

// TestGigabyteEachWay moves 1 GiB up and down and compares digests.
func TestGigabyteEachWay(t *testing.T) {
	up(t, "api")
	const size = 1 << 30
	sum := stream.Sum(size, 9)
	want := fmt.Sprintf("%d %s", size, hex.EncodeToString(sum[:]))
	for _, dir := range []struct{ probe, addr string }{{"upload", "ledger:7001"}, {"download", "ledger:7002"}} {
		start := time.Now()
		if got := probe(t, 5*time.Minute, dir.probe, dir.addr, fmt.Sprint(size), "9"); got != want {
			t.Errorf("%s: %s, want %s", dir.probe, got, want)
		}
		t.Logf("%s: %.0f MB/s", dir.probe, float64(size)/1e6/time.Since(start).Seconds())
	}
}

func Test500ConnectionsAtOnce(t *testing.T) {
	up(t, "api")
	if got := probe(t, 2*time.Minute, "many", "ledger:7000", "500"); got != "500" {
		t.Errorf("%s of 500 connections had their answer", got)
	}
}

// TestUnconnectedUDP asks two peers from one socket.
func TestUnconnectedUDP(t *testing.T) {
	up(t, "api")
	ledger, ip := podOf(t, "ledger").Status.PodIP, podOf(t, "api").Status.PodIP
	out := probe(t, time.Minute, "udp", ledger+":7000", ledger+":7003")
	want := regexp.MustCompile(fmt.Sprintf(`^%[1]s:7000 %[1]s:7000 hello 0\n%[1]s:7003 %[1]s:7003 %[2]s:\d+$`, regexp.QuoteMeta(ledger), regexp.QuoteMeta(ip)))
	if !want.MatchString(out) {
		t.Errorf("output %q, want %s", out, want)
	}
}

// TestIPv6 reaches a dual-stack pod over IPv6, and finds no IPv6 in the
// session of a pod that has none.
func TestIPv6(t *testing.T) {
	ledger := podOf(t, "ledger")
	var v6 string
	for _, ip := range ledger.Status.PodIPs {
		if strings.Contains(ip.IP, ":") {
			v6 = ip.IP
		}
	}
	if v6 == "" {
		t.Fatal("ledger has no IPv6 address")
	}
	t.Run("dual_stack", func(t *testing.T) {
		up(t, "api")
		if got := probe(t, time.Minute, "dial", net.JoinHostPort(v6, "7000")); !strings.Contains(got, " ok ") {
			t.Error(got)
		}
	})
	t.Run("v4_only", func(t *testing.T) {
		up(t, "api-v4")
		if got := probe(t, time.Minute, "dial", net.JoinHostPort(v6, "7000"), "ledger:7000"); !strings.Contains(got, "UNREACH") || !strings.Contains(got, "ledger:7000 ok ") {
			t.Error(got)
		}
	})
}

func TestPing(t *testing.T) {
	ledger := podOf(t, "ledger").Status.PodIP
	ping := func(patience string) command {
		return command{argv: []string{"borrownet", "run", "--", "python3", "-c", pingProgram, ledger, patience}}
	}
	t.Run("allowed", func(t *testing.T) {
		up(t, "api")
		if r := ping("30").run(t); r.code != 0 || !strings.Contains(r.stdout, "reply") {
			t.Error(r)
		}
	})
	t.Run("denied", func(t *testing.T) {
		up(t, "orders")
		r := ping("5").run(t)
		if r.code == 0 {
			t.Errorf("ping works in a pod without ping sockets: %v", r)
		}
		if status := mustBorrownet(t, "status"); !strings.Contains(status.stdout, "ping_group_range") {
			t.Errorf("status does not say why ping fails:\n%s", status.stdout)
		}
	})
}

// pingProgram sends one echo request from a ping socket (icmp(7)).
const pingProgram = `
import socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
s.settimeout(float(sys.argv[2]))
def checksum(b):
    t = sum(struct.unpack("!%dH" % (len(b) // 2), b))
    t = (t >> 16) + (t & 0xffff)
    return ~(t + (t >> 16)) & 0xffff
body = b"borrownet!"
head = struct.pack("!BBHHH", 8, 0, 0, 0, 1)
s.connect((sys.argv[1], 0))
s.send(struct.pack("!BBHHH", 8, 0, checksum(head + body), 0, 1) + body)
data = s.recv(1500)
assert data[0] == 0 and data[8:] == body, data
print("reply")
`

// TestPodEnvironment finds the pod's variables, and the laptop's own where a
// program would break without them.
func TestPodEnvironment(t *testing.T) {
	up(t, "api")
	r := command{argv: []string{"borrownet", "run", "--", "env"}, env: []string{"HTTP_PROXY=http://192.0.2.9:3128"}}.run(t)
	if r.code != 0 {
		t.Fatal(r)
	}
	for _, want := range []string{"KUBERNETES_SERVICE_HOST=", "HOME=" + os.Getenv("HOME"), "BORROWNET_SESSION=api"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("%s is missing in:\n%s", want, r.stdout)
		}
	}
	if strings.Contains(r.stdout, "192.0.2.9") {
		t.Error("the laptop's HTTP_PROXY reached the program")
	}
}

// TestLaptopIsOutside proves that the tests above prove something: without a
// session nothing of the cluster but its API server can be reached.
func TestLaptopIsOutside(t *testing.T) {
	ip := strings.TrimSpace(kubectl(t, "-n", "shop", "get", "service", "orders", "-o", "jsonpath={.spec.clusterIP}"))
	for _, addr := range []string{
		net.JoinHostPort(podOf(t, "orders").Status.PodIP, "8080"),
		net.JoinHostPort(ip, "80"),
		net.JoinHostPort(podOf(t, "ledger").Status.PodIP, "7000"),
	} {
		conn, err := net.DialTimeout("tcp", addr, 2*time.Second)
		if err == nil {
			conn.Close()
			t.Errorf("the laptop reaches %s by itself", addr)
		}
	}
}

// TestLaptopServicesStayLocal calls a server on the laptop's loopback, and one
// that a program of the session itself runs there.
func TestLaptopServicesStayLocal(t *testing.T) {
	up(t, "api")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, "laptop")
			c.Close()
		}
	}()
	port := ln.Addr().(*net.TCPAddr).Port
	script := filepath.Join(t.TempDir(), "local.py")
	err = os.WriteFile(script, []byte(localProgram), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	r := command{argv: []string{"borrownet", "run", "--", "python3", script, fmt.Sprint(port)}}.run(t)
	if r.code != 0 || strings.TrimSpace(r.stdout) != "laptop session" {
		t.Error(r)
	}
}

const localProgram = `
import socket, sys, threading
a = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 60).recv(100).decode()
s = socket.create_server(("127.0.0.1", 0))
def serve():
    c, _ = s.accept(); c.sendall(b"session"); c.close()
threading.Thread(target=serve, daemon=True).start()
b = socket.create_connection(s.getsockname(), 60).recv(100).decode()
print(a, b)
`
