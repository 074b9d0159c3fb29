//go:build !lab

package integration

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The tests of this file run the command line against the demo's world. They
// need no cluster and no privilege, and skip only where no hook works at all.

// demoUser is who they run as besides root.
const demoUser = 1001

// exitHook is the exit code of commands that this machine lets no hook work for.
const exitHook = 21

// demoPlace is a user with a program and a runtime directory of their own.
type demoPlace struct {
	t    *testing.T
	bin  string
	dir  string // of the user
	uid  int
	wd   string   // working directory, "" for /
	wrap []string // what every command is started by, if anything
	// confined forbids user namespaces, as container engines do.
	confined bool
}

// asUsers runs f as this user and, if that is root, as an ordinary one too, and
// where user namespaces are forbidden.
func asUsers(t *testing.T, f func(t *testing.T, p *demoPlace)) {
	users := map[string]int{"self": os.Getuid(), "confined": os.Getuid()}
	if os.Getuid() == 0 {
		users = map[string]int{"root": 0, "user": demoUser, "confined": demoUser}
	}
	as(t, users, f)
}

// as runs f as each of users, by the names of its subtests.
func as(t *testing.T, users map[string]int, f func(t *testing.T, p *demoPlace)) {
	base, err := os.MkdirTemp("", "bn") // paths of sockets are bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(base, "borrownet")
	program, err := demoProgram()
	if err == nil {
		err = os.WriteFile(bin, program, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, uid := range users {
		t.Run(name, func(t *testing.T) {
			p := &demoPlace{t: t, bin: bin, dir: filepath.Join(base, name), uid: uid, confined: name == "confined"}
			if err := p.enter(); err != nil {
				p.unavailable(name, err)
			}
			defer forgetMemory(p.dir)
			f(t, p)
		})
	}
}

// forgetMemory removes what borrownet has in memory beside a runtime directory that is
// about to go for ever: the keys of agents that were left parked.
func forgetMemory(base string) {
	sum := sha256.Sum256([]byte(filepath.Join(base, "borrownet")))
	os.RemoveAll("/dev/shm/borrownet-" + hex.EncodeToString(sum[:8]))
}

// enter makes the user's directory and tries a command there: root of a container
// may not become another user, and namespaces may be forbidden.
func (p *demoPlace) enter() error {
	if err := os.Mkdir(p.dir, 0o700); err != nil {
		p.t.Fatal(err)
	}
	if p.uid != os.Getuid() {
		if err := os.Chown(p.dir, p.uid, -1); err != nil {
			return err
		}
	}
	return p.command(p.t.Context(), "version").Run()
}

// demoProgram is the program, built once.
var demoProgram = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "bn")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "borrownet")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", bin, "./cmd/borrownet")
	build.Dir = root
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return os.ReadFile(bin)
})

// command is a command of the user, with nothing in its environment that it
// could lean on.
func (p *demoPlace) command(ctx context.Context, args ...string) *exec.Cmd {
	argv := append(append(slices.Clone(p.wrap), p.bin), args...)
	if p.confined {
		argv = append([]string{"/bin/sh", "-c", `echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"`, "sh"}, argv...)
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = "/"
	if p.wd != "" {
		cmd.Dir = p.wd
	}
	cmd.Env = []string{"HOME=/nonexistent", "PATH=" + os.Getenv("PATH"), "TMPDIR=" + p.dir, "XDG_RUNTIME_DIR=" + p.dir}
	cmd.WaitDelay = 30 * time.Second
	attr := &syscall.SysProcAttr{}
	if p.uid != os.Getuid() {
		attr.Credential = &syscall.Credential{Uid: uint32(p.uid), Gid: uint32(p.gid())}
	}
	if p.confined {
		// The sysctl is the namespace's own; it is uid 0 that may write it there.
		attr.Cloneflags = syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: p.uid, Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: p.gid(), Size: 1}}
		attr.Credential = &syscall.Credential{NoSetGroups: true}
	}
	cmd.SysProcAttr = attr
	return cmd
}

func (p *demoPlace) gid() int {
	if p.uid != os.Getuid() {
		return p.uid
	}
	return os.Getgid()
}

// run runs a command and returns what it said and its exit code.
func (p *demoPlace) run(args ...string) (string, int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	out, err := p.command(ctx, args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		p.t.Fatalf("borrownet %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	code := 0
	if exit != nil {
		code = exit.ExitCode()
	}
	return string(out), code
}

// must runs a command that has to succeed.
func (p *demoPlace) must(args ...string) string {
	p.t.Helper()
	out, code := p.run(args...)
	if code != 0 {
		p.t.Fatalf("borrownet %s: exit code %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// call runs the demo's caller in the session.
func (p *demoPlace) call(args ...string) (string, int) {
	p.t.Helper()
	return p.run(append([]string{"run", "--", p.bin, "demo", "call"}, args...)...)
}

// noHook skips the test because no hook works here.
func (p *demoPlace) noHook(said string) {
	p.t.Helper()
	p.unavailable("hook", said)
}

// unavailable skips the test because this machine lacks what it needs, or fails if
// that must not be.
func (p *demoPlace) unavailable(need string, reason any) {
	p.t.Helper()
	for required := range strings.SplitSeq(os.Getenv("BORROWNET_REQUIRE"), ",") {
		if required == "demo" || required == "all" {
			p.t.Fatalf("needs %s: %v", need, reason)
		}
	}
	p.t.Skipf("needs %s: %v", need, reason)
}

// clean fails the test if a file or a process of the place is left.
func (p *demoPlace) clean() {
	p.t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		left := p.left()
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			p.t.Errorf("left: %q", left)
			return
		}
		<-time.After(20 * time.Millisecond)
	}
}

func (p *demoPlace) left() []string {
	var left []string
	files, err := filepath.Glob(filepath.Join(p.dir, "*"))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, f := range files {
		inside, _ := filepath.Glob(filepath.Join(f, "*"))
		left = append(left, f)
		left = append(left, inside...)
	}
	exes, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		p.t.Fatal(err)
	}
	for _, link := range exes {
		exe, err := os.Readlink(link)
		if err != nil || strings.TrimSuffix(exe, " (deleted)") != p.bin {
			continue
		}
		env, _ := os.ReadFile(filepath.Join(filepath.Dir(link), "environ"))
		if bytes.Contains(env, []byte("="+p.dir+"\x00")) || bytes.Contains(env, []byte("="+p.dir+"/")) {
			left = append(left, link)
		}
	}
	return left
}

func TestDemo(t *testing.T) {
	asUsers(t, func(t *testing.T, p *demoPlace) {
		said, code := p.run("demo")
		if code == exitHook {
			p.noHook(said)
		}
		if code != 0 {
			t.Fatalf("exit code %d\n%s", code, said)
		}
		for _, want := range []string{
			"error: call http://orders: ", `"remote": "192.0.2.10:`, "198.51.100.22", "connection refused",
			"hello from ", "state       ready", "session api is down", "no process, file or namespace of it is left",
		} {
			if !strings.Contains(said, want) {
				t.Errorf("it does not say %q:\n%s", want, said)
			}
		}
		p.clean()
		if got, want := commands(readme(t)), commands(said); !slices.Equal(got, want) {
			t.Errorf("README.md has other commands than the demo; run hack/readme-demo.sh\nwant %q\ngot  %q", want, got)
		}
	})
}

// readme returns the demo's part of README.md.
func readme(t *testing.T) string {
	t.Helper()
	_, rest, begun := strings.Cut(readFile(t, "README.md"), "<!-- begin: hack/readme-demo.sh -->")
	part, _, ended := strings.Cut(rest, "<!-- end: hack/readme-demo.sh -->")
	if !begun || !ended {
		t.Fatal("README.md has no markers of hack/readme-demo.sh")
	}
	return part
}

func commands(text string) []string {
	return regexp.MustCompile(`(?m)^\$ borrownet .*$`).FindAllString(text, -1)
}

func TestDemoIsInterrupted(t *testing.T) {
	asUsers(t, func(t *testing.T, p *demoPlace) {
		for _, at := range []string{"without borrownet", "borrow pod", "same call", "what there is"} {
			cmd := p.command(t.Context(), "demo")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			said, hit := scanTo(out, at)
			if !hit {
				if cmd.Wait(); cmd.ProcessState.ExitCode() == exitHook {
					p.noHook(said)
				}
				t.Fatalf("it does not get to %q:\n%s", at, said)
			}
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			rest, _ := io.ReadAll(out)
			cmd.Wait()
			// On a busy machine it may be through before the signal is sent.
			through := strings.Contains(string(rest), "that was all")
			if code := cmd.ProcessState.ExitCode(); code != 130 && !(code == 0 && through) {
				t.Errorf("interrupted at %q: exit code %d\n%s", at, code, rest)
			}
			p.clean()
		}
	})
}

// scanTo reads lines until one holds text.
func scanTo(r io.Reader, text string) (said string, hit bool) {
	var b strings.Builder
	for lines := bufio.NewScanner(r); lines.Scan(); {
		b.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), text) {
			return b.String(), true
		}
	}
	return b.String(), false
}

// kept is a demo that stays up until end.
type kept struct {
	*demoPlace
	cmd *exec.Cmd
	out io.Reader
}

func (p *demoPlace) keep(args ...string) *kept {
	p.t.Helper()
	k := &kept{demoPlace: p, cmd: p.command(context.Background(), append([]string{"demo", "--keep"}, args...)...)}
	out, err := k.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	k.out = out
	if err := k.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { k.cmd.Process.Kill(); k.cmd.Wait() })
	said, hit := scanTo(out, "it stays up")
	if !hit {
		if k.cmd.Wait(); k.cmd.ProcessState.ExitCode() == exitHook {
			p.noHook(said)
		}
		p.t.Fatalf("it does not stay up:\n%s", said)
	}
	return k
}

// end interrupts the demo, which has to leave nothing.
func (k *kept) end() {
	k.t.Helper()
	if err := k.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		k.t.Fatal(err)
	}
	io.Copy(io.Discard, k.out)
	if err := k.cmd.Wait(); err != nil {
		k.t.Errorf("demo: %v", err)
	}
	k.clean()
}

// TestDemoWorksAsACluster uses a demo that stays as one uses a cluster.
func TestDemoWorksAsACluster(t *testing.T) {
	asUsers(t, func(t *testing.T, p *demoPlace) {
		k := p.keep()
		for _, tt := range []struct {
			name string
			args []string
			want string
			fail bool
		}{
			{"http", []string{"http://orders/some/path"}, `"path": "/some/path"`, false},
			{"full-name", []string{"http://orders.shop.svc.cluster.local"}, `"host": "orders.shop.svc.cluster.local"`, false},
			{"half-close", []string{"tcp://ledger:9", "data"}, `{"bytes":5,`, false},
			{"udp", []string{"udp://ledger:7", "echoed"}, "echoed", false},
			{"no-such-name", []string{"http://nobody"}, "no such host", true},
			{"refused", []string{"tcp://ledger:81"}, "connection refused", true},
			{"unreachable", []string{"tcp://unreachable:80"}, "no route to host", true},
			{"silence", []string{"--timeout", "500ms", "tcp://blackhole:80"}, "no answer in ", true},
			{"elsewhere", []string{"tcp://203.0.113.77:80"}, "network is unreachable", true},
		} {
			said, code := p.call(tt.args...)
			// Where sockets are relayed, what is not said within 100 ms is never said (docs/matrix.md).
			late := p.confined && tt.name == "unreachable" && strings.Contains(said, "no answer in ")
			if !late && !strings.Contains(said, tt.want) || tt.fail != (code != 0) {
				t.Errorf("%s: exit code %d, %s", tt.name, code, said)
			}
		}
		p.environment(t)
		if said := p.must("explain", "api"); !regexp.MustCompile(`(?m)^all else +the pod: from 192\.0\.2\.10 `).MatchString(said) ||
			p.confined && !strings.Contains(said, "why not a better one: ") {
			t.Errorf("explain:\n%s", said)
		}
		if said := p.must("doctor", "--context", "demo", "--pod", "api"); !strings.Contains(said, "pod shop/api-") || !strings.Contains(said, " 0 failures") {
			t.Errorf("doctor:\n%s", said)
		}
		p.must("down")
		if said := p.must("up", "--pod", "api", "--context", "demo", "-d"); !strings.Contains(said, "(reused)") {
			t.Errorf("the parked agent was not taken again:\n%s", said)
		}
		p.must("down", "--stop-agent")
		if said := p.must("up", "--pod", "deploy/ledger", "-n", "shop", "--context", "demo", "-d"); !strings.Contains(said, "(new)") {
			t.Errorf("a stopped agent was taken again:\n%s", said)
		}
		if said, _ := p.call("tcp://ledger:11"); !strings.HasPrefix(said, "192.0.2.22:") && !strings.HasPrefix(said, "[2001:db8:0:1::22]:") {
			t.Errorf("ledger saw %s", said)
		}
		for _, tt := range []struct {
			args []string
			code int
			want string
		}{
			{[]string{"--pod", "nosuch", "--context", "demo"}, 11, "there is no such pod"},
			{[]string{"--pod", "api", "-c", "nosuch", "--context", "demo"}, 11, "no such container"},
			{[]string{"--pod", "api", "-n", "nosuch", "--context", "demo"}, 11, "there is no namespace nosuch"},
			{[]string{"--pod", "api"}, 2, "add --context demo"},
			{[]string{"--pod", "api", "--agent-image", "a:1"}, 10, "add --context demo"},
		} {
			if said, code := p.run(append([]string{"up", "-d"}, tt.args...)...); code != tt.code || !strings.Contains(said, tt.want) {
				t.Errorf("up %q: exit code %d, %s", tt.args, code, said)
			}
		}
		k.end()
	})
}

// TestDemoDies kills the world under a session: that is the agent's end for
// good, which the session says, and programs get errors at once.
func TestDemoDies(t *testing.T) {
	asUsers(t, func(t *testing.T, p *demoPlace) {
		k := p.keep()
		k.cmd.Process.Kill()
		k.cmd.Wait()
		var lost bool
		for end := time.Now().Add(time.Minute); !lost && time.Now().Before(end); <-time.After(50 * time.Millisecond) {
			said, _ := p.run("status", "-o", "json")
			var list []struct{ State string }
			lost = json.Unmarshal([]byte(firstDocument(said)), &list) == nil && len(list) == 1 && list[0].State == "lost"
		}
		if !lost {
			t.Fatal("the session is not said to be lost")
		}
		said, code := p.run("status", "api")
		if code != 32 || !strings.Contains(said, "no longer exists") {
			t.Errorf("status: exit code %d, %s", code, said)
		}
		start := time.Now()
		if said, code := p.call("http://orders"); code != 125 || !strings.Contains(said, "no longer exists") {
			t.Errorf("run: exit code %d, %s", code, said)
		}
		if took := time.Since(start); took > time.Minute { // a connect that nobody answers waits for two
			t.Errorf("that took %v", took)
		}
		p.must("down")
		// What a killed demo leaves, the next one takes away.
		p.keep().end()
	})
}

// TestDemoRolls replaces the pod under a program that runs: its terminal hears of it,
// and what is started next is the new pod.
func TestDemoRolls(t *testing.T) {
	asUsers(t, func(t *testing.T, p *demoPlace) {
		k := p.keep()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		cmd := p.command(ctx, "run", "--", "/bin/sh", "-c", "echo runs; exec cat")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		told, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if said, hit := scanTo(out, "runs"); !hit {
			t.Fatalf("the program says %q", said)
		}
		defer context.AfterFunc(ctx, func() { in.Close() })() // cat outlives a run that is killed
		said := p.must("demo", "roll")
		name := regexp.MustCompile(`api-\S+`).FindString(said)
		heard, hit := scanTo(told, "programs that run keep their environment")
		in.Close()
		cmd.Wait()
		for _, want := range []string{"no longer exists", "looks for a pod to go on with", "session api is pod " + name + " now", "POD_NAME changed"} {
			if !hit || !strings.Contains(heard, want) {
				t.Errorf("the terminal of a program does not hear %q:\n%s", want, heard)
			}
		}
		if said, code := p.call("http://orders"); code != 0 || !strings.Contains(said, `"remote": "192.0.2.111:`) {
			t.Errorf("a call after the rollout: exit code %d, %s", code, said)
		}
		if said := p.must("run", "--", "/bin/sh", "-c", "echo $POD_NAME"); !strings.Contains(said, name) {
			t.Errorf("a new program has the environment %s, want that of %s", said, name)
		}
		if said := p.must("status"); !strings.Contains(said, "from pod api-") || !regexp.MustCompile(`(?m)^pod ips +192\.0\.2\.111 `).MatchString(said) {
			t.Errorf("status:\n%s", said)
		}
		p.must("down")
		p.must("up", "--pod", "api", "--context", "demo", "-d", "--stay")
		p.must("demo", "roll")
		lost, isLost := "", regexp.MustCompile(`(?m)^state +lost$`)
		for end := time.Now().Add(time.Minute); !isLost.MatchString(lost) && time.Now().Before(end); <-time.After(50 * time.Millisecond) {
			lost, _ = p.run("status")
		}
		if !isLost.MatchString(lost) || !strings.Contains(lost, "no longer exists") || !strings.Contains(lost, "hint: borrownet up --pod deploy/api") {
			t.Errorf("a session that stays put:\n%s", lost)
		}
		p.must("down")
		k.end()
	})
}

// firstDocument returns what stands before the error in a command's output.
func firstDocument(said string) string {
	text, _, _ := strings.Cut(said, "\nerror: ")
	return text
}
