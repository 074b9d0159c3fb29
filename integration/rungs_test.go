//go:build !lab

package integration

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestDemoOnEveryRung shows the whole job on each rung, asked for and, where only
// that one is left, found.
func TestDemoOnEveryRung(t *testing.T) {
	asUsers(t, func(t *testing.T, p *demoPlace) {
		for _, rung := range []string{"seccomp", "netns", "preload", "relay", "preload-relay"} {
			t.Run(rung, func(t *testing.T) {
				p := *p
				p.t = t
				said, code := p.run("demo", "--hook", rung)
				namespace := rung == "seccomp" || rung == "netns" || rung == "preload"
				switch {
				case code == exitHook && p.confined && namespace:
					return // that is what is forbidden here
				case code == exitHook:
					p.unavailable("hook "+rung, said)
				case code != 0 || !strings.Contains(said, "hook        "+rung):
					t.Errorf("exit code %d\n%s", code, said)
				}
				p.clean()
			})
		}
	})
}

// TestDemoConfined shows it under filters that leave one rung.
func TestDemoConfined(t *testing.T) {
	base, err := os.MkdirTemp("", "bn")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(base)
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	confine, bin := filepath.Join(base, "confine"), filepath.Join(base, "borrownet")
	build := exec.Command("go", "build", "-o", confine, "./hack/confine")
	build.Dir = root
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	program, err := demoProgram()
	if err == nil {
		err = os.WriteFile(bin, program, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	uid := os.Getuid()
	if uid == 0 {
		uid = demoUser
	}
	for filter, rung := range map[string]string{"-filter": "relay", "-strict": "preload-relay"} {
		t.Run(rung, func(t *testing.T) {
			uid := uid
			p := &demoPlace{t: t, bin: bin, dir: filepath.Join(base, rung), uid: os.Getuid()}
			if err := os.Mkdir(p.dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(p.dir, uid, -1); err != nil {
				uid = os.Getuid() // root of a container, who may become nobody else
			}
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			cmd := p.command(ctx, "demo")
			cmd.Path, cmd.Args = confine, append([]string{confine, "-user", strconv.Itoa(uid), filter}, cmd.Args...)
			out, err := cmd.CombinedOutput()
			said := string(out)
			if cmd.ProcessState.ExitCode() == exitHook && strings.Contains(said, "not part of this build") {
				p.unavailable("preload", said)
			}
			if err != nil || !strings.Contains(said, "hook        "+rung+" (") {
				t.Errorf("%v\n%s", err, said)
			}
			p.clean()
		})
	}
}

// TestRunUnderAnotherListener runs a command whose process tree is supervised
// already: the library takes the supervisor's place.
func TestRunUnderAnotherListener(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("needs curl")
	}
	asUsers(t, func(t *testing.T, p *demoPlace) {
		k := p.keep()
		defer k.end()
		inner := "unset BORROWNET_SESSION; exec " + p.bin + " run -- curl -sS http://orders"
		said, code := p.run("run", "--", "sh", "-c", inner)
		if code == 125 && strings.Contains(said, "already supervises") {
			p.unavailable("preload", said)
		}
		rung := "preload"
		if p.confined {
			rung = "preload-relay"
		}
		if code != 0 || !strings.Contains(said, `"remote": "192.0.2.10:`) || !strings.Contains(said, "hook "+rung+": another tool already supervises") {
			t.Errorf("exit code %d\n%s", code, said)
		}
		p.forgetLibrary()
	})
}
