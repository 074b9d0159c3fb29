package launch

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestUndo(t *testing.T) {
	laptop := []string{"PATH=/bin", "DB=laptop", "http_proxy=x"}
	changed := []string{"PATH=/bin", "DB=pod", "GREETING=hello"}
	env := WithUndo(laptop, changed)
	if got, ok := Original(laptop); ok || !slices.Equal(got, laptop) {
		t.Errorf("what was not changed was: %v, %v", got, ok)
	}
	got, ok := Original(append(env, "LATER=1"))
	slices.Sort(got)
	if diff := cmp.Diff([]string{"DB=laptop", "LATER=1", "PATH=/bin", "http_proxy=x"}, got); !ok || diff != "" {
		t.Errorf("%v (-want +got)\n%s", ok, diff)
	}
	if got, ok := Original([]string{UndoVar + "=broken", "A=1"}); ok || len(got) != 2 {
		t.Errorf("broken: %v, %v", got, ok)
	}
}

// TestChange lets every shell that is here read what is printed for it.
func TestChange(t *testing.T) {
	from := []string{"GONE=1", "SAME=1", "DB=laptop"}
	to := []string{"SAME=1", "DB=it's a \"pod\" $HOME `x` \\ \\' end", "LINES_=one\ntwo", "not a name=1"}
	for _, shell := range []string{"bash", "zsh", "sh", "dash", "fish"} {
		t.Run(shell, func(t *testing.T) {
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Skipf("needs %s", shell)
			}
			script := DialectOf(shell).Change(from, to) + "env"
			cmd := exec.Command(path, "-c", script)
			cmd.Env = append([]string{"PATH=/usr/bin:/bin", "HOME=" + t.TempDir()}, from...)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s\n%s", err, script, out)
			}
			for _, want := range []string{"SAME=1\n", "DB=it's a \"pod\" $HOME `x` \\ \\' end\n", "LINES_=one\ntwo\n"} {
				if !strings.Contains(string(out), want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
			if strings.Contains(string(out), "GONE") || strings.Contains(string(out), "not a name") {
				t.Errorf("too much in\n%s", out)
			}
		})
	}
}
