package hook

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/borrownet/borrownet/hook/hooktest"
)

// TestParsers feeds the parts of the library that read foreign bytes with broken
// ones, under the address and undefined-behaviour sanitizers.
func TestParsers(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		hooktest.Unavailable(t, "cc", err)
	}
	shell, err := exec.LookPath("sh")
	if err != nil {
		hooktest.Unavailable(t, "sh", err)
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "parsers")
	build := exec.Command(cc, "-std=c11", "-D_GNU_SOURCE", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-o", program,
		"tests/parsers.c", "dns.c", "image.c")
	build.Dir = "preload"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := exec.Command(program, filepath.Join(dir, "file"), shell).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
