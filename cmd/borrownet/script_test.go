package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/borrownet/borrownet/hook/supervisor"
)

// TestMain makes the test binary the program under test.
func TestMain(m *testing.M) {
	program := func() {
		version = "v0.0.0-test"
		os.Exit(run(os.Args))
	}
	testscript.Main(m, map[string]func(){"borrownet": program, kubectlPlugin: program, kubectlCompletes: program})
}

// TestScript runs the command line as a person does, without a cluster.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(env *testscript.Env) error {
			// Paths of sockets are bounded: the script's own directory is too long.
			dir, err := os.MkdirTemp("", "bn")
			if err != nil {
				return err
			}
			env.Defer(func() { os.RemoveAll(dir) })
			env.Setenv("XDG_RUNTIME_DIR", dir)
			env.Setenv("KUBECONFIG", "/nonexistent/kubeconfig")
			env.Setenv("HOME", env.WorkDir)
			return nil
		},
		// "hook": programs can be supervised here.
		Condition: func(cond string) (bool, error) {
			if cond != "hook" {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			return supervisor.Probe() == nil, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exitcode": exitCode},
	})
}

// exitCode runs a command and wants its exit code: exitcode N COMMAND...
func exitCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exitcode N COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		var ok bool
		if got, ok = codeOf(err); !ok {
			ts.Fatalf("%v", err)
		}
	}
	if got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

// codeOf returns the exit code in an error of exec.
func codeOf(err error) (string, bool) {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return "", false
	}
	return strconv.Itoa(exit.ExitCode()), true
}
