//go:build !lab

package integration

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMatrix runs a program of each runtime on each rung, in a session of the demo, as
// an ordinary user. matrixChecks says what each has to find, docs/matrix.md shows it.
func TestMatrix(t *testing.T) {
	users := map[string]int{"user": demoUser}
	if os.Getuid() != 0 {
		users = map[string]int{"self": os.Getuid()}
	}
	as(t, users, func(t *testing.T, p *demoPlace) {
		programs := filepath.Dir(p.bin)
		laptop := serveLocally(t)
		missing := map[string]string{}
		for _, r := range matrixRuntimes {
			missing[r.name] = r.prepare(t, programs)
		}
		for _, rung := range matrixRungs {
			t.Run(rung, func(t *testing.T) {
				p := *p
				p.t = t
				k := p.keep("--hook", rung)
				t.Run("run", func(t *testing.T) {
					for i, r := range matrixRuntimes {
						t.Run(r.name, func(t *testing.T) {
							if missing[r.name] != "" {
								p := p
								p.t = t
								p.unavailable(r.name, missing[r.name])
							}
							t.Parallel()
							m := &matrixRun{t: t, place: &p, rung: r.rung(rung)}
							if m.rung == "" {
								m.refused(r.command(programs)...)
								return
							}
							for range 3 {
								m.run(append(r.command(programs), laptop.tcp, laptop.udp, strconv.Itoa(80+i))...)
								if !m.unlucky(r) {
									break
								}
							}
							m.compare(r)
						})
					}
				})
				if rung != "seccomp" && rung != "relay" {
					p.forgetLibrary()
				}
				k.end()
			})
		}
	})
}

// matrixRun is one program on one rung.
type matrixRun struct {
	t       *testing.T
	place   *demoPlace
	rung    string
	results map[string]string // by check
	said    string            // on standard error
}

func (m *matrixRun) command(argv []string) (*exec.Cmd, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(m.t.Context(), 3*time.Minute)
	// Too few descriptors for what opens them until it hears of it.
	limited := []string{"run", "--", "/bin/sh", "-c", `ulimit -n 256 && exec "$@"`, "sh"}
	return m.place.command(ctx, append(limited, argv...)...), cancel
}

// run runs the program and reads its results; where it listens, somebody on the laptop
// connects.
func (m *matrixRun) run(argv ...string) {
	m.t.Helper()
	m.results = map[string]string{}
	cmd, cancel := m.command(argv)
	defer cancel()
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		check, result, ok := strings.Cut(lines.Text(), ": ")
		port, listens := strings.CutPrefix(result, "at ")
		switch {
		case !ok || result == "greeted":
			continue
		case listens:
			result = m.visit(check, port)
		}
		m.results[check] = result
	}
	if err := cmd.Wait(); err != nil {
		m.t.Errorf("%v", err)
	}
	m.said = errs.String()
}

// unlucky reports whether something went wrong that may go wrong once in a while. A listener that asks for any port may
// get one that another session got within the same half second. And who polls for the end of connect(2) may take an ICMP
// error for success, where the socket is the kernel's: Linux queues the error, which wakes it, before it sets SO_ERROR.
func (m *matrixRun) unlucky(r *matrixRuntime) bool {
	for check, result := range m.results {
		clashed := strings.HasPrefix(check, "listen/") && result != "hello"
		deceived := check == "errors/unreachable" && result != "EHOSTUNREACH"
		if (clashed || deceived) && limitOf(m.rung, r.name, check) == nil {
			m.t.Logf("%s: got %q, is tried again", check, result)
			return true
		}
	}
	return false
}

// visit connects to a listener of the program at the same port of the laptop.
func (m *matrixRun) visit(check, port string) string {
	host := "127.0.0.1"
	if check == "listen/v6only" {
		host = "::1"
	}
	for end := time.Now().Add(30 * time.Second); ; <-time.After(20 * time.Millisecond) {
		c, err := net.DialTimeout("tcp", net.JoinHostPort(host, port), 30*time.Second)
		if errors.Is(err, syscall.ECONNREFUSED) && m.rung == "netns" && time.Now().Before(end) {
			continue // there it takes half a second until the port is published
		}
		if err != nil {
			return err.Error()
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(30 * time.Second))
		said, err := io.ReadAll(c)
		if err != nil {
			return err.Error()
		}
		return string(said)
	}
}

// compare holds the results against what is wanted of the runtime on the rung.
func (m *matrixRun) compare(r *matrixRuntime) {
	m.t.Helper()
	wanted := map[string]bool{}
	for _, c := range matrixChecks {
		if !c.of(r) {
			continue
		}
		wanted[c.name] = true
		got, found := m.results[c.name]
		limit := limitOf(m.rung, r.name, c.name)
		switch {
		case got == c.want:
			if limit != nil && limit.or == "" {
				m.t.Logf("%s: works, although it is said not to: %s", c.name, limit.why)
			}
		case limit != nil && (limit.or == "" || limit.or == got):
		case !found:
			m.t.Errorf("%s: the program does not say", c.name)
		default:
			m.t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	for check := range m.results {
		if !wanted[check] {
			m.t.Errorf("%s is said, but not in the table", check)
		}
	}
	if m.t.Failed() {
		m.t.Logf("standard error:\n%s", m.said)
	}
}

// refused wants the program not to be run at all.
func (m *matrixRun) refused(argv ...string) {
	m.t.Helper()
	cmd, cancel := m.command(argv)
	defer cancel()
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "borrownet:") {
		m.t.Errorf("it is not refused by name: %v\n%s", err, out)
	}
}

// matrixLaptop is what programs find on the laptop's loopback, by port.
type matrixLaptop struct{ tcp, udp string }

// serveLocally answers "local" to whoever connects, by either family, and datagrams
// with themselves, until the test ends.
func serveLocally(t *testing.T) matrixLaptop {
	t.Helper()
	v4, v6 := listenByBoth(t)
	port := strconv.Itoa(v4.Addr().(*net.TCPAddr).Port)
	for _, ln := range []net.Listener{v4, v6} {
		t.Cleanup(func() { ln.Close() })
		go func() { // ends with ln
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go sayLocal(c.(*net.TCPConn))
			}
		}()
	}
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() { // ends with pc
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(buf[:n], from)
		}
	}()
	return matrixLaptop{port, strconv.Itoa(pc.LocalAddr().(*net.UDPAddr).Port)}
}

// listenByBoth listens at a port of the loopback addresses of both families.
func listenByBoth(t *testing.T) (v4, v6 net.Listener) {
	t.Helper()
	for range 100 {
		v4, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { v4.Close() })
		v6, err := net.Listen("tcp6", fmt.Sprintf("[::1]:%d", v4.Addr().(*net.TCPAddr).Port))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Skipf("needs ::1: %v", err)
		}
		return v4, v6
	}
	t.Fatal("no port is free by both families")
	return nil, nil
}

// sayLocal waits for the client's end, whose request would else be answered by a reset.
func sayLocal(c *net.TCPConn) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	_, _ = io.WriteString(c, "local")
	_ = c.CloseWrite()
	_, _ = io.Copy(io.Discard, c)
}

// prepare makes the runtime's program in dir. It returns what is missing for that.
func (r *matrixRuntime) prepare(t *testing.T, dir string) string {
	t.Helper()
	for _, need := range r.needs {
		if _, err := exec.LookPath(need); err != nil {
			return need + ": make setup"
		}
	}
	if r.try != "" && exec.Command("/bin/sh", "-c", r.try).Run() != nil {
		return r.try + ": make setup"
	}
	switch {
	case r.build == "":
		return r.copy(dir)
	case !r.slow:
		return r.compile(t, dir)
	}
	made, err := r.cached(func(out string) error {
		if why := r.compile(t, out); why != "" {
			return errors.New(why)
		}
		return nil
	})
	if err == nil {
		err = os.CopyFS(dir, os.DirFS(made))
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// compile builds into dir.
func (r *matrixRuntime) compile(t *testing.T, dir string) string {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-ec", r.build)
	cmd.Dir = filepath.Join(root, conformApps)
	cmd.Env = append(cmd.Environ(), "BIN="+dir)
	out, err := cmd.CombinedOutput()
	if err == nil {
		return ""
	}
	why := fmt.Sprintf("build it: %v\n%s", err, out)
	if !r.slow { // what is slow may need packages that are not to be had
		t.Errorf("%s: %s", r.name, why)
	}
	return why
}

// cached has build make a directory once for all, outside of the checkout, as long as
// its sources are the same.
func (r *matrixRuntime) cached(build func(out string) error) (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	fmt.Fprint(sum, r.build)
	err = filepath.WalkDir(filepath.Join(root, conformApps, r.source), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		sum.Write(text)
		return err
	})
	if err != nil {
		return "", err
	}
	made := filepath.Join(base, "borrownet-conform", fmt.Sprintf("%s-%x", r.name, sum.Sum(nil)[:8]))
	if _, err := os.Stat(made); err == nil {
		return made, nil
	}
	if err := os.MkdirAll(filepath.Dir(made), 0o755); err != nil {
		return "", err
	}
	out, err := os.MkdirTemp(filepath.Dir(made), ".building-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(out)
	if err := build(out); err != nil {
		return "", err
	}
	if err := os.Rename(out, made); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, syscall.ENOTEMPTY) {
		return "", err
	}
	return made, nil
}

// copy puts the source into dir, where any user may read it.
func (r *matrixRuntime) copy(dir string) string {
	text, err := os.ReadFile(filepath.Join(root, conformApps, r.source))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, filepath.Base(r.source)), text, 0o644)
	}
	if err != nil {
		return fmt.Sprint(err)
	}
	return ""
}

// command is the program's command line, but for its arguments.
func (r *matrixRuntime) command(dir string) []string {
	argv := slices.Clone(r.argv)
	for i := range argv {
		argv[i] = strings.ReplaceAll(argv[i], "$BIN", dir)
	}
	return argv
}
