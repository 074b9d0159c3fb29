//go:build !lab

package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// environment checks what the environment of a program is made of, in a session
// of the demo's pod api that is up.
func (p *demoPlace) environment(t *testing.T) {
	t.Helper()
	file, out := filepath.Join(p.dir, "more.env"), filepath.Join(p.dir, "pod.json")
	if err := os.WriteFile(file, []byte("# more\nFROM_FILE=\"two words\"\nBOTH=file\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	said := p.must("run", "--env", "BOTH=flag", "--env-file", file, "--unset", "ORDERS_SERVICE_HOST", "--env-out", out, "--format", "json", "--", "env")
	for _, want := range []string{"APP_NAME=api\n", "LEDGER_SERVICE_PORT=", "FROM_FILE=two words\n", "BOTH=flag\n", "HOME=/nonexistent\n"} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in:\n%s", want, said)
		}
	}
	if strings.Contains(said, "ORDERS_SERVICE_HOST") {
		t.Errorf("what was unset is there:\n%s", said)
	}
	info, err := os.Stat(out)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %v", out, info.Mode())
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if got["APP_NAME"] != "api" || got["BOTH"] != "flag" || got["HOME"] != "" || got["ORDERS_SERVICE_HOST"] != "" {
		t.Errorf("written: %v", got)
	}
	none := filepath.Join(p.dir, "none", "file")
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--env", "1=x"}, 125, `--env "1=x" is not NAME=VALUE`},
		{[]string{"--format", "toml"}, 125, `format "toml" is none of dotenv, json, sh`},
		{[]string{"--env-file", none}, 125, "read " + none + ": no such file"},
		{[]string{"--env-out", none}, 125, "write the environment to " + none + ": no such file"},
		{[]string{"--pod-env", "NOT_THERE"}, 0, "warning: the pod has no variable NOT_THERE"},
	} {
		args := append(append([]string{"run"}, tt.args...), "--", "true")
		if said, code := p.run(args...); code != tt.code || !strings.Contains(said, tt.want) {
			t.Errorf("%q: exit code %d, want %d and %q:\n%s", args, code, tt.code, tt.want, said)
		}
	}
	for _, path := range []string{file, out} {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}
