package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

func TestRun(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var texts [2][]byte
	for i := range texts {
		out := filepath.Join(dir, "bom.json")
		if err := run([]string{"-version", "v1", "-o", out, program}); err != nil {
			t.Fatal(err)
		}
		if texts[i], err = os.ReadFile(out); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(texts[0], texts[1]) {
		t.Error("two runs gave different files")
	}
	var b bom
	if err := json.Unmarshal(texts[0], &b); err != nil {
		t.Fatal(err)
	}
	if b.Format != "CycloneDX" || b.Metadata.Component.Version != "v1" || len(b.Metadata.Component.Hashes) != 1 || len(b.Components) == 0 || b.Components[0].Name != "std" {
		t.Errorf("%+v", b)
	}
	if err := run([]string{"-version", "v1", "-o", filepath.Join(dir, "x"), "main.go"}); err == nil {
		t.Error("a file that is no program is taken")
	}
	if err := run([]string{program}); err == nil {
		t.Error("no version is named, and it succeeds")
	}
}
