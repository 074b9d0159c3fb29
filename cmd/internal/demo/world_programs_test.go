//go:build linux && !race

package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/borrownet/borrownet/cmd/internal/rundir"
	"github.com/borrownet/borrownet/hook/hooktest"
	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/relay"
)

// verbWorld makes the test binary a world of another process, so that another user
// may have it.
const verbWorld = "__world"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == verbWorld {
		if err := worldMain(os.Args[2:]); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// worldMain is a world until its standard input ends. The arguments are its
// runtime directory and what else ledger serves, each PORT=PATH of a Unix socket:
// no program of the laptop can reach these by a network.
func worldMain(args []string) error {
	dir, err := rundir.At(args[0])
	if err != nil {
		return err
	}
	w, err := Start(Config{Version: "test"})
	if err != nil {
		return err
	}
	defer w.Close()
	for _, more := range args[1:] {
		port, path, _ := strings.Cut(more, "=")
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return err
		}
		if err := w.services.tcp(w.ether.at(ledgerAddr), uint16(n), func(c *netstack.TCPConn) error {
			server, err := net.Dial("unix", path)
			if err != nil {
				return err
			}
			return relay.Copy(w.ctx, c, server.(*net.UnixConn), relay.Options{}).Err
		}); err != nil {
			return err
		}
	}
	s, err := w.Serve(dir)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, s.Close())
}

// farSide are real servers behind Unix sockets, by the port of ledger at which the
// world has them.
type farSide struct {
	t       *testing.T
	dir     string
	sockets map[uint16]string
	lacks   map[uint16]error // servers that are not here
}

func newFarSide(t *testing.T, dir string) *farSide {
	t.Helper()
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil { // whatever the umask: each server may have a user of its own
		t.Fatal(err)
	}
	f := &farSide{t: t, dir: dir, sockets: map[uint16]string{}, lacks: map[uint16]error{}}
	for port, start := range map[uint16]func() (string, error){80: f.git, 5432: f.postgres, 6379: f.redis} {
		path, err := start()
		if err != nil {
			f.lacks[port] = err
			continue
		}
		f.await(path)
		f.sockets[port] = path
	}
	return f
}

// await waits until something answers at a Unix socket, and lets everybody.
func (f *farSide) await(path string) {
	f.t.Helper()
	for end := time.Now().Add(time.Minute); ; <-time.After(20 * time.Millisecond) {
		c, err := net.Dial("unix", path)
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(end) {
			f.t.Fatal(err)
		}
	}
	if err := os.Chmod(path, 0o777); err != nil {
		f.t.Fatal(err)
	}
}

// git serves a repository by git's own server of the smart protocol.
func (f *farSide) git() (string, error) {
	backend, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		return "", err
	}
	handler := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(backend)), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + f.dir, "GIT_HTTP_EXPORT_ALL=1"},
	}
	if _, err := os.Stat(handler.Path); err != nil {
		return "", err
	}
	fill := exec.Command("sh", "-euc", `git init -q app.git && cd app.git && echo hello >file && git add file
		git -c user.name=x -c user.email=x@example.org commit -qm 'the first commit'`)
	fill.Dir = f.dir
	if out, err := fill.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	path := filepath.Join(f.dir, "git.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		f.t.Fatal(err)
	}
	srv, done := &http.Server{Handler: handler}, make(chan struct{})
	go func() { // ends with srv
		defer close(done)
		srv.Serve(ln)
	}()
	f.t.Cleanup(func() { srv.Close(); <-done })
	return path, nil
}

// redis starts a Redis, which keeps nothing. Debian's package of the client has the
// server's program too: it goes by the name it is called by.
func (f *farSide) redis() (string, error) {
	server, err := findProgram("redis-server")
	if err != nil {
		if server, err = findProgram("redis-check-rdb"); err != nil {
			return "", err
		}
	}
	path := filepath.Join(f.dir, "redis.sock")
	cmd := exec.Command(server, "--port", "0", "--unixsocket", path, "--save", "", "--dir", f.dir)
	cmd.Args[0] = "redis-server"
	return path, f.start(cmd)
}

// postgres starts a PostgreSQL with an empty database.
func (f *farSide) postgres() (string, error) {
	server, err := findProgram("postgres")
	if err != nil {
		return "", err
	}
	attr := &syscall.SysProcAttr{}
	if os.Getuid() == 0 { // whose server it refuses to be
		u, err := user.Lookup("postgres")
		if err != nil {
			return "", err
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	data := filepath.Join(f.dir, "data")
	initdb := exec.Command(filepath.Join(filepath.Dir(server), "initdb"), "-D", data, "-A", "trust", "-U", "app", "--no-sync", "-E", "UTF8", "--locale=C")
	initdb.Dir, initdb.SysProcAttr = f.dir, attr
	if out, err := initdb.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	cmd := exec.Command(server, "-D", data, "-k", f.dir, "-h", "", "-F")
	cmd.SysProcAttr = attr
	return filepath.Join(f.dir, ".s.PGSQL.5432"), f.start(cmd)
}

// start starts a server that ends with the test.
func (f *farSide) start(cmd *exec.Cmd) error {
	cmd.Dir = f.dir
	if err := cmd.Start(); err != nil {
		return err
	}
	f.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGINT) // PostgreSQL takes its children along
		cmd.Wait()
	})
	return nil
}

// findProgram looks where Debian puts servers too.
func findProgram(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		// The directory of the file itself has what belongs to it.
		return filepath.EvalSymlinks(path)
	}
	for _, pattern := range []string{"/usr/sbin/", "/usr/lib/postgresql/*/bin/", "../../../bin/"} {
		if found, _ := filepath.Glob(pattern + name); len(found) > 0 {
			return filepath.Abs(found[len(found)-1])
		}
	}
	return "", fmt.Errorf("%s is not installed (make setup installs it)", name)
}

func findModule(name string) error {
	if name == "" {
		return nil
	}
	if out, err := exec.Command("/usr/bin/python3", "-c", "import "+name).CombinedOutput(); err != nil {
		return fmt.Errorf("%w (make setup installs it): %s", err, out)
	}
	return nil
}

// home is a user with a session on the pod api of a world, and with a directory.
type home struct {
	t   *testing.T
	dir string
	bin string // borrownet
	uid int
	env []string
}

// newHome makes a home in base, whose world has the servers of far.
func newHome(t *testing.T, base, bin string, uid int, far *farSide) *home {
	t.Helper()
	h := &home{t: t, dir: filepath.Join(base, strconv.Itoa(uid)), bin: bin, uid: uid}
	run := filepath.Join(h.dir, "run")
	ours, err := filepath.Abs("../../../bin") // make setup builds programs there
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{h.dir, run} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir, uid, -1); err != nil {
			t.Fatal(err)
		}
	}
	h.env = []string{
		"HOME=" + h.dir, "TMPDIR=" + h.dir, "XDG_RUNTIME_DIR=" + run, "LC_ALL=C.UTF-8", "GIT_CONFIG_NOSYSTEM=1",
		"PATH=" + os.Getenv("PATH") + ":/usr/sbin:" + ours,
	}
	args := []string{verbWorld, filepath.Join(run, "borrownet")}
	for port, path := range far.sockets {
		args = append(args, fmt.Sprintf("%d=%s", port, path))
	}
	world := h.command(context.Background(), hooktest.Self, args...)
	in, err := world.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := world.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := world.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := world.Wait(); err != nil {
			t.Errorf("world: %v", err)
		}
	})
	if said, err := bufio.NewReader(out).ReadString('\n'); said != "ready\n" {
		t.Fatalf("world: %q, %v", said, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	up := h.command(ctx, bin, "up", "--pod", "api", "--context", Context, "-d")
	said, err := up.CombinedOutput()
	t.Logf("uid %d: %s", uid, said)
	if err != nil {
		if up.ProcessState != nil && up.ProcessState.ExitCode() == exitNoHook {
			hooktest.Unavailable(t, "hook", string(said))
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if out, err := h.command(context.Background(), bin, "down", "--all").CombinedOutput(); err != nil {
			t.Errorf("down: %v\n%s", err, out)
		}
	})
	return h
}

// exitNoHook is borrownet's exit code where the machine lets no hook work.
const exitNoHook = 21

// command is a command of the user.
func (h *home) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = h.dir, h.env
	cmd.WaitDelay = 10 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if h.uid != os.Getuid() {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(h.uid), Gid: uint32(h.uid)}
	}
	return cmd
}
