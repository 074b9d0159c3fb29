//go:build lab

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// openTerminal starts argv on a terminal of its own.
func openTerminal(t *testing.T, dir string, argv ...string) *terminal {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TERM=dumb", "SHELL=/bin/bash")
	return startOnTerminal(t, cmd)
}

// enter types line and waits until its own marker is printed.
func (term *terminal) enter(line string, limit time.Duration) string {
	term.t.Helper()
	start := len(term.screen())
	marker := fmt.Sprintf("done-%d", time.Now().UnixNano())
	fmt.Fprintf(term.master, "%s; echo %s''%s\n", line, marker[:6], marker[6:])
	term.await(marker, limit)
	return term.screen()[start:]
}

// remote is where the sample app saw a call come from.
var remote = regexp.MustCompile(`"remote": "([^"]+)"`)

const staticMain = `package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	resp, err := http.Get("http://orders/" + os.Args[1])
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	io.Copy(os.Stdout, resp.Body)
}
`

// TestBorrowedShell types programs as they are into the shell that up opens.
func TestBorrowedShell(t *testing.T) {
	api := podOf(t, "api")
	dir := t.TempDir()
	for name, text := range map[string]string{"main.go": staticMain, "go.mod": "module example.org/call\n\ngo 1.26\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { exec.Command("borrownet", "down", "--all").Run() })
	term := openTerminal(t, dir, "borrownet", "up", "-n", "shop", "--pod", "api")
	term.await("(borrownet:api)", 2*time.Minute)
	for _, line := range []string{
		"curl -sS http://orders/curl",
		"go run . go-run",
		"CGO_ENABLED=0 go build -o static . && ./static static",
		"node -e \"fetch('http://orders/node').then(r => r.text()).then(console.log)\"",
	} {
		out := term.enter(line, 5*time.Minute) // the first compiles net/http
		if m := remote.FindStringSubmatch(out); m == nil || !api.has(m[1]) {
			t.Errorf("%s: orders did not see one of the pod's addresses %v:\n%s", line, api.Status.PodIPs, out)
		}
	}
	// Another terminal stays outside.
	if r := (command{argv: []string{"curl", "-sS", "--max-time", "5", "http://orders/"}}).run(t); r.code == 0 {
		t.Errorf("another terminal reaches orders: %v", r)
	}
	// Ctrl-C ends the program, not the shell.
	fmt.Fprint(term.master, "sleep 600\n")
	waitFor(t, "sleep runs", patience, func() bool { return exec.Command("pgrep", "-f", "^sleep 600$").Run() == nil })
	fmt.Fprint(term.master, "\x03")
	if out := term.enter("echo still $((40+2))", time.Minute); !strings.Contains(out, "still 42") {
		t.Errorf("after Ctrl-C:\n%s", out)
	}
	fmt.Fprint(term.master, "exit\n")
	if err := term.cmd.Wait(); err != nil {
		t.Errorf("up after the shell's exit: %v", err)
	}
	nothingLeft(t)
}
