//go:build !lab

package integration

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	tscript "github.com/rogpeppe/go-internal/testscript"
)

// TestScripts types the documented commands, on the demo's world. The scripts of
// cmd/borrownet have those that need no cluster.
func TestScripts(t *testing.T) {
	asSelf(t, func(t *testing.T, p *demoPlace) {
		tscript.Run(t, tscript.Params{
			Dir:                 "testdata/cli",
			RequireExplicitExec: true,
			RequireUniqueNames:  true,
			UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
			Setup: func(env *tscript.Env) error {
				dir, err := os.MkdirTemp("", "bn") // paths of sockets are bounded
				if err != nil {
					return err
				}
				env.Defer(func() { forgetMemory(dir); os.RemoveAll(dir) })
				env.Setenv("PATH", filepath.Dir(p.bin)+":"+os.Getenv("PATH"))
				env.Setenv("XDG_RUNTIME_DIR", dir)
				env.Setenv("TMPDIR", dir)
				env.Setenv("HOME", env.WorkDir)
				env.Setenv("KUBECONFIG", "/nonexistent/kubeconfig")
				return nil
			},
			Cmds: map[string]func(*tscript.TestScript, bool, []string){
				"begin": begin, "exitcode": exitCode,
			},
		})
	})
}

// started starts a command of a script, which ends with it, and reads what it says
// until a line holds text.
func started(ts *tscript.TestScript, text string, args ...string) string {
	path, err := findIn(ts.Getenv("PATH"), args[0])
	ts.Check(err)
	cmd := exec.Command(path, args[1:]...)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "XDG_RUNTIME_DIR", "TMPDIR", "HOME", "KUBECONFIG"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	r, w, err := os.Pipe()
	ts.Check(err)
	cmd.Stdout, cmd.Stderr = w, w
	ts.Check(cmd.Start())
	w.Close()
	ts.Defer(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		io.Copy(io.Discard, r)
		r.Close()
		if err := cmd.Wait(); err != nil {
			ts.Logf("%q: %v", args, err)
		}
	})
	stuck := time.AfterFunc(4*time.Minute, func() { cmd.Process.Kill() })
	defer stuck.Stop()
	var said strings.Builder
	for lines := bufio.NewScanner(r); lines.Scan(); {
		said.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), text) {
			go io.Copy(io.Discard, r) // ends with the command
			return said.String()
		}
	}
	if strings.Contains(said.String(), "hint: borrownet doctor") {
		ts.Fatalf("no hook works here:\n%s", said.String())
	}
	ts.Fatalf("%q does not say %q:\n%s", args, text, said.String())
	return ""
}

func findIn(path, name string) (string, error) {
	for _, dir := range filepath.SplitList(path) {
		if file := filepath.Join(dir, name); exec.Command("test", "-x", file).Run() == nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("no %s on PATH", name)
}

// begin is the script's command begin TEXT COMMAND...: the command goes on in the
// background once it has said TEXT. Addresses that lines of it begin with are AT1, AT2
// and so on.
func begin(ts *tscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: begin TEXT COMMAND...")
	}
	said := started(ts, args[0], args[1:]...)
	for i, at := range regexp.MustCompile(`(?m)^127\.0\.0\.1:[0-9]+`).FindAllString(said, -1) {
		ts.Setenv(fmt.Sprintf("AT%d", i+1), at)
	}
}

// exitCode is the script's command exitcode: N COMMAND...
func exitCode(ts *tscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exitcode N COMMAND...")
	}
	got := "0"
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := err.(*exec.ExitError)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = fmt.Sprint(exit.ExitCode())
	}
	if got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

// TestDocumentedCommandsAreTyped: each verb, and each of its flags, that README.md,
// docs/tour.md and docs/cli show in an example stands in a script, or as words in the
// tests of one package that run the program where a script cannot: in the lab, beside a
// container engine.
func TestDocumentedCommandsAreTyped(t *testing.T) {
	typed := map[string]bool{}
	_, literals := testNames(t)
	inTests := func(verb, flag string) bool {
		for dir, words := range literals {
			if (dir == "cmd/borrownet" || strings.HasPrefix(dir, "integration")) && words[verb] && (flag == "" || words[flag]) {
				return true
			}
		}
		return false
	}
	for _, name := range files(t) {
		if strings.HasSuffix(name, ".txtar") {
			for _, w := range wordsOf(readFile(t, name)) {
				typed[w] = true
			}
		}
	}
	seen := 0
	for _, name := range files(t) {
		if name != "README.md" && name != "docs/tour.md" && !strings.HasPrefix(name, "docs/cli/") {
			continue
		}
		for _, w := range wordsOf(codeOf(readFile(t, name))) {
			verb, flag, _ := strings.Cut(w, " ")
			if _, err := os.Stat(filepath.Join(root, "docs/cli/borrownet-"+verb+".md")); err != nil {
				continue // what the program says of itself
			}
			seen++
			if w == "compose --build" {
				continue // the compose tool's own
			}
			if !typed[w] && !inTests(verb, flag) {
				t.Errorf("%s shows `borrownet %s`, and no test types it", name, w)
			}
		}
	}
	if seen == 0 {
		t.Error("no documented command is found")
	}
}

// codeOf returns what stands in the code blocks of a Markdown file.
func codeOf(text string) string {
	var b strings.Builder
	fenced := false
	for l := range strings.Lines(text) {
		if strings.HasPrefix(l, "```") {
			fenced = !fenced
		} else if fenced {
			b.WriteString(l)
		}
	}
	return b.String()
}

var (
	commandLine = regexp.MustCompile(`(?m)^(?:\$ |  |exec |exitcode [0-9]+ |! exec |begin '[^']*' |.*\$\()?(?:kubectl )?borrownet ([a-z]+)(.*)$`)
	longFlag    = regexp.MustCompile(`--[a-z][a-z0-9-]*`)
)

// wordsOf returns "VERB" and "VERB --flag" of each command line in a text.
func wordsOf(text string) []string {
	var out []string
	for _, m := range commandLine.FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
		rest, _, _ := strings.Cut(m[2], " -- ") // what follows is another program's
		rest, _, _ = strings.Cut(rest, "#")
		rest, _, _ = strings.Cut(rest, "|")
		for _, f := range longFlag.FindAllString(rest, -1) {
			out = append(out, m[1]+" "+f)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
