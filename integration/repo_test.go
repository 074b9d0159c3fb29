//go:build !lab

package integration

import (
	"bufio"
	"bytes"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/borrownet/borrownet"

// root is the checkout; go test runs in the package's directory.
const root = ".."

// files returns the paths, relative to root, of all files of the project: what git
// tracks or would track, or everything where there is no git.
func files(t *testing.T) []string {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	if out, err := cmd.Output(); err == nil {
		var list []string
		seen := map[string]bool{}
		for line := range strings.Lines(string(out)) {
			name := strings.TrimSpace(line)
			if info, err := os.Stat(filepath.Join(root, name)); err == nil && info.Mode().IsRegular() {
				list = append(list, name)
			}
			// Read for the test cache: it knows of new files only by directories we opened.
			if dir := filepath.Dir(name); !seen[dir] {
				seen[dir] = true
				_, _ = os.ReadDir(filepath.Join(root, dir))
			}
		}
		return list
	}
	var list []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		switch {
		case err != nil:
			return err
		case d.IsDir() && (rel == ".git" || rel == "bin"):
			return filepath.SkipDir
		case d.Type().IsRegular():
			list = append(list, filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// goFile is one parsed Go file of the project.
type goFile struct {
	name string // relative to root
	dir  string
	test bool
	ast  *ast.File
}

// goFiles parses every Go file, those of nested modules too.
func goFiles(t *testing.T, mode parser.Mode) []goFile {
	t.Helper()
	var list []goFile
	fset := token.NewFileSet()
	for _, name := range files(t) {
		if !strings.HasSuffix(name, ".go") || strings.Contains(name, "/testdata/") {
			continue
		}
		tree, err := parser.ParseFile(fset, filepath.Join(root, name), nil, mode)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		list = append(list, goFile{name: name, dir: filepath.ToSlash(filepath.Dir(name)), test: strings.HasSuffix(name, "_test.go"), ast: tree})
	}
	return list
}

func TestGofmt(t *testing.T) {
	for _, name := range files(t) {
		if !strings.HasSuffix(name, ".go") {
			continue
		}
		text := readFile(t, name)
		formatted, err := format.Source([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if string(formatted) != text {
			t.Errorf("%s is not formatted; run `make fmt`", name)
		}
	}
}

func TestPackageDocs(t *testing.T) {
	docs := map[string][]string{} // directory -> files with a package comment
	names := map[string]string{}  // directory -> package name
	firsts := map[string]string{} // directory -> first words
	for _, f := range goFiles(t, parser.ParseComments|parser.PackageClauseOnly) {
		if f.test {
			continue
		}
		names[f.dir] = f.ast.Name.Name
		if f.ast.Doc != nil && strings.TrimSpace(f.ast.Doc.Text()) != "" {
			docs[f.dir] = append(docs[f.dir], f.name)
			firsts[f.dir] = f.ast.Doc.Text()
		}
	}
	for dir, name := range names {
		switch {
		case len(docs[dir]) == 0:
			t.Errorf("%s: package %s has no package comment", dir, name)
		case len(docs[dir]) > 1:
			t.Errorf("%s: package comment in more than one file: %v", dir, docs[dir])
		case name == "main" && !regexp.MustCompile(`^(Command )?[A-Z]?[a-z0-9-]+ `).MatchString(firsts[dir]):
			t.Errorf("%s: the comment of a command starts with its name: %q", dir, firstLine(firsts[dir]))
		case name != "main" && !strings.HasPrefix(firsts[dir], "Package "+name+" "):
			t.Errorf("%s: package comment does not start with %q: %q", dir, "Package "+name, firstLine(firsts[dir]))
		}
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// longFiles are the files over the limit and why each is still one thing.
var longFiles = map[string]string{}

func TestFilesAreShort(t *testing.T) {
	const limit = 600
	for _, name := range files(t) {
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		n := strings.Count(readFile(t, name), "\n")
		if _, known := longFiles[name]; n > limit && !known {
			t.Errorf("%s has %d lines, more than %d: split it, or give the reason in longFiles", name, n, limit)
		}
	}
}

func TestNoGrabBags(t *testing.T) {
	bad := []string{"util", "utils", "common", "helper", "helpers", "types", "models", "pkg", "misc"}
	for _, f := range goFiles(t, parser.PackageClauseOnly) {
		for part := range strings.SplitSeq(f.dir, "/") {
			if slices.Contains(bad, part) {
				t.Errorf("%s: %q says nothing; name it after what it holds", f.name, part)
			}
		}
	}
}

// TestNoForeignPlaces keeps the places of a developer's machine and of package
// registries out of the tree. The patterns are put together so as not to match here.
func TestNoForeignPlaces(t *testing.T) {
	places := regexp.MustCompile(`/wo` + `rk/|/(ho` + `me|Us` + `ers)/[a-z]+/|\b(pro` + `xy|d` + `eb|in` + `dex|fi` + `les)\.[a-z]+\.(org|io)\b`)
	const annotation = "pro" + "xy.istio.io/config" // of pods, no place
	for _, name := range files(t) {
		if filepath.Base(name) == "go.sum" {
			continue
		}
		text := strings.ReplaceAll(readFile(t, name), annotation, "")
		if strings.ContainsRune(text, 0) {
			continue // not text
		}
		number := 0
		for line := range strings.Lines(text) {
			number++
			if m := places.FindString(line); m != "" {
				t.Errorf("%s:%d: %q", name, number, m)
			}
		}
	}
}

func TestShellScripts(t *testing.T) {
	for _, name := range files(t) {
		if !strings.HasSuffix(name, ".sh") {
			continue
		}
		text := readFile(t, name)
		info, err := os.Stat(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case info.Mode()&0o111 == 0:
			t.Errorf("%s is not executable", name)
		case !strings.HasPrefix(text, "#!/usr/bin/env bash\n") && !strings.HasPrefix(text, "#!/bin/sh\n"):
			t.Errorf("%s: no shebang", name)
		case strings.HasPrefix(text, "#!/usr/bin/env bash\n") && !strings.Contains(text, "\nset -euo pipefail\n"):
			t.Errorf("%s: no `set -euo pipefail`", name)
		case strings.HasPrefix(name, "hack/") && !strings.Contains(text, "-h"):
			t.Errorf("%s: no -h", name)
		}
		if out, err := exec.Command("bash", "-n", filepath.Join(root, name)).CombinedOutput(); err != nil {
			t.Errorf("%s: %s", name, out)
		}
	}
}

func TestMakefile(t *testing.T) {
	text := readFile(t, "Makefile")
	target := regexp.MustCompile(`^([a-z][a-z-]*):(.*)$`)
	recipe := 0
	current := ""
	scanner := bufio.NewScanner(strings.NewReader(text))
	for scanner.Scan() {
		line := scanner.Text()
		if m := target.FindStringSubmatch(line); m != nil && !strings.HasPrefix(m[2], "=") {
			current, recipe = m[1], 0
			if !strings.Contains(m[2], "## ") {
				t.Errorf("Makefile: target %s has no `## text` for make help", current)
			}
			if !strings.Contains(text, " "+current) {
				t.Errorf("Makefile: target %s is not in .PHONY", current)
			}
			continue
		}
		if strings.HasPrefix(line, "\t") {
			if recipe++; recipe == 4 {
				t.Errorf("Makefile: %s has more than three lines; move them to hack/%s.sh", current, current)
			}
		}
	}
	for _, m := range regexp.MustCompile(`hack/[a-z-]+\.sh`).FindAllString(text, -1) {
		if _, err := os.Stat(filepath.Join(root, m)); err != nil {
			t.Errorf("Makefile names %s: %v", m, err)
		}
	}
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip("make is not installed: its help is not run")
	}
	cmd := exec.Command("make", "-s")
	cmd.Dir = root
	help, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("make: %v\n%s", err, help)
	}
	for _, name := range []string{"build", "agent-image", "test", "test-lab", "lint", "fmt", "fuzz", "bench", "demo-cluster", "lab-up", "lab-down", "lab-run", "clean"} {
		if !bytes.Contains(help, []byte("  "+name+" ")) {
			t.Errorf("`make` does not list %s", name)
		}
	}
}
