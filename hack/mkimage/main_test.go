package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	dir := t.TempDir()
	src := filepath.Join(dir, "x")
	if err := os.WriteFile(src, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	build := func(name string) []byte {
		out := filepath.Join(dir, name)
		var stdout bytes.Buffer
		err := run([]string{"-ref", "lab.example.org/x:1", "-o", out, "-entrypoint", "/x", "-arch", "arm64", "-user", "1:2",
			"-env", "A=B", "-file", src + ":/x:0555:7", "-dir", "/tmp:1777"}, &stdout)
		if err != nil {
			t.Fatal(err)
		}
		if got := stdout.String(); !strings.HasPrefix(got, "lab.example.org/x:1@sha256:") {
			t.Errorf("printed %q", got)
		}
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if !bytes.Equal(build("a.tar"), build("b.tar")) {
		t.Error("two runs gave different images")
	}
	left, err := filepath.Glob(filepath.Join(dir, ".mkimage-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

func TestRunRefuses(t *testing.T) {
	out := filepath.Join(t.TempDir(), "x.tar")
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"no-output", []string{"-ref", "example.org/x:1"}, "usage"},
		{"no-dst", []string{"-o", out, "-file", "x"}, "want src:dst"},
		{"mode", []string{"-o", out, "-file", "x:/x:9"}, "mode"},
		{"extra", []string{"-o", out, "-dir", "/x:755:1:2"}, "unexpected"},
		{"no-ref", []string{"-o", out, "-entrypoint", "/x"}, "NAME:TAG"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := run(tt.args, new(bytes.Buffer))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("an image was written")
			}
		})
	}
}
