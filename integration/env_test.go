//go:build !lab

package integration

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// shellScript goes in and out of a session in one shell, by hand and by following.
const shellScript = `
show() { curl -sS -m 60 http://orders 2>&1 | grep -o '"remote": "[0-9.]*\|Could not resolve' || echo nothing; }
eval "$($BN env --shell bash)"
echo "env: $(show) $BORROWNET_SESSION"
echo "run: $($BN run -- sh -c 'echo ${LD_PRELOAD:-clean}')"
eval "$($BN env --shell bash --unset)"
echo "unset: $(show) [$BORROWNET_SESSION$LD_PRELOAD$BORROWNET_UNDO]"
eval "$($BN env --shell bash --follow)"
_borrownet_follow
echo "follow: $(show) $BORROWNET_SESSION"
$BN down
_borrownet_follow
echo "down: $(show) [$BORROWNET_SESSION$LD_PRELOAD]"
`

// TestShellEnv makes a running shell part of a session and takes it out again.
func TestShellEnv(t *testing.T) {
	for _, need := range []string{"bash", "curl"} {
		if _, err := exec.LookPath(need); err != nil {
			t.Skipf("needs %s", need)
		}
	}
	asUsers(t, func(t *testing.T, p *demoPlace) {
		k := p.keep()
		defer k.end()
		out, code := p.run("env", "--shell", "bash")
		switch {
		case code != 0 && strings.Contains(out, "not part of this build"):
			p.unavailable("preload", out)
		case code != 0:
			t.Fatalf("exit code %d\n%s", code, out)
		}
		defer p.forgetLibrary()
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		defer cancel()
		cmd := p.command(ctx, "-c", shellScript)
		if p.confined { // sh -c SCRIPT sh borrownet -c …
			cmd.Args[len(cmd.Args)-3] = "bash"
		} else {
			cmd.Path, cmd.Args[0] = bashPath(t), "bash"
		}
		cmd.Env = append(cmd.Env, "BN="+p.bin)
		said, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, said)
		}
		for _, want := range []string{
			`env: "remote": "192.0.2.10 api`, "run: clean", "unset: Could not resolve []", `follow: "remote": "192.0.2.10 api`, "down: Could not resolve []",
		} {
			if !strings.Contains(string(said), want+"\n") {
				t.Errorf("it does not say %q:\n%s", want, said)
			}
		}
	})
}

// forgetLibrary removes the library, which stays because programs may outlive their
// session.
func (p *demoPlace) forgetLibrary() {
	dirs, err := filepath.Glob(filepath.Join(p.dir, "borrownet", "lib-*"))
	if err != nil || len(dirs) != 1 {
		p.t.Errorf("the library is in %q, %v", dirs, err)
	}
	for _, dir := range dirs {
		if err := os.RemoveAll(dir); err != nil {
			p.t.Error(err)
		}
	}
}

func bashPath(t *testing.T) string {
	path, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err)
	}
	return path
}
