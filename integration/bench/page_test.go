package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPagesShowResults: a table in a page of docs is the one of the results that it
// names, which hack/bench.sh writes.
func TestPagesShowResults(t *testing.T) {
	const docs = "../../docs"
	marker := regexp.MustCompile(`<!-- begin: ([a-z-]+\.json) -->`)
	pages, err := filepath.Glob(filepath.Join(docs, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	tables := 0
	for _, file := range pages {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range marker.FindAllStringSubmatch(string(text), -1) {
			tables++
			want, err := markdown(filepath.Join(docs, "benchmarks", m[1]))
			if err != nil {
				t.Errorf("%s: %v", file, err)
				continue
			}
			_, got, _, err := cutTable(string(text), m[1])
			if err != nil || got != want {
				t.Errorf("%s does not show %s (%v): go run ./integration/bench page docs/benchmarks/%[2]s %[1]s", file, m[1], err)
			}
		}
	}
	if tables == 0 {
		t.Error("no page shows any results")
	}
}

func TestPage(t *testing.T) {
	dir := t.TempDir()
	results, file := filepath.Join(dir, "live.json"), filepath.Join(dir, "page.md")
	for name, text := range map[string]string{
		results: `{"commit":"c","machine":"m","date":"d","rows":[{"id":"live.moving.p50","subject":"borrownet","value":1.5,"unit":"%","min":-2,"max":4,"n":12,"low":-1,"high":3,"bar":"within ± 10","held":true,"verdict":"within noise"}]}`,
		file:    "# Page\n\n<!-- begin: live.json -->\nold\n<!-- end: live.json -->\nrest\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := page([]string{results, file}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"# Page\n\n<!-- begin: live.json -->\nm; d, commit c.\n",
		"| `live.moving.p50` | borrownet | 1.5 | -2 to 4 | -1.0 to 3.0 | % | 12 | within ± 10 | yes, within noise |\n<!-- end: live.json -->\nrest\n",
	} {
		if !strings.Contains(string(got), want) {
			t.Errorf("page has no %q:\n%s", want, got)
		}
	}
	if strings.Contains(string(got), "old") {
		t.Errorf("the old table is still there:\n%s", got)
	}
	if err := page([]string{filepath.Join(dir, "none.json"), file}); err == nil {
		t.Error("results that are not there: no error")
	}
	if _, _, _, err := cutTable("text", "live.json"); err == nil {
		t.Error("a page without the comments: no error")
	}
}
