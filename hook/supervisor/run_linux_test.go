package supervisor

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/borrownet/borrownet/hook/hooktest"
	"golang.org/x/sys/unix"
)

func TestSocketsAreTheSessions(t *testing.T) {
	s := newSession(t)
	out, errs, code := s.run(t, app("cookies")...)
	if code != 0 {
		t.Fatalf("exit code %d: %s%s", code, out, errs)
	}
	got := make(map[string][]string)
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		got[f[0]] = f[1:]
	}
	for _, kind := range []string{"tcp", "tcp6", "udp", "udp6", "raw", "ping", "route"} {
		if g := got[kind]; g[0] != s.cookie || g[1] != "1" {
			t.Errorf("%s: cookie %s, close-on-exec %s, want cookie %s, 1", kind, g[0], g[1], s.cookie)
		}
	}
	for _, kind := range []string{"unix", "uevent"} {
		if got[kind][0] == s.cookie {
			t.Errorf("%s socket was made in the session", kind)
		}
	}
	if g := got["nonblock"]; g[0] != "true" || g[1] != "0" {
		t.Errorf("SOCK_NONBLOCK alone: nonblocking %s, close-on-exec %s, want true, 0", g[0], g[1])
	}
}

func TestRuntimes(t *testing.T) {
	s := newSession(t)
	const node = `const s=require('dgram').createSocket('udp4');s.send('node',4000,'192.0.2.9',()=>s.close())`
	const python = `import socket;socket.socket(socket.AF_INET,socket.SOCK_DGRAM).sendto(b'python',('192.0.2.9',4000))`
	const java = `class Main{public static void main(String[] a)throws Exception{try(var s=new java.net.DatagramSocket()){` +
		`s.send(new java.net.DatagramPacket("java".getBytes(),4,java.net.InetAddress.getByName("192.0.2.9"),4000));}}}`
	javaFile := filepath.Join(t.TempDir(), "Main.java")
	if err := os.WriteFile(javaFile, []byte(java), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		need string
		argv []string
	}{
		{"go", "", app("send", "go")},
		{"bash", "bash", []string{"bash", "-c", "echo bash | cat > /dev/udp/192.0.2.9/4000"}},
		{"python", "python3", []string{"/usr/bin/env", "python3", "-c", python}},
		{"node", "node", []string{"node", "-e", node}},
		{"java", "java", []string{"java", "-XX:TieredStopAtLevel=1", javaFile}},
		{"vfork-chain", "sh", []string{"sh", "-c", "exec env nice sh -c 'exec \"$0\" \"$@\"' " + strings.Join(app("send", "vfork-chain"), " ")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.need != "" {
				if _, err := exec.LookPath(tt.need); err != nil {
					hooktest.Unavailable(t, tt.need, err)
				}
				if out, err := exec.Command(tt.argv[0], "--version").CombinedOutput(); err != nil && tt.need != "sh" {
					hooktest.Unavailable(t, tt.need, string(out)+err.Error())
				}
			}
			out, errs, code := s.run(t, tt.argv...)
			if code != 0 {
				t.Fatalf("exit code %d: %s%s", code, out, errs)
			}
			s.sent(t, tt.name)
		})
	}
}

func TestExitCodes(t *testing.T) {
	s := newSession(t)
	dir := t.TempDir()
	write := func(name, body string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(body), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tt := range []struct {
		name string
		argv []string
		code int
		text string // of stderr
	}{
		{"zero", []string{"true"}, 0, ""},
		{"own", []string{"sh", "-c", "exit 7"}, 7, ""},
		{"125-of-the-command", []string{"sh", "-c", "exit 125"}, 125, ""},
		{"term", []string{"sh", "-c", "kill -TERM $$"}, 143, ""},
		{"kill", []string{"sh", "-c", "kill -KILL $$"}, 137, ""},
		{"not-found", []string{"no-such-command"}, 127, "error: execute no-such-command: no such file or directory in PATH"},
		{"no-such-file", []string{"/no/such/file"}, 127, "error: execute /no/such/file: no such file or directory"},
		{"directory", []string{dir}, 126, "is a directory"},
		{"not-a-program", []string{write("text", "echo x\n", 0o644)}, 126, "permission denied"},
		{"script-without-interpreter", []string{write("plain", "exit 9\n", 0o755)}, 9, ""},
		{"script", []string{write("script", "#!/bin/sh\nexit 8\n", 0o755)}, 8, ""},
		{"bad-interpreter", []string{write("bad", "#!/no/such/sh\n", 0o755)}, 127, "no such file or directory"},
		{"empty", []string{""}, 127, "no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, errs, code := s.run(t, tt.argv...)
			if code != tt.code || !strings.Contains(errs, tt.text) || tt.text == "" && errs != "" {
				t.Errorf("code %d, stderr %q, want %d, %q", code, errs, tt.code, tt.text)
			}
		})
	}
}

func TestErrno(t *testing.T) {
	s := newSession(t)
	out, _, _ := s.run(t, app("errno")...)
	if want := "protocol: EPROTONOSUPPORT\nio_uring: EPERM\ntcp:"; !strings.HasPrefix(out, want) {
		t.Errorf("got %q, want %q", out, want)
	}
	if out, errs, _ := s.run(t, app("emfile")...); out != "EMFILE true" {
		t.Errorf("at the limit of descriptors: %q %q, want EMFILE", out, errs)
	}
}

// TestIOURingIsAllowed on request: the kernel looks at the call then.
func TestIOURingIsAllowed(t *testing.T) {
	s := newSession(t)
	cmd := s.command(app("errno")...)
	cmd.Env = append(os.Environ(), "BORROWNET_TEST_IO_URING=1")
	out, errs, _ := finish(t, cmd)
	if !strings.Contains(out, "io_uring: EFAULT") && !strings.Contains(out, "io_uring: ENOSYS") {
		t.Errorf("got %q %q, want what the kernel says of a null pointer", out, errs)
	}
}

// TestInterfacesAreThePods: getifaddrs, ip and hostname show what the pod has.
func TestInterfacesAreThePods(t *testing.T) {
	s := newSession(t)
	out, errs, code := s.run(t, app("interfaces")...)
	if want := "eth0 " + pod.String() + "\nfrom " + pod.String(); out != want || code != 0 {
		t.Errorf("exit code %d, got %q %s, want %q", code, out, errs, want)
	}
	for _, tt := range []struct {
		name string
		argv []string
		want string
	}{
		{"ip", []string{"ip", "-o", "-4", "addr", "show", "scope", "global"}, "eth0    inet " + pod.String() + "/32"},
		{"hostname", []string{"hostname", "-I"}, pod.String()},
		{"python3", []string{"/usr/bin/python3", "-c", "import socket; print([n for _, n in socket.if_nameindex()])"}, "'eth0'"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := exec.LookPath(tt.argv[0]); err != nil {
				hooktest.Unavailable(t, tt.name, err)
			}
			out, errs, code := s.run(t, tt.argv...)
			if !strings.Contains(out, tt.want) || strings.Count(out, "\n") > 0 || code != 0 {
				t.Errorf("exit code %d, got %q %s, want %q alone", code, out, errs, tt.want)
			}
		})
	}
}

// TestHelperGone checks that a lost session never means a socket of the laptop.
func TestHelperGone(t *testing.T) {
	s := newSession(t)
	cmd := s.command("sh", "-c", "read x; exec "+strings.Join(app("errno"), " "))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	unix.Kill(s.helper.Pid(), unix.SIGKILL)
	<-s.helper.Done()
	fmt.Fprintln(stdin, "go")
	out, err := io.ReadAll(stdout)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	// Run may not have connected yet when the helper went: then it says so itself.
	if cmd.ProcessState.ExitCode() != codeOurs && !strings.Contains(string(out), "tcp: ENETDOWN") {
		t.Errorf("got %q, want ENETDOWN", out)
	}
}

func TestSandboxKeepsItsOwnSockets(t *testing.T) {
	s := newSession(t)
	out, errs, code := s.run(t, app("sandbox")...)
	if strings.Contains(out, "error: fork") {
		hooktest.Unavailable(t, "netns", out)
	}
	if !strings.HasPrefix(out, "tcp ") {
		t.Fatalf("exit code %d: %s%s", code, out, errs)
	}
	if strings.Contains(out, " "+s.cookie+" ") {
		t.Errorf("a program in another namespace got a socket of the session:\n%s", out)
	}
}

func TestNestedRun(t *testing.T) {
	s := newSession(t)
	_, errs, code := s.run(t, hooktest.Self, "__run", s.path, "true")
	if code != codeOurs || !strings.Contains(errs, "already supervises") || !strings.Contains(errs, "unsupported") {
		t.Errorf("code %d, stderr %q", code, errs)
	}
	out, _, _ := s.run(t, app("mayprobe")...)
	if !strings.Contains(out, "already supervises") {
		t.Errorf("Probe inside: %q", out)
	}
}

func TestDaemonisedGrandchild(t *testing.T) {
	s := newSession(t)
	late := strings.Join(app("send", "late", "300ms"), " ")
	begin := time.Now()
	// The pipe of the output must not be what run waits for.
	_, errs, code := s.run(t, "sh", "-c", "(setsid "+late+" >/dev/null 2>&1 </dev/null &) ; exit 3")
	if code != 3 {
		t.Errorf("exit code %d, want 3: %s", code, errs)
	}
	if d := time.Since(begin); d < 300*time.Millisecond {
		t.Errorf("run ended after %v, before what it supervises", d)
	}
	s.sent(t, "late")
}

func TestInheritedDescriptors(t *testing.T) {
	s := newSession(t)
	for _, number := range []int{3, 9} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		fmt.Fprintf(w, "inherited %d", number)
		w.Close()
		cmd := s.command(app("fd", strconv.Itoa(number))...)
		cmd.ExtraFiles = make([]*os.File, number-2)
		cmd.ExtraFiles[number-3] = r
		out, errs, _ := finish(t, cmd)
		if want := fmt.Sprintf("inherited %d", number); out != want {
			t.Errorf("got %q %q, want %q", out, errs, want)
		}
	}
}

// TestNothingIsLeft runs several commands in one process: no descriptor and no
// goroutine stays, whatever became of the command.
func TestNothingIsLeft(t *testing.T) {
	s := newSession(t)
	bad := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(bad, []byte("#!/no/such/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	out, errs, code := finish(t, exec.Command(hooktest.Self, "__twice", s.path, bad))
	lines := strings.Split(out, "\n")
	if code != 0 || len(lines) != 5 {
		t.Fatalf("exit code %d: %s%s", code, out, errs)
	}
	last := func(line string) string { // descriptors and goroutines
		f := strings.Fields(line)
		return strings.Join(f[len(f)-2:], " ")
	}
	for i, want := range []string{"0 <nil> ", "0 <nil> ", "127 execute /no/such/file", "127 execute " + bad, "143 <nil> "} {
		// The first run may still show goroutines of the process's start.
		if !strings.HasPrefix(lines[i], want) || i > 0 && last(lines[i]) != last(lines[1]) {
			t.Errorf("run %d: got %q, want %q and %q", i, lines[i], want, last(lines[1]))
		}
	}
}

// TestBrokenStderr: what run itself says goes to a pipe whose reader is gone. The
// command must still get its sockets, and have SIGPIPE as it was.
func TestBrokenStderr(t *testing.T) {
	s := newSession(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	// The debug log says something at each socket that is left alone.
	argv := []string{"sh", "-c", `exec 2>/dev/null; "$@"; trap - PIPE; sh -c 'kill -PIPE $$'; echo $?`, "sh"}
	cmd := s.command(append(argv, app("errno")...)...)
	cmd.Env = append(os.Environ(), "BORROWNET_TEST_DEBUG=1")
	cmd.Stderr = w
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil || !strings.Contains(out.String(), "tcp:") || !strings.HasSuffix(out.String(), "\n141\n") {
		t.Errorf("%v: %q", err, out.String())
	}
}

// TestSignals sends signals to run alone.
func TestSignals(t *testing.T) {
	s := newSession(t)
	for _, tt := range []struct {
		name string
		sig  syscall.Signal
	}{{"TERM", unix.SIGTERM}, {"HUP", unix.SIGHUP}, {"INT", unix.SIGINT}, {"USR1", unix.SIGUSR1}} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := s.command("sh", "-c", "trap 'echo got; exit 9' "+tt.name+"; echo ready; while :; do sleep 0.02; done")
			// Out of the way of the terminal this test may run on.
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			// The session's group: killing run alone would leave the command.
			group := -cmd.Process.Pid
			timer := time.AfterFunc(patience, func() { unix.Kill(group, unix.SIGKILL) })
			defer timer.Stop()
			r := bufio.NewReader(stdout)
			if line, err := r.ReadString('\n'); line != "ready\n" {
				t.Fatalf("read %q, %v", line, err)
			}
			cmd.Process.Signal(tt.sig)
			rest, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			cmd.Wait()
			if string(rest) != "got\n" || cmd.ProcessState.ExitCode() != 9 {
				t.Errorf("output %q, exit code %d, want one signal and 9", rest, cmd.ProcessState.ExitCode())
			}
		})
	}
}

// TestSocketStorm makes sockets on 8 threads while alarms interrupt the program and
// run is signalled at 5 kHz and stopped and continued at 1 kHz: no socket is wrong,
// none is left over, nothing hangs. BORROWNET_SOAK makes it 12000 sockets a thread.
func TestSocketStorm(t *testing.T) {
	calls := "1500"
	if os.Getenv("BORROWNET_SOAK") != "" {
		calls = "12000"
	}
	s := newSession(t)
	cmd := s.command(app("storm", "8", calls)...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	r := bufio.NewReader(stdout)
	if line, err := r.ReadString('\n'); line != "ready\n" {
		t.Fatalf("read %q, %v", line, err)
	}
	child := onlyChild(t, cmd.Process.Pid)
	result := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(r)
		result <- strings.TrimSpace(string(b))
	}()
	tick := time.NewTicker(200 * time.Microsecond)
	defer tick.Stop()
	limit := time.After(4 * time.Minute)
	for n := 0; ; n++ {
		select {
		case got := <-result:
			t.Logf("%d signals, %d stops: %s", n, n/10, got)
			if !strings.HasPrefix(got, "wrong 0 leaked 0 next true alarms ") {
				t.Errorf("got %q, want no socket wrong or left over", got)
			}
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
			return
		case <-limit:
			t.Fatal("hangs")
		case <-tick.C:
			unix.Kill(cmd.Process.Pid, unix.SIGURG)
			unix.Kill(child, unix.SIGURG)
			switch n % 10 {
			case 0:
				unix.Kill(cmd.Process.Pid, unix.SIGSTOP)
			case 5:
				unix.Kill(cmd.Process.Pid, unix.SIGCONT)
			}
		}
	}
}

// onlyChild returns the pid of the one child of pid.
func onlyChild(t *testing.T, pid int) int {
	t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			return n
		}
	}
	t.Fatalf("process %d has no child", pid)
	return 0
}

// TestNameServices runs in a mount namespace whose /run has name services.
func TestNameServices(t *testing.T) {
	s := newSession(t)
	cmd := exec.Command(hooktest.Self, "__app", "services", s.path)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, errs, code := finish(t, cmd)
	want := strings.Join([]string{
		"/run/nscd/socket ENOENT",
		"/var/run/nscd/socket ENOENT",
		"/run/systemd/resolve/io.systemd.Resolve ENOENT",
		"first /run/other",
		"/run/other connected",
		"/run/nscd/other connected",
		"/run/dbus/system_bus_socket connected",
		"/run/dbus/system_bus_socket ENOENT", // for resolvectl
		"/run/other connected",
	}, "\n")
	if out != want || code != 0 {
		t.Errorf("exit code %d, got:\n%s\n%s\nwant:\n%s", code, out, errs, want)
	}
}

// appServices listens where name services do and connects to them supervised.
func appServices(args []string) error {
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	paths := []string{
		"/run/nscd/socket", "/var/run/nscd/socket", "/run/systemd/resolve/io.systemd.Resolve",
		"/run/other", "/run/nscd/other", "/run/dbus/system_bus_socket",
	}
	for _, p := range paths {
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		ln, err := net.Listen("unix", p)
		if errors.Is(err, unix.EADDRINUSE) {
			continue // /var/run is /run
		}
		if err != nil {
			return err
		}
		defer ln.Close()
	}
	cmd := exec.Command(hooktest.Self, append([]string{"__run", args[0]}, app("connect", paths...)...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), connectingVar+"=/run/other")
	if err := cmd.Run(); err != nil {
		return err
	}
	const resolvectl = "/run/resolvectl"
	program, err := os.ReadFile(hooktest.Self)
	if err != nil {
		return err
	}
	if err := os.WriteFile(resolvectl, program, 0o755); err != nil {
		return err
	}
	cmd = exec.Command(hooktest.Self, "__run", args[0], resolvectl, "__app", "connect", "/run/dbus/system_bus_socket", "/run/other")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// BenchmarkTrappedSocket gives socket-ns and socket-p99-ns for a trapped
// socket(2), untrapped-ns for another system call under the filter and
// native-untrapped-ns for the same without it.
func BenchmarkTrappedSocket(b *testing.B) {
	s := newSession(b)
	argv := app("time", strconv.Itoa(max(b.N, 100)))
	read := func(out, errs string, code int) (p50, p99, other float64) {
		if _, err := fmt.Sscan(out, &p50, &p99, &other); err != nil || code != 0 {
			b.Fatalf("exit code %d: %s%s", code, out, errs)
		}
		return
	}
	p50, p99, other := read(s.run(b, argv...))
	_, _, native := read(finish(b, exec.Command(argv[0], argv[1:]...)))
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(p50, "socket-ns")
	b.ReportMetric(p99, "socket-p99-ns")
	b.ReportMetric(other, "untrapped-ns")
	b.ReportMetric(native, "native-untrapped-ns")
}

// BenchmarkRunTrue is the cost of a whole run.
func BenchmarkRunTrue(b *testing.B) {
	s := newSession(b)
	for b.Loop() {
		if _, errs, code := s.run(b, "true"); code != 0 {
			b.Fatal(errs)
		}
	}
}
