//go:build !lab

package integration

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var updatePages = flag.Bool("update", false, "write docs/matrix.md and README.md's table of the rungs")

// TestMatrixPage compares what the documents say of the matrix with its table.
func TestMatrixPage(t *testing.T) {
	const begin, end = "<!-- begin: TestMatrixPage -->\n", "<!-- end: TestMatrixPage -->"
	readme := readFile(t, "README.md")
	before, rest, begun := strings.Cut(readme, begin)
	_, after, ended := strings.Cut(rest, end)
	if !begun || !ended {
		t.Fatal("README.md has no markers of TestMatrixPage")
	}
	for name, want := range map[string]string{"docs/matrix.md": matrixPage(), "README.md": before + begin + matrixOfRungs() + end + after} {
		if *updatePages {
			if err := os.WriteFile(filepath.Join(root, name), []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if text, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(text) != want {
			t.Errorf("%s is not what the matrix says; run `make docs`", name)
		}
	}
}

const matrixIntro = `# The conformance matrix

Programs of each runtime, unmodified, as an ordinary user, on each [rung](../README.md#the-rungs) of the hook, in a session of the
demo. ` + "`integration:TestMatrix`" + ` runs them (` + "`make test-hook`" + `) and fails where one of these cells does not hold; this page is written by
` + "`make docs`" + ` from the table that it uses.

| | |
|---|---|
| ● | all of it works |
| ◐ | works, but for what the letter says |
| ○ | does not work, for the reason at the letter |
| ✗ | programs of this kind are refused, by name |
| | the runtime has no such call, or its program does not try it |
`

const matrixOutro = `
## Not here

| | |
|---|---|
| Debuggers, servers that reload, build tools | ` + "`cmd/internal/demo:TestPrograms`" + ` |
| 32-bit programs | ` + "`hook/supervisor:TestOtherCallingConventions`, `cmd/internal/session:TestRelayCompat`" + ` |
| io_uring where it is allowed | ` + "`hook/supervisor:TestIOURingIsAllowed`" + ` |
| .NET, Ruby, PHP, Deno, Bun | untested |
| kernels other than the one that the tests run on, arm64 | untested |
`

func matrixPage() string {
	var b strings.Builder
	b.WriteString(matrixIntro)
	letters := map[*matrixLimit]string{}
	var reasons strings.Builder
	for i := range matrixLimits {
		l := &matrixLimits[i]
		letters[l] = string(rune('a' + i))
		fmt.Fprintf(&reasons, "| %s | %s | %s |\n", letters[l], strings.ReplaceAll(l.rungs, " ", ", "), l.why)
	}
	for _, rung := range matrixRungs {
		fmt.Fprintf(&b, "\n## %s\n\n| |", rung)
		for _, r := range matrixRuntimes {
			fmt.Fprintf(&b, " %s |", r.about)
		}
		b.WriteString("\n|---|" + strings.Repeat("---|", len(matrixRuntimes)) + "\n")
		for _, row := range matrixRows {
			fmt.Fprintf(&b, "| %s |", row.about)
			for _, r := range matrixRuntimes {
				fmt.Fprintf(&b, " %s |", matrixCell(row.name, r, rung, letters))
			}
			b.WriteString("\n")
		}
		if rung == "preload" {
			b.WriteString("\nThe library cannot be in Go programs and static ones: they get in as by `netns`, and are named.\n")
		}
	}
	if reasons.Len() > 0 {
		b.WriteString("\n## Reasons\n\n| | on | |\n|---|---|---|\n" + reasons.String())
	}
	return b.String() + matrixOutro
}

// matrixCell is the mark of a row's checks.
func matrixCell(row string, r *matrixRuntime, rung string, letters map[*matrixLimit]string) string {
	works, fails, why := 0, 0, ""
	for _, c := range matrixChecks {
		if !c.of(r) || !strings.HasPrefix(c.name, row+"/") {
			continue
		}
		l := limitOf(r.rung(rung), r.name, c.name)
		if l == nil {
			works++
			continue
		}
		fails++
		if !strings.Contains(why, letters[l]) {
			why += letters[l]
		}
	}
	switch {
	case works+fails == 0:
		return ""
	case r.rung(rung) == "":
		return "✗"
	case fails == 0:
		return "●"
	case works == 0:
		return "○ " + why
	}
	return "◐ " + why
}

// matrixPlaces says where a rung is the one that is taken.
var matrixPlaces = map[string]string{
	"seccomp": "Debian, Fedora, Arch, RHEL 9, WSL2; Ubuntu as root or with the AppArmor profile", "preload": "in podman, LXD or another `run`",
	"netns": "where it is asked for", "relay": "Ubuntu 23.10 and newer as a user; Docker, containerd", "preload-relay": "gVisor, strict sandboxes",
}

// matrixOfRungs is the matrix with all runtimes in one: README.md's table.
func matrixOfRungs() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| | %s |\n|---|%s\n| taken on |", strings.Join(matrixRungs, " | "), strings.Repeat("---|", len(matrixRungs)))
	for _, rung := range matrixRungs {
		fmt.Fprintf(&b, " %s |", matrixPlaces[rung])
	}
	b.WriteString("\n")
	for _, row := range matrixRows {
		fmt.Fprintf(&b, "| %s |", row.about)
		for _, rung := range matrixRungs {
			marks := map[string]bool{}
			for _, r := range matrixRuntimes {
				if cell := matrixCell(row.name, r, rung, nil); cell != "" && r.rung(rung) == rung {
					marks[strings.TrimSpace(cell)] = true
				}
			}
			mark := "◐"
			for only := range marks {
				if len(marks) == 1 {
					mark = only
				}
			}
			fmt.Fprintf(&b, " %s |", mark)
		}
		b.WriteString("\n")
	}
	return b.String()
}
