//go:build !lab

package integration

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestCommandPages keeps docs/cli, which `make docs` writes, at what the program says.
func TestCommandPages(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "borrownet")
	build := exec.Command("go", "build", "-o", bin, "./cmd/borrownet")
	build.Dir = root
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, name := range files(t) {
		page, ok := strings.CutPrefix(name, "docs/cli/")
		if !ok || page == "README.md" {
			continue
		}
		page = strings.TrimSuffix(page, ".md")
		args := []string{"--help"}
		if page == "exit-codes" || page == "errors" || page == "variables" {
			args = []string{"help", page}
		} else if verb, ok := strings.CutPrefix(page, "borrownet-"); ok {
			args = append(strings.Split(verb, "-"), "--help")
		}
		out, err := exec.Command(bin, args...).CombinedOutput()
		if err != nil {
			t.Errorf("borrownet %s: %v\n%s", strings.Join(args, " "), err, out)
			continue
		}
		if want := "# " + page + "\n\n```\n" + string(out) + "```\n"; readFile(t, name) != want {
			t.Errorf("%s is not what `borrownet %s` says; run `make docs`", name, strings.Join(args, " "))
		}
	}
}
