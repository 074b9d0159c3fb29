package supervisor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/borrownet/borrownet/hook/hooktest"
)

// TestCommandsInAView runs commands in mount, host name and, as an ordinary user,
// user namespaces of their own: the supervisor answers them all the same.
func TestCommandsInAView(t *testing.T) {
	dir := t.TempDir()
	for at := dir; at != os.TempDir() && at != "/"; at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"source", "scratch"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "source", "token"), []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dir, "self")
	program, err := os.ReadFile(hooktest.Self)
	if err == nil {
		err = os.WriteFile(copied, program, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(viewVar, dir)
	t.Setenv(selfVar, copied)
	t.Run("view", func(t *testing.T) {
		s := newSession(t)
		out, said, code := s.run(t, "sh", "-c", "cat /run/borrownet.test/view/token /borrownet.test/token /proc/sys/kernel/hostname")
		if want := "secretsecretin-a-view"; out != want || code != 0 {
			t.Errorf("exit code %d, %q, want %q\n%s", code, out, want, said)
		}
	})
	for name, f := range map[string]func(*testing.T){
		"sockets": TestSocketsAreTheSessions, "runtimes": TestRuntimes, "exit_codes": TestExitCodes, "errno": TestErrno, "interfaces": TestInterfacesAreThePods,
		"grandchild": TestDaemonisedGrandchild, "descriptors": TestInheritedDescriptors, "signals": TestSignals, "sandbox": TestSandboxKeepsItsOwnSockets,
	} {
		t.Run(name, f)
	}
}

// A view that cannot be made is said to be the reason, so that the command can be tried
// without one.
func TestViewFails(t *testing.T) {
	t.Setenv(viewVar, t.TempDir()) // in which there is nothing to show
	s := newSession(t)
	out, said, code := s.run(t, "echo", "executed")
	if out != "" || code != codeOurs || !strings.Contains(said, "error: change what the command sees: no such file or directory") {
		t.Errorf("exit code %d, %q, %q", code, out, said)
	}
}
