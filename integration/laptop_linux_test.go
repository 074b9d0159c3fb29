//go:build !lab

package integration

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// ownNetworkEnv tells a test that it runs in a network namespace that stands for
// the laptop.
const ownNetworkEnv = "BORROWNET_TEST_OWN_NETWORK"

// inOwnNetwork runs the test again in a network namespace of its own, and reports
// whether this is that run.
func inOwnNetwork(t *testing.T) bool {
	t.Helper()
	if os.Getenv(ownNetworkEnv) != "" {
		return true
	}
	// Its subtests wait more than they work.
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=10m", "-test.parallel=8")
	cmd.Env = append(os.Environ(), ownNetworkEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	p := &demoPlace{t: t}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSPC) {
		p.unavailable("netns", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "--- SKIP") {
		t.Skip(string(out))
	}
	return false
}

// cable is the laptop's own network, whose other end notes what arrives.
type cable struct {
	mu   sync.Mutex
	seen []string // guarded by mu; "PROTO DST:PORT PAYLOAD"
}

// plugIn gives this namespace its network: a default route to nobody.
func plugIn(t *testing.T) *cable {
	t.Helper()
	p := &demoPlace{t: t}
	for _, line := range []string{
		"link set lo up", "link add wire0 type veth peer name far0", "link set wire0 arp off up", "link set far0 arp off up",
		"addr add 203.0.113.2/24 dev wire0", "route add default dev wire0",
		"-6 addr add 2001:db8:ffff::2/64 dev wire0 nodad", "-6 route add default dev wire0",
	} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			p.unavailable("ip", fmt.Sprintf("ip %s: %v: %s", line, err, out))
		}
	}
	far, err := net.InterfaceByName("far0")
	if err != nil {
		t.Fatal(err)
	}
	const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, all)
	if err != nil {
		t.Fatal(err)
	}
	tick := unix.Timeval{Usec: 100_000}
	if err := errors.Join(
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: far.Index}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tick),
	); err != nil {
		t.Fatal(err)
	}
	c := &cable{}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		c.listen(fd, done)
	}()
	t.Cleanup(func() {
		close(done)
		<-ended
		if stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err != nil || stats.Drops != 0 {
			t.Errorf("packets were not noted: %+v, %v", stats, err)
		}
		unix.Close(fd)
	})
	return c
}

// listen notes packets until done is closed.
func (c *cable) listen(fd int, done <-chan struct{}) {
	buf := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err == nil {
			c.note(buf[:n])
			continue
		}
		select {
		case <-done:
			return
		default: // a tick, or a signal of Go's runtime
		}
	}
}

// note notes a packet, but for those by which the kernel looks for neighbours and
// groups over IPv6.
func (c *cable) note(b []byte) {
	var proto byte
	var dst netip.Addr
	var rest []byte
	switch {
	case len(b) >= 20 && b[0] == 0x45:
		proto, dst, rest = b[9], netip.AddrFrom4([4]byte(b[16:20])), b[20:]
	case len(b) >= 40 && b[0]>>4 == 6:
		proto, dst, rest = b[6], netip.AddrFrom16([16]byte(b[24:40])), b[40:]
		if proto == unix.IPPROTO_ICMPV6 || proto == 0 {
			return
		}
	}
	what := fmt.Sprintf("proto-%d %s", proto, dst)
	if len(rest) >= 8 && (proto == unix.IPPROTO_TCP || proto == unix.IPPROTO_UDP) {
		name := map[byte]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[proto]
		what = name + " " + netip.AddrPortFrom(dst, binary.BigEndian.Uint16(rest[2:])).String()
		if proto == unix.IPPROTO_UDP {
			what += " " + string(rest[8:])
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = append(c.seen, what)
}

// with returns the packets that hold text.
func (c *cable) with(text string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(c.seen), func(s string) bool { return !strings.Contains(s, text) })
}

// await waits for a packet that holds text, and for those before it.
func (c *cable) await(t *testing.T, text string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); len(c.with(text)) == 0; <-time.After(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no packet with %q arrives", text)
		}
	}
}

// send is what any program of the laptop does: a datagram of a new socket.
func (c *cable) send(t *testing.T, addr, text string) {
	t.Helper()
	s, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

// settings are all by which this machine sends packets and finds names.
func settings(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, args := range []string{"-o addr", "-o link", "route show table all", "-6 route show table all", "rule", "-6 rule", "neigh show nud permanent"} {
		out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
		if err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
		all["ip "+args] = string(out)
	}
	for _, args := range []string{"nft list ruleset", "iptables-save", "ip6tables-save"} {
		words := strings.Fields(args)
		if out, err := exec.Command(words[0], words[1:]...).Output(); err == nil {
			// Comments have the time.
			all[args] = strings.Join(slices.DeleteFunc(strings.Split(string(out), "\n"), func(s string) bool { return strings.HasPrefix(s, "#") }), "\n")
		}
	}
	for _, name := range []string{"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf"} {
		if text, err := os.ReadFile(name); err == nil {
			all[name] = string(text)
		}
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		filepath.WalkDir("/proc/sys/net/"+family, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				if text, err := os.ReadFile(path); err == nil { // some are for writing only
					all[path] = string(text)
				}
			}
			return nil
		})
	}
	return all
}

// TestLaptopIsUntouched counts the packets of the laptop's own network while there
// is a session: those of programs outside of it go where they went, those of programs
// inside are none, also when a part of the session is killed under them.
func TestLaptopIsUntouched(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	c := plugIn(t)
	asSelf(t, func(t *testing.T, p *demoPlace) {
		t.Run("beside", func(t *testing.T) { beside(t, p, c) })
		t.Run("killed", func(t *testing.T) { // ends when all inside have
			for i, tt := range []struct{ rung, who string }{
				{"seccomp", "run"}, {"seccomp", "helper"}, {"seccomp", "daemon"}, {"seccomp", "world"},
				{"netns", "helper"}, {"netns", "daemon"}, {"preload", "helper"}, {"preload", "daemon"},
				{"relay", "run"}, {"relay", "daemon"}, {"preload-relay", "daemon"},
			} {
				t.Run(tt.rung+"/"+tt.who, func(t *testing.T) {
					t.Parallel()
					p := &demoPlace{t: t, bin: p.bin, dir: filepath.Join(p.dir, strconv.Itoa(i)), uid: p.uid}
					killedUnder(t, p, c, tt.rung, tt.who, 8000+i)
				})
			}
		})
		// The control: the same program without borrownet is seen.
		l := leak(t, p.dir, 7999)
		if err := l.start(exec.Command("bash", "-c", leakScript, "bash", l.port)); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"udp 203.0.113.77:7999 leak7999", "udp [2001:db8:9::9]:7999 leak7999", "tcp 203.0.113.77:7999"} {
			c.await(t, want) // else the test proves nothing
		}
		l.end()
	})
}

// beside looks at the laptop before, in and after a session.
func beside(t *testing.T, p *demoPlace, c *cable) {
	k := p.keep()
	p.must("down")
	begun := len(c.with("")) // the demo has shown that a call without borrownet fails
	before := settings(t)
	old, err := net.Dial("udp", "203.0.113.9:9")
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	sibling := func(when string) {
		t.Helper()
		if _, err := old.Write([]byte("old " + when)); err != nil {
			t.Fatal(err)
		}
		c.send(t, "203.0.113.53:53", "sibling asks a name server "+when)
		c.send(t, "203.0.113.9:9", "new "+when)
		c.await(t, "new "+when)
	}
	sibling("before")
	p.must("up", "--pod", "api", "--context", "demo", "-d")
	sibling("during")
	if diff := cmp.Diff(before, settings(t)); diff != "" {
		t.Errorf("a session changes the laptop (-before +during)\n%s", diff)
	}
	if said, code := p.call("http://orders"); code != 0 {
		t.Errorf("the session does not work: exit code %d\n%s", code, said)
	}
	p.call("tcp://203.0.113.77:80")
	p.call("udp://203.0.113.77:80", "wrapped")
	p.call("http://nobody.example.org")
	sibling("still")
	p.must("down")
	sibling("after")
	if diff := cmp.Diff(before, settings(t)); diff != "" {
		t.Errorf("a session that has ended changed the laptop (-before +after)\n%s", diff)
	}
	var want []string
	for _, when := range []string{"before", "during", "still", "after"} {
		want = append(want, "udp 203.0.113.9:9 old "+when, "udp 203.0.113.53:53 sibling asks a name server "+when, "udp 203.0.113.9:9 new "+when)
	}
	if diff := cmp.Diff(want, c.with("")[begun:]); diff != "" {
		t.Errorf("packets on the laptop's network (-want +got)\n%s", diff)
	}
	k.end()
}

// leakScript sends all it can, in turns, as long as there is a file called go. The
// argument is a port by which its packets are known.
const leakScript = `exec 2>/dev/null
	exec 3<>/dev/udp/203.0.113.77/$1 || :
	while [ -e go ]; do
		echo leak$1 >&3 || :
		echo leak$1 >/dev/udp/203.0.113.77/$1 || :
		echo leak$1 >/dev/udp/2001:db8:9::9/$1 || :
		timeout 1 bash -c "echo >/dev/tcp/203.0.113.77/$1" || :
		timeout 1 getent ahosts leak$1.example.org >/dev/null || :
		echo turn >>turns
	done
	touch ended`

// leaking is a run of leakScript.
type leaking struct {
	t    *testing.T
	dir  string
	port string
}

func leak(t *testing.T, dir string, port int) *leaking {
	t.Helper()
	l := &leaking{t: t, dir: filepath.Join(dir, "leak"), port: strconv.Itoa(port)}
	if err := os.Mkdir(l.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *leaking) start(cmd *exec.Cmd) error {
	if err := os.WriteFile(filepath.Join(l.dir, "go"), nil, 0o600); err != nil {
		return err
	}
	cmd.Dir = l.dir
	if err := cmd.Start(); err != nil {
		return err
	}
	l.t.Cleanup(func() {
		os.Remove(filepath.Join(l.dir, "go"))
		cmd.Process.Kill()
		cmd.Wait()
	})
	return nil
}

// turn waits for n more turns: the program does not stand still.
func (l *leaking) turn(n int) {
	l.t.Helper()
	l.await(fmt.Sprintf("%d more turns", n), l.turns()+n, l.turns)
}

func (l *leaking) turns() int {
	text, _ := os.ReadFile(filepath.Join(l.dir, "turns"))
	return strings.Count(string(text), "\n")
}

// end has the program end by itself.
func (l *leaking) end() {
	l.t.Helper()
	if err := os.Remove(filepath.Join(l.dir, "go")); err != nil {
		l.t.Fatal(err)
	}
	l.await("the end", 1, func() int {
		if _, err := os.Stat(filepath.Join(l.dir, "ended")); err != nil {
			return 0
		}
		return 1
	})
}

func (l *leaking) await(what string, n int, have func() int) {
	l.t.Helper()
	for end := time.Now().Add(2 * time.Minute); have() < n; <-time.After(20 * time.Millisecond) {
		if time.Now().After(end) {
			l.t.Fatalf("the program stands still: no %s", what)
		}
	}
}

// killedUnder kills who under a program that is in a session by rung, and looks for
// its packets.
func killedUnder(t *testing.T, p *demoPlace, c *cable, rung, who string, port int) {
	if err := os.Mkdir(p.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	k := p.keep("--hook", rung)
	t.Cleanup(p.sweep)
	l := leak(t, p.dir, port)
	run := p.command(context.Background(), "run", "--", "bash", "-c", leakScript, "bash", l.port)
	if err := l.start(run); err != nil {
		t.Fatal(err)
	}
	l.turn(2)
	switch who {
	case "run":
		run.Process.Kill()
	case "world":
		k.cmd.Process.Kill()
	case "daemon":
		p.kill("__daemon")
	case "helper":
		p.kill("__netns")
	}
	l.turn(3)
	l.end()
	c.send(t, "203.0.113.9:9", "after "+l.port) // what was sent before it has arrived
	c.await(t, "after "+l.port)
	if got := append(c.with(":"+l.port), c.with("leak"+l.port)...); len(got) > 0 {
		t.Errorf("%d packets left by the laptop's own network: %q", len(got), got[:min(len(got), 5)])
	}
}

// kill kills the processes of the place that have a verb.
func (p *demoPlace) kill(verb string) {
	p.t.Helper()
	n := 0
	for pid, argv := range p.processes() {
		if len(argv) > 1 && argv[1] == verb && syscall.Kill(pid, syscall.SIGKILL) == nil {
			n++
		}
	}
	if n == 0 {
		p.t.Fatalf("no process %s", verb)
	}
}

// sweep ends all processes of the place, at the end of a test that has killed some.
func (p *demoPlace) sweep() {
	for end := time.Now().Add(time.Minute); ; <-time.After(20 * time.Millisecond) {
		all := p.processes()
		if len(all) == 0 {
			return
		}
		if time.Now().After(end) {
			p.t.Errorf("processes stay: %v", all)
			return
		}
		for pid := range all {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// processes are those of the program in the place, with their arguments.
func (p *demoPlace) processes() map[int][]string {
	all := map[int][]string{}
	for _, link := range p.left() {
		dir, isExe := strings.CutSuffix(link, "/exe")
		pid, err := strconv.Atoi(filepath.Base(dir))
		if !isExe || err != nil {
			continue
		}
		if line, err := os.ReadFile(filepath.Join(dir, "cmdline")); err == nil && len(line) > 0 {
			all[pid] = strings.Split(string(line), "\x00")
		}
	}
	return all
}
