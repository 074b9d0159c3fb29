//go:build lab

package integration

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// hostileImage is integration/hostile as an image on the lab's node.
const hostileImage = "lab.local/hostile-agent:1"

// TestHostileAgentReachesNothing gives the session to an agent that attacks:
// SYNs, datagrams and pings from outside, with forged loopback and pod
// addresses as source, towards the session and the laptop.
func TestHostileAgentReachesNothing(t *testing.T) {
	// Unpublished, a program of the session may have the laptop's ports too.
	up(t, "web", "--agent-image", hostileImage, "--publish", "none")
	t.Cleanup(func() { exec.Command("borrownet", "down", "--all", "--stop-agent").Run() })

	// The laptop's own listeners, on the ports that the attacks go to.
	laptop := make(chan string, 16)
	ln, err := net.Listen("tcp", "0.0.0.0:18080")
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
			laptop <- "TCP from " + c.RemoteAddr().String()
			c.Close()
		}
	}()
	pc, err := net.ListenPacket("udp", "0.0.0.0:18081")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	go func() {
		buf := make([]byte, 100)
		for {
			_, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			laptop <- "UDP from " + from.String()
		}
	}()

	// The session's listeners.
	script := filepath.Join(t.TempDir(), "listen.py")
	if err := os.WriteFile(script, []byte(listenProgram), 0o644); err != nil {
		t.Fatal(err)
	}
	r := command{argv: []string{"borrownet", "run", "--", "python3", script}}.run(t)
	if r.code != 0 || r.stdout != "nothing\n" {
		t.Errorf("program in the session: %v", r)
	}
	select {
	case what := <-laptop:
		t.Errorf("the laptop got %s", what)
	default:
	}

	var status []struct {
		Traffic struct {
			Drops map[string]uint64 `json:"drops"`
		} `json:"traffic"`
	}
	text := mustBorrownet(t, "status", "-o", "json").stdout
	if err := json.Unmarshal([]byte(text), &status); err != nil {
		t.Fatalf("status: %v\n%s", err, text)
	}
	var drops uint64
	for _, n := range status[0].Traffic.Drops {
		drops += n
	}
	if drops < 100 {
		t.Errorf("%d packets dropped, want the attacks counted: %s", drops, fmt.Sprint(status[0].Traffic.Drops))
	}
}

// listenProgram waits for any connection or datagram.
const listenProgram = `
import select, socket
t = socket.create_server(("0.0.0.0", 18080))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.bind(("0.0.0.0", 18081))
ready, _, _ = select.select([t, u], [], [], 4)
if not ready:
    print("nothing")
for s in ready:
    print("TCP", s.accept()[1]) if s is t else print("UDP", s.recvfrom(100))
`

// TestStrangerOnTheAgentsPort sends what is no proof to the agent's port, as
// anyone with port-forward may.
func TestStrangerOnTheAgentsPort(t *testing.T) {
	up(t, "api")
	var status []struct {
		Agent struct {
			Container string `json:"container"`
		} `json:"agent"`
	}
	decode(t, mustBorrownet(t, "status", "-o", "json").stdout, &status)
	p := podOf(t, "api")
	var hello struct {
		Port int `json:"port"`
	}
	log := kubectl(t, "-n", "shop", "logs", p.Metadata.Name, "-c", status[0].Agent.Container)
	if err := json.NewDecoder(strings.NewReader(log)).Decode(&hello); err != nil {
		t.Fatalf("hello: %v in %q", err, log)
	}
	for _, first := range []string{"GET / HTTP/1.0\r\n\r\n", "SSH-2.0-x\r\n", ""} {
		if got := throughPortForward(t, p.Metadata.Name, hello.Port, first); len(got) != 0 {
			t.Errorf("a stranger who says %q gets %q", first, got)
		}
	}
	probe(t, time.Minute, "get", "http://orders/")
}

var forwarding = regexp.MustCompile(`Forwarding from (127\.0\.0\.1:\d+)`)

// throughPortForward says first to a port of the pod and returns everything
// that comes back until the end of the connection.
func throughPortForward(t *testing.T, pod string, port int, first string) []byte {
	t.Helper()
	cmd := exec.Command("kubectl", "port-forward", "-n", "shop", "pod/"+pod, fmt.Sprintf(":%d", port))
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	m := forwarding.FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("kubectl port-forward: %q, %v", line, err)
	}
	conn, err := net.Dial("tcp", m[1])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(conn, first)
	got, err := io.ReadAll(conn)
	if nerr, ok := err.(net.Error); ok && nerr.Timeout() {
		t.Errorf("the connection of a stranger who says %q stays open", first)
	}
	return got
}
