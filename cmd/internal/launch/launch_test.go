package launch

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestShells starts every shell that this machine has: the person's own
// start-up file is read, the prompt is marked, and no file stays.
func TestShells(t *testing.T) {
	tests := []struct{ name, rc, own, show string }{
		{"bash", ".bashrc", "OWN=yes; PS1='own> '", `"${PROMPT_COMMAND[@]}"; eval "$PROMPT_COMMAND"; echo "$OWN|$PS1|"`},
		{"zsh", ".zshrc", "OWN=yes; PROMPT='own> '", `_borrownet_prompt; echo "$OWN|$PROMPT|$ZDOTDIR"`},
		{"sh", ".shrc", "OWN=yes; PS1='own> '", `echo "$OWN|$PS1|"`},
		{"fish", ".config/fish/config.fish", "set OWN yes; function fish_prompt; echo -n 'own> '; end", `echo "$OWN|"(fish_prompt)"|"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path, err := exec.LookPath(tt.name)
			if err != nil {
				t.Skipf("needs %s", tt.name)
			}
			home, dir := t.TempDir(), t.TempDir()
			rc := filepath.Join(home, tt.rc)
			if err := os.MkdirAll(filepath.Dir(rc), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(rc, []byte(tt.own+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv("ENV", rc)
			t.Setenv("ZDOTDIR", "")
			sh, err := NewShell(path, dir, "api")
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(sh.Argv[0], sh.Argv[1:]...)
			cmd.Env = append(append(os.Environ(), "HOME="+home, "PS1="), sh.Env...)
			cmd.Stdin = strings.NewReader(tt.show + "\nexit\n")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if pid, err := sh.Pid(); err != nil || pid != cmd.Process.Pid {
				t.Errorf("pid %d, %v, want %d", pid, err, cmd.Process.Pid)
			}
			if want := "yes|(borrownet:api) own> |"; !strings.Contains(string(out), want) {
				t.Errorf("no %q in\n%s", want, out)
			}
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Errorf("left %v", left)
			}
			if err := sh.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestUnusableShell(t *testing.T) {
	for _, path := range []string{"", "/nonexistent/shell", "/usr/sbin/nologin", "bash"} {
		sh, err := NewShell(path, t.TempDir(), "api")
		if err != nil {
			t.Fatal(err)
		}
		defer sh.Close()
		if sh.Argv[0] != "/bin/sh" {
			t.Errorf("%q: got %q", path, sh.Argv)
		}
	}
}
