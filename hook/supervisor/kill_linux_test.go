package supervisor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/hook/farend"
	"github.com/borrownet/borrownet/hook/hooktest"
	"github.com/borrownet/borrownet/hook/netns"
)

// laptopEnv tells a test that it runs in a namespace that stands for the laptop.
const laptopEnv = "BORROWNET_TEST_LAPTOP"

// onLaptop runs the test again in a network namespace of its own, whose default
// route is a device that nobody answers on, and reports whether this is that run.
// Packets that leave the laptop are counted there.
func onLaptop(t *testing.T) bool {
	t.Helper()
	if os.Getenv(laptopEnv) != "" {
		return true
	}
	// Its subtests wait more than they work.
	cmd := exec.CommandContext(t.Context(), hooktest.Self, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=8m", "-test.parallel=8")
	if testing.Short() {
		cmd.Args = append(cmd.Args, "-test.short")
	}
	cmd.Env = append(os.Environ(), laptopEnv+"=1", "HOME=/tmp", "BORROWNET_HOOKTEST_PHASE=laptop")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		hooktest.Unavailable(t, "netns", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "--- SKIP") {
		t.Skip(string(out))
	}
	return false
}

// wire is the laptop's own network.
const wire = "wire0"

// connectLaptop gives this namespace its network.
func connectLaptop(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		hooktest.Unavailable(t, "ip", err)
	}
	for _, line := range []string{
		"link set lo up", "link add " + wire + " type veth peer name far0", "link set " + wire + " arp off up", "link set far0 arp off up",
		"addr add 203.0.113.2/24 dev " + wire, "route add default dev " + wire,
		"-6 addr add 2001:db8:ffff::2/64 dev " + wire + " nodad", "-6 route add default dev " + wire,
	} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			hooktest.Unavailable(t, "netns", fmt.Sprintf("ip %s: %v: %s", line, err, out))
		}
	}
}

// leftLaptop counts what TCP, UDP and ICMP have sent in this namespace: nobody but
// programs speaks these here.
func leftLaptop(t *testing.T) int {
	t.Helper()
	n := 0
	for _, c := range []struct{ file, group, name string }{
		{"/proc/net/snmp", "Tcp:", "OutSegs"}, // of IPv6 too
		{"/proc/net/snmp", "Udp:", "OutDatagrams"},
		{"/proc/net/snmp", "Icmp:", "OutMsgs"},
		{"/proc/net/snmp6", "", "Udp6OutDatagrams"},
	} {
		b, err := os.ReadFile(c.file)
		if err != nil {
			t.Fatal(err)
		}
		n += counter(string(b), c.group, c.name)
	}
	return n
}

// counter reads a value of snmp, whose lines are pairs of names and values, or of
// snmp6, whose lines are a name and a value.
func counter(text, group, name string) int {
	var names []string
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case group == "" && len(f) == 2 && f[0] == name:
			n, _ := strconv.Atoi(f[1])
			return n
		case group == "" || len(f) == 0 || f[0] != group:
		case names == nil:
			names = f
		default:
			for i := range f {
				if names[i] == name {
					n, _ := strconv.Atoi(f[i])
					return n
				}
			}
		}
	}
	return 0
}

// keeperMain is a daemon that can be killed: it makes a session's namespace and
// reads what leaves it. The argument is the path of the helper's socket.
func keeperMain(args []string) int {
	h, err := netns.Start(context.Background(), netns.Config{
		Exe: []string{hooktest.Self, "__netns"}, Socket: args[0], Addrs: []netip.Addr{pod, pod6},
	})
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	fmt.Println("helper", h.Pid())
	bufs, sizes := make([][]byte, h.BatchSize()), make([]int, h.BatchSize())
	for i := range bufs {
		bufs[i] = make([]byte, 65536)
	}
	for {
		if _, err := h.Read(bufs, sizes, 0); err != nil {
			return 1
		}
	}
}

var pod6 = netip.MustParseAddr("2001:db8::7")

// operations are what a program may be at when something dies, each with the names
// of what it may hear then. A program that hears nothing goes on.
var operations = []struct{ name, hears string }{
	{"socket", "ENETDOWN ENOSYS"},
	{"connect", "ECONNABORTED ENETUNREACH"}, // under way, or begun just then
	{"read", "ECONNABORTED ECONNRESET"},
	{"accept", "EINVAL ECONNABORTED"},
	{"receive", "ECONNABORTED"},
	{"listen", "ENETDOWN ENOSYS"},
	{"send", "ECONNABORTED ECONNRESET EPIPE"},
	{"datagrams", "ECONNABORTED EBADF ENETUNREACH ENETDOWN ENOSYS EPIPE"},
	{"resolve", "no name"},
}

// TestKilled kills each process of a session while a program is at each operation:
// the program hears of it or goes on, it never stands still, and no packet of it
// leaves by the laptop's own network, then or later.
func TestKilled(t *testing.T) {
	if err := Probe(); err != nil {
		hooktest.Unavailable(t, "seccomp", err)
	}
	if !onLaptop(t) {
		return
	}
	connectLaptop(t)
	before := leftLaptop(t)
	t.Run("kill", func(t *testing.T) { // ends when all inside have
		for _, who := range []string{"helper", "daemon", "run"} {
			for _, op := range operations {
				t.Run(who+"/"+op.name, func(t *testing.T) {
					t.Parallel()
					kill(t, who, op.name, op.hears)
				})
			}
		}
	})
	if n := leftLaptop(t) - before; n != 0 {
		t.Errorf("%d packets left by the laptop's own network", n)
	} else {
		t.Log("no packet left by the laptop's own network")
	}
	// The control: the same program without borrownet is counted.
	exec.Command(hooktest.Self, "__app", "escape").Run()
	if n := leftLaptop(t) - before; n < 4 {
		t.Errorf("%d packets of a program without borrownet are counted, want 4: the test proves nothing", n)
	}
}

// kill kills one of the processes under a program and looks what becomes of that.
func kill(t *testing.T, who, op, hears string) {
	dir, err := os.MkdirTemp("", "bn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	keeper := exec.Command(hooktest.Self, "__keeper", path)
	out, err := keeper.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := keeper.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keeper.Process.Kill(); keeper.Wait() })
	var helper int
	if _, err := fmt.Fscanf(out, "helper %d\n", &helper); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(hooktest.Self, append([]string{"__run", path}, app("victim", op, strconv.FormatUint(namespaceCookie(), 10))...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	said, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	group := -cmd.Process.Pid
	// A connect() that nobody could abort, because its helper was killed, may have to wait for its kernel: 127 s.
	limit := time.AfterFunc(3*time.Minute, func() { unix.Kill(group, unix.SIGKILL) })
	t.Cleanup(func() { limit.Stop(); unix.Kill(group, unix.SIGKILL); cmd.Wait() })
	lines := make(chan string, 16)
	go func() { // ends with the program
		defer close(lines)
		for s := bufio.NewScanner(said); s.Scan(); {
			lines <- s.Text()
		}
	}()
	if got := <-lines; got != "ready" {
		t.Fatalf("the program said %q", got)
	}
	switch who {
	case "helper":
		unix.Kill(helper, unix.SIGKILL)
	case "daemon":
		keeper.Process.Kill()
	case "run":
		cmd.Process.Kill()
	}
	outcome := ""
	select {
	case outcome = <-lines:
	case <-time.After(time.Second):
		if who == "daemon" {
			outcome = <-lines // busy machine, or a program that stands still: see limit
			break
		}
		// It goes on, as without a death in the family. The end of the session it hears.
		keeper.Process.Kill()
		outcome = <-lines
	}
	errno, ok := strings.CutPrefix(outcome, "outcome ")
	// A helper that is killed cannot tell the kernel to abort anything.
	if !ok || who != "helper" && !strings.Contains(" "+hears+" ", " "+errno+" ") {
		t.Errorf("the program heard %q, want one of %s", outcome, hears)
	}
	if after := <-lines; after != "after none" {
		t.Errorf("later: %s", after)
	}
}

// appVictim is at one operation when something dies, says what it heard, then
// tries everything by which bytes could leave.
func appVictim(args []string) error {
	err := victim(args[0])
	fmt.Println("outcome", errnoName(err))
	leaks := "none"
	for range 3 {
		if fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0); err == nil {
			if cookieOf(fd) == args[1] {
				leaks = "a socket of the laptop"
			}
			unix.Close(fd)
		}
	}
	appEscape(nil)
	fmt.Println("after", leaks)
	return nil
}

// appEscape sends what it can to somebody far away.
func appEscape([]string) error {
	for _, far := range []netip.AddrPort{netip.AddrPortFrom(far, 9), netip.MustParseAddrPort("[2001:db8:9::9]:9")} {
		domain := unix.AF_INET
		if far.Addr().Is6() {
			domain = unix.AF_INET6
		}
		if fd, err := unix.Socket(domain, unix.SOCK_DGRAM, 0); err == nil {
			_ = unix.Sendto(fd, []byte("x"), 0, farend.Sockaddr(domain, far))
			unix.Close(fd)
		}
		if fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0); err == nil {
			_ = unix.Connect(fd, farend.Sockaddr(domain, far))
			unix.Close(fd)
		}
	}
	return nil
}

func victim(op string) error {
	udp, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	ln, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	tcp, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	here := &unix.SockaddrInet4{Addr: pod.As4(), Port: 4000}
	if err := errors.Join(unix.Bind(ln, here), unix.Listen(ln, 5), unix.Bind(udp, here)); err != nil {
		return err
	}
	switch op {
	case "socket":
		fmt.Println("ready")
		return repeat(func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			if err == nil {
				unix.Close(fd)
			}
			return err
		})
	case "listen":
		fmt.Println("ready")
		return repeat(func() error {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err == nil {
				l.Close()
			}
			return err
		})
	case "connect":
		fmt.Println("ready")
		return unix.Connect(tcp, &unix.SockaddrInet4{Addr: far.As4(), Port: 80})
	case "datagrams":
		fmt.Println("ready")
		return repeat(func() error {
			return unix.Sendto(udp, []byte("x"), 0, farend.Sockaddr(unix.AF_INET, netip.AddrPortFrom(far, 9)))
		})
	case "resolve":
		return resolve()
	case "accept":
		fmt.Println("ready")
		_, _, err := unix.Accept(ln)
		return err
	case "receive":
		fmt.Println("ready")
		_, _, err := unix.Recvfrom(udp, make([]byte, 10), 0)
		return err
	}
	if err := unix.Connect(tcp, here); err != nil {
		return err
	}
	fmt.Println("ready")
	if op == "send" { // to somebody who never reads
		return repeat(func() error {
			_, err := unix.Write(tcp, make([]byte, 1<<16))
			return err
		})
	}
	_, err = unix.Read(tcp, make([]byte, 10))
	return err
}

// errNoName is what the C library's resolver has to say when nobody answers it.
var errNoName = errors.New("no name")

// resolve has the C library look for a name, whose server does not answer.
func resolve() error {
	cmd := exec.Command("getent", "ahosts", "name.example.org")
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	fds := fmt.Sprintf("/proc/%d/fd/*", cmd.Process.Pid)
	for asks := false; !asks; { // it has a socket
		names, _ := filepath.Glob(fds)
		for _, name := range names {
			to, _ := os.Readlink(name)
			asks = asks || strings.HasPrefix(to, "socket:")
		}
		select {
		case err := <-ended:
			return fmt.Errorf("before the kill: %w", err)
		case <-time.After(time.Millisecond):
		}
	}
	fmt.Println("ready")
	if _, is := errors.AsType[*exec.ExitError](<-ended); is {
		return errNoName
	}
	return nil
}

// repeat does f until it fails.
func repeat(f func() error) error {
	for limit := time.Now().Add(40 * time.Second); time.Now().Before(limit); {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}
