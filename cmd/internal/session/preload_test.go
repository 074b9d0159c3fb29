package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/borrownet/borrownet/hook"
	"github.com/borrownet/borrownet/hook/hooktest"
)

// preloaded is a session whose programs have the preload library in them.
type preloaded struct {
	t       *testing.T
	session *Session
	env     []string
}

// startPreloaded starts one on the rung.
func startPreloaded(t *testing.T, rung Rung) *preloaded {
	t.Helper()
	if err := hook.Built(); err != nil {
		hooktest.Unavailable(t, "preload", err)
	}
	l := newRelayLab(t)
	opening := l.opening()
	if !hooktest.Confined() { // else it is the only one
		opening.req.Hook = rung
	}
	s, err := opening.Start(t.Context(), "api", l.observer())
	if errors.Is(err, errors.ErrUnsupported) {
		hooktest.Unavailable(t, "netns", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	place := s.Place()
	if place.Hook != rung {
		t.Fatalf("hook %s, want %s", place.Hook, rung)
	}
	helper := place.Socket
	if rung.Relayed() {
		helper = ""
	}
	value, err := hook.PreloadValue(place.Broker, helper)
	if err != nil {
		t.Fatal(err)
	}
	files, err := hook.Install(l.opener.Dir.String())
	if err != nil {
		t.Fatal(err)
	}
	return &preloaded{t, s, hook.WithLibrary(os.Environ(), files.Library, value)}
}

func (p *preloaded) command(argv ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(p.t.Context(), 3*time.Minute)
	p.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = p.env
	cmd.WaitDelay = 30 * time.Second
	return cmd
}

// run runs argv in the session to its end.
func (p *preloaded) run(argv ...string) (stdout, stderr string, code int) {
	p.t.Helper()
	cmd := p.command(argv...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	return strings.TrimSpace(out.String()), strings.TrimSpace(errs.String()), cmd.ProcessState.ExitCode()
}

// want runs argv and compares what it prints.
func (p *preloaded) want(want string, argv ...string) {
	p.t.Helper()
	out, errs, code := p.run(argv...)
	if out != want || code != 0 {
		p.t.Errorf("%s: exit code %d, got\n%s\nwant\n%s\nstderr: %s", strings.Join(argv, " "), code, out, want, errs)
	}
}

// TestPreloadRelayConfined runs the tests of preload-relay where the rung is made
// for: no namespaces, no seccomp, no look into other processes.
func TestPreloadRelayConfined(t *testing.T) {
	if hooktest.Confined() {
		return
	}
	for name, uid := range map[string]int{"root": 0, "user": 1001} {
		t.Run(name, func(t *testing.T) {
			hooktest.Confine(t, hooktest.Strict, uid, "^Test(Preload.*|Conform)$/^preload-relay$")
		})
	}
}

// TestPreloadPrograms runs every runtime that is here on each rung that has the
// library.
func TestPreloadPrograms(t *testing.T) {
	for _, rung := range []Rung{hook.Preload, hook.PreloadRelay} {
		t.Run(string(rung), func(t *testing.T) {
			p := startPreloaded(t, rung)
			for _, prog := range dynamicPrograms(t) {
				t.Run(prog.name, func(t *testing.T) { (&preloaded{t, p.session, p.env}).want(prog.want, prog.argv(t)...) })
			}
		})
	}
}

// staticSource gets a page from web, without a resolver.
const staticSource = `
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(void)
{
	struct sockaddr_in sa = { AF_INET, htons(80) };
	char buf[1000];
	ssize_t n;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	inet_pton(AF_INET, "198.51.100.80", &sa.sin_addr);
	if (connect(fd, (void *)&sa, sizeof sa) < 0 || write(fd, "GET / HTTP/1.0\r\n\r\n", 18) != 18)
		return 1;
	while ((n = read(fd, buf, sizeof buf)) > 0)
		if (memmem(buf, n, "\r\n\r\n", 4))
			fwrite((char *)memmem(buf, n, "\r\n\r\n", 4) + 4, 1, n - ((char *)memmem(buf, n, "\r\n\r\n", 4) + 4 - buf), stdout);
	return 0;
}
`

// buildStatic compiles a statically linked program.
func buildStatic(t *testing.T) string {
	t.Helper()
	cc, err := exec.LookPath("musl-gcc")
	if err != nil {
		hooktest.Unavailable(t, "musl", err)
	}
	prog := filepath.Join(t.TempDir(), "unseen")
	build := exec.Command(cc, "-D_GNU_SOURCE", "-static", "-o", prog, "-x", "c", "-")
	build.Stdin = strings.NewReader(staticSource)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return prog
}

// spawnPython starts a program by posix_spawn(3) and waits for it.
const spawnPython = `import os,sys; os.waitpid(os.posix_spawn(sys.argv[1], sys.argv[1:], {}), 0)`

// TestPreloadExec starts what the library cannot be in, and what has lost the
// library's variables.
func TestPreloadExec(t *testing.T) {
	static := buildStatic(t)
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!"+static+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, rung := range []Rung{hook.Preload, hook.PreloadRelay} {
		t.Run(string(rung), func(t *testing.T) {
			p := startPreloaded(t, rung)
			curl, python := interpreter(t, "curl"), interpreter(t, "python3")
			for _, tt := range []struct {
				name string
				argv []string
				want string
			}{
				{"clean", []string{"sh", "-c", "exec env -i " + curl + " -sS http://web/"}, page},
				{"unset", []string{"sh", "-c", "unset LD_PRELOAD " + hook.EnvVar + "; " + curl + " -sS http://web/"}, page},
				{"spawn", []string{python, "-c", spawnPython, curl, "-sS", "http://web/"}, page},
				{"quiet", []string{"sh", "-c", "true | cat | env true"}, ""},
			} {
				t.Run(tt.name, func(t *testing.T) { (&preloaded{t, p.session, p.env}).want(tt.want, tt.argv...) })
			}
			want, says := page, "unseen is statically linked: it runs inside the session's namespace (hook netns)"
			if rung.Relayed() {
				want, says = "", "unseen is statically linked: not started, hook preload-relay cannot see it"
			}
			for name, argv := range map[string][]string{
				"static":         {"sh", "-c", "exec " + static},
				"static-spawned": {python, "-c", spawnPython, static},
				"static-script":  {"sh", "-c", script},
			} {
				t.Run(name, func(t *testing.T) {
					p := &preloaded{t, p.session, p.env}
					out, errs, _ := p.run(argv...)
					if name == "static-script" {
						errs = strings.ReplaceAll(errs, "script is", "unseen is")
					}
					if out != want || !strings.Contains(errs, says) {
						t.Errorf("got %q, want %q; stderr %q, want %q", out, want, errs, says)
					}
				})
			}
		})
	}
}

// TestPreloadListeners: the session's kernel, which chooses the ports, gives none out
// that a listener has on the laptop.
func TestPreloadListeners(t *testing.T) {
	const program = `
import socket, struct
all = []
for i in range(40):
    s = socket.socket()
    try:
        # One of 128 ports: one that is free by mistake is chosen soon (IP_LOCAL_PORT_RANGE, Linux 6.3).
        s.setsockopt(socket.IPPROTO_IP, 51, struct.pack('I', 61427 << 16 | 61300))
    except OSError:
        pass
    s.bind(('127.0.0.1', 0))
    s.listen()
    all.append(s)
print(len({s.getsockname()[1] for s in all}))
`
	t.Run(string(hook.Preload), func(t *testing.T) {
		p := startPreloaded(t, hook.Preload)
		var out, errs string
		for range 3 { // another session on this machine may have one of the ports for a moment
			if out, errs, _ = p.run(interpreter(t, "python3"), "-c", program); out == "40" {
				return
			}
		}
		t.Errorf("got %q, want 40 listeners\n%s", out, errs)
	})
}

// TestPreloadLost checks what a program hears once its session has ended: an error
// at once, and nothing by the laptop's own network.
func TestPreloadLost(t *testing.T) {
	const program = `
import socket, sys
def attempt(f):
    try: f(); return 'ok'
    except socket.gaierror as e: return 'gaierror %d' % e.errno
    except OSError as e: return str(e.errno)
print('ready', flush=True)
sys.stdin.readline()
print(attempt(lambda: socket.create_connection(('198.51.100.80', 80), 5)), attempt(lambda: socket.getaddrinfo('web', 80)),
    attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('198.51.100.84', 7))))
`
	for rung, want := range map[Rung]string{hook.Preload: "100 gaierror -3 100", hook.PreloadRelay: "100 gaierror -3 100"} {
		t.Run(string(rung), func(t *testing.T) {
			p := startPreloaded(t, rung)
			cmd := p.command(interpreter(t, "python3"), "-c", program)
			stdin, stdout := pipes(t, cmd)
			var word string
			if _, err := fmt.Fscanln(stdout, &word); err != nil || word != "ready" {
				t.Fatalf("%q, %v", word, err)
			}
			p.session.Close()
			io.WriteString(stdin, "\n")
			out, err := io.ReadAll(stdout)
			if got := strings.TrimSpace(string(out)); err != nil || got != want {
				t.Errorf("got %q, %v, want %q (100 is ENETDOWN)", got, err, want)
			}
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}
