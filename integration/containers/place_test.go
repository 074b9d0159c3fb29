//go:build docker

package containers

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	user  = 1001 // who uses borrownet
	group = 2375 // whose members may use the engine

	socket = "/run/docker.sock"
	bins   = "bin" // of the checkout, where the tests are started

	caller  = "lab.local/caller:1"  // static programs and nothing else, as uid 1000
	busybox = "lab.local/busybox:1" // a userland, and a program of musl's

	// patience bounds a command. They take a second at most on a quiet machine.
	patience = 2 * time.Minute
)

// systemPath has Debian's docker before others.
const systemPath = "PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin"

func TestMain(m *testing.M) {
	for _, name := range []string{"caller", "busybox"} {
		if out, err := exec.Command("/usr/bin/docker", "load", "-i", filepath.Join(bins, name+"-image.tar")).CombinedOutput(); err != nil {
			os.Stderr.WriteString("load image " + name + ": " + err.Error() + "\n" + string(out))
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// place is a user with a program, a runtime directory and a cluster of their own.
type place struct {
	t      *testing.T
	dir    string
	bin    string
	caller string   // a program that makes calls
	env    []string // besides the usual
	wd     string
}

// newPlace starts the built-in cluster for the test, with no session.
func newPlace(t *testing.T) *place {
	t.Helper()
	p := emptyPlace(t)
	cmd := p.command(context.Background(), p.bin, "demo", "--keep")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	var said strings.Builder
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		said.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), "it stays up") {
			p.must(p.bin, "down")
			return p
		}
	}
	t.Fatalf("the demo does not stay up:\n%s", said.String())
	return nil
}

func emptyPlace(t *testing.T) *place {
	t.Helper()
	dir, err := os.MkdirTemp("", "bn") // paths of sockets are bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	// The checkout may be closed to the user.
	for _, name := range []string{"borrownet", "caller"} {
		program, err := os.ReadFile(filepath.Join(bins, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), program, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "run"), 0o700), os.Chown(filepath.Join(dir, "run"), user, user), os.Chmod(dir, 0o700), os.Chown(dir, user, user)); err != nil {
		t.Fatal(err)
	}
	return &place{t: t, dir: dir, bin: filepath.Join(dir, "borrownet"), caller: filepath.Join(dir, "caller"), wd: dir}
}

// command is a command of the user, with nothing in its environment that it could
// lean on.
func (p *place) command(ctx context.Context, argv ...string) *exec.Cmd {
	if !strings.Contains(argv[0], "/") {
		argv[0] = "/usr/bin/" + argv[0]
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = p.wd
	cmd.Env = append([]string{"HOME=" + p.dir, systemPath, "TMPDIR=" + p.dir, "XDG_RUNTIME_DIR=" + filepath.Join(p.dir, "run"), "DOCKER_HOST=unix://" + socket}, p.env...)
	cmd.WaitDelay = 30 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user, Groups: []uint32{group}}}
	return cmd
}

// run runs a command and returns what it said and its exit code.
func (p *place) run(argv ...string) (string, int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := p.command(ctx, argv...).CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return string(out), 0
	case errors.As(err, &exit) && ctx.Err() == nil:
		return string(out), exit.ExitCode()
	}
	p.t.Fatalf("%q: %v\n%s", argv, err, out)
	return "", 0
}

// must runs a command that has to succeed.
func (p *place) must(argv ...string) string {
	p.t.Helper()
	out, code := p.run(argv...)
	if code != 0 {
		p.t.Fatalf("%q: exit code %d\n%s", argv, code, out)
	}
	return out
}

// fails runs a command that has to fail with a code and to say all of want.
func (p *place) fails(code int, want []string, argv ...string) {
	p.t.Helper()
	out, got := p.run(argv...)
	if got != code {
		p.t.Errorf("%q: exit code %d, want %d\n%s", argv, got, code, out)
	}
	for _, w := range want {
		if !strings.Contains(out, w) {
			p.t.Errorf("%q does not say %q:\n%s", argv, w, out)
		}
	}
}

// up borrows a pod with a container.
func (p *place) up(args ...string) string {
	p.t.Helper()
	said := p.must(append([]string{p.bin, "up", "--pod", "api", "--context", "demo", "--docker", "-d"}, args...)...)
	p.t.Cleanup(func() { p.run(p.bin, "down", "--all") })
	return said
}

// in is the start of a command in a container that has joined.
func in(name string, more ...string) []string {
	return append([]string{"docker", "run", "--rm", "--network", "container:" + name}, more...)
}

// nothingLeft fails the test if anything of borrownet is left in the engine, or in
// the runtime directory besides what the demo has there.
func (p *place) nothingLeft() {
	p.t.Helper()
	eventually(p.t, "nothing to be left in the engine", func() (string, bool) {
		left := p.must("docker", "ps", "-aq", "--filter", "label=dev.borrownet.session") +
			p.must("docker", "images", "-q", "--filter", "label=dev.borrownet.image")
		return left, left == ""
	})
	for _, pattern := range []string{filepath.Join(p.dir, "run", "borrownet", "docker-*"), filepath.Join(p.memory(), "*")} {
		eventually(p.t, "no file to be left", func() (string, bool) {
			files, err := filepath.Glob(pattern)
			files = slices.DeleteFunc(files, func(name string) bool { return strings.HasSuffix(name, ".key") }) // of parked agents
			return fmt.Sprintf("%q, %v", files, err), err == nil && len(files) == 0
		})
	}
}

// memory is where borrownet keeps what must not be on a disk, as the runtime directory is.
// The engine's machine shares /dev/shm with this one, where others have theirs.
func (p *place) memory() string {
	sum := sha256.Sum256([]byte(filepath.Join(p.dir, "run", "borrownet")))
	return "/dev/shm/borrownet-" + hex.EncodeToString(sum[:8])
}

// noneOnDisk fails the test if a secret is in a file below the place, which is on a
// disk, with the runtime directory.
func (p *place) noneOnDisk(secret string) {
	p.t.Helper()
	err := filepath.WalkDir(p.dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() || path == p.bin || path == p.caller {
			return err
		}
		text, err := os.ReadFile(path)
		if bytes.Contains(text, []byte(secret)) {
			p.t.Errorf("%s is in %s", secret, path)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.t.Error(err)
	}
}

// eventually waits for a state that nothing announces.
func eventually(t *testing.T, what string, reached func() (string, bool)) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for {
		now, ok := reached()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited in vain for %s: %s", what, now)
		}
	}
}

// seen is what orders and the caller answer: the request as they saw it.
type seen struct{ App, Remote, Host string }

func decodeSeen(t *testing.T, text string) seen {
	t.Helper()
	var s seen
	i := strings.Index(text, "{")
	if i < 0 || json.NewDecoder(bytes.NewReader([]byte(text[i:]))).Decode(&s) != nil {
		t.Fatalf("no answer of a server: %s", text)
	}
	return s
}

// pids are the processes of the user's borrownet with an argument.
func (p *place) pids(arg string) []string {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		p.t.Fatal(err)
	}
	var out []string
	for _, name := range lines {
		text, _ := os.ReadFile(name)
		argv := strings.Split(string(text), "\x00")
		if argv[0] == p.bin && slices.Contains(argv, arg) {
			out = append(out, filepath.Base(filepath.Dir(name)))
		}
	}
	return out
}
