package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestErrorNames: every name in the source is explained, and every explained one is
// in the source; names do not change their meaning silently.
func TestErrorNames(t *testing.T) {
	used := map[string]string{}
	for _, dir := range []string{"../../cmd", "../../agent/kube"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || d.Name() == "errorids.go" {
				return err
			}
			text, err := os.ReadFile(path)
			for _, id := range regexp.MustCompile(`"BN[0-9]{4}"`).FindAllString(string(text), -1) {
				used[strings.Trim(id, `"`)] = path
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	before := ""
	for _, e := range errorTable {
		if used[e.id] == "" {
			t.Errorf("nothing fails with %s", e.id)
		}
		delete(used, e.id)
		if codeMeaning(e.code()) == "unknown" {
			t.Errorf("%s: there is no exit code %d", e.id, e.code())
		}
		if e.id <= before || e.meaning == "" || len(e.look) == 0 {
			t.Errorf("%s: out of order, or says nothing", e.id)
		}
		before = e.id
	}
	for id, path := range used {
		t.Errorf("%s in %s is not explained", id, path)
	}
}
