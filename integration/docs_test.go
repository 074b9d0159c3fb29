//go:build !lab

package integration

import (
	"go/ast"
	"go/parser"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// mdLink finds [text](target) outside code spans; targets with a scheme are not ours.
var (
	mdLink   = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	codeSpan = regexp.MustCompile("`[^`]*`")
)

// prose calls f for every line of a Markdown file that stands outside code blocks.
func prose(text string, f func(number int, line string)) {
	fenced := false
	number := 0
	for line := range strings.Lines(text) {
		number++
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
			continue
		}
		if !fenced {
			f(number, strings.TrimRight(line, "\n"))
		}
	}
}

// anchors returns the anchors that GitHub gives a file's headings.
func anchors(text string) map[string]bool {
	set := map[string]bool{}
	drop := regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	prose(text, func(_ int, line string) {
		if title, ok := strings.CutPrefix(line, "#"); ok {
			title = strings.ToLower(strings.TrimSpace(strings.TrimLeft(title, "#")))
			set[strings.ReplaceAll(drop.ReplaceAllString(title, ""), " ", "-")] = true
		}
	})
	return set
}

func TestLocalLinks(t *testing.T) {
	for _, name := range files(t) {
		if !strings.HasSuffix(name, ".md") {
			continue
		}
		prose(readFile(t, name), func(number int, line string) {
			for _, m := range mdLink.FindAllStringSubmatch(codeSpan.ReplaceAllString(line, ""), -1) {
				target, err := url.Parse(m[1])
				if err != nil {
					t.Errorf("%s:%d: %v", name, number, err)
					continue
				}
				if target.Scheme != "" {
					continue
				}
				to := name
				if target.Path != "" {
					to = filepath.ToSlash(filepath.Join(filepath.Dir(name), target.Path))
				}
				info, err := os.Stat(filepath.Join(root, to))
				if err != nil {
					t.Errorf("%s:%d: link to %s: %v", name, number, m[1], err)
					continue
				}
				if target.Fragment != "" && !info.IsDir() && !anchors(readFile(t, to))[target.Fragment] {
					t.Errorf("%s:%d: %s has no heading %q", name, number, to, target.Fragment)
				}
			}
		})
	}
}

// testNames returns the tests, fuzz targets and benchmarks by "dir:Name", whatever
// their build tags, and the string literals of each test file for the names of subtests.
func testNames(t *testing.T) (names map[string]bool, literals map[string]map[string]bool) {
	names = map[string]bool{}
	literals = map[string]map[string]bool{}
	for _, f := range goFiles(t, parser.SkipObjectResolution) {
		if !f.test {
			continue
		}
		if literals[f.dir] == nil {
			literals[f.dir] = map[string]bool{}
		}
		for _, decl := range f.ast.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && regexp.MustCompile(`^(Test|Fuzz|Benchmark)`).MatchString(fn.Name.Name) {
				names[f.dir+":"+fn.Name.Name] = true
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok {
				literals[f.dir][strings.Trim(lit.Value, "\"`")] = true
			}
			return true
		})
	}
	return names, literals
}

// proofTiers are what the second column of docs/proof.md may say.
var proofTiers = map[string]bool{"fast": true, "race": true, "hook": true, "bench": true, "lab": true, "mesh": true, "docker": true, "none": true}

var proofName = regexp.MustCompile("^(bench:[a-z0-9.-]+|[a-z0-9/_.-]+:(Test|Fuzz|Benchmark)[A-Za-z0-9_]*(/[^`]+)?)$")

// TestProofNamesTests keeps docs/proof.md honest. A row is
// "| promise | tier | `package/dir:TestName`, `bench:row`, … |"; the tier "none" is for promises
// that nothing proves yet, and then the last column says why.
func TestProofNamesTests(t *testing.T) {
	names, literals := testNames(t)
	bars := readFile(t, "integration/bench/bars.go")
	rows := 0
	prose(readFile(t, "docs/proof.md"), func(number int, line string) {
		cells := strings.Split(strings.Trim(line, "| "), "|")
		if !strings.HasPrefix(line, "|") || len(cells) != 3 || strings.HasPrefix(strings.TrimSpace(cells[1]), "--") || strings.TrimSpace(cells[1]) == "tier" {
			return
		}
		rows++
		tier := strings.TrimSpace(cells[1])
		if !proofTiers[tier] {
			t.Errorf("docs/proof.md:%d: unknown tier %q", number, tier)
		}
		named := 0
		for _, span := range codeSpan.FindAllString(cells[2], -1) {
			name := strings.Trim(span, "`")
			if !proofName.MatchString(name) {
				continue
			}
			named++
			dir, fn, _ := strings.Cut(name, ":")
			if dir == "bench" {
				if !strings.Contains(bars, `"`+fn+`"`) {
					t.Errorf("docs/proof.md:%d: the bench has no row %s", number, fn)
				}
				continue
			}
			fn, sub, _ := strings.Cut(fn, "/")
			if !names[dir+":"+fn] {
				t.Errorf("docs/proof.md:%d: there is no test %s in %s", number, fn, dir)
			} else if sub != "" && !literals[dir][sub] {
				t.Errorf("docs/proof.md:%d: %s has no subtest %q", number, fn, sub)
			}
		}
		if named == 0 && tier != "none" {
			t.Errorf("docs/proof.md:%d: no proof is named for %q", number, strings.TrimSpace(cells[0]))
		}
	})
	if rows == 0 {
		t.Error("docs/proof.md has no rows")
	}
}

// TestPitfallsNameTests: docs/pitfalls.md names only tests and benchmark rows that
// there are, and says something of each failure.
func TestPitfallsNameTests(t *testing.T) {
	names, _ := testNames(t)
	bars := readFile(t, "integration/bench/bars.go")
	rows := 0
	prose(readFile(t, "docs/pitfalls.md"), func(number int, line string) {
		cells := strings.Split(strings.Trim(line, "| "), "|")
		if !strings.HasPrefix(line, "|") || len(cells) != 2 || strings.HasPrefix(cells[0], "**") {
			return
		}
		rows++
		for _, span := range codeSpan.FindAllString(cells[1], -1) {
			name := strings.Trim(span, "`")
			if !proofName.MatchString(name) {
				continue
			}
			dir, fn, _ := strings.Cut(name, ":")
			fn, _, _ = strings.Cut(fn, "/")
			if dir == "bench" && !strings.Contains(bars, `"`+fn+`"`) || dir != "bench" && !names[dir+":"+fn] {
				t.Errorf("docs/pitfalls.md:%d: there is no %s", number, name)
			}
		}
	})
	if rows < 20 {
		t.Errorf("docs/pitfalls.md has %d rows", rows)
	}
}
