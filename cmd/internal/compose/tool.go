package compose

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"github.com/borrownet/borrownet/cmd/internal/fault"
)

// Tool is a compose command: docker-compose, or `docker compose`.
type Tool struct{ argv []string }

// FindTool returns the compose command of this machine: Docker's plugin before
// the older program.
func FindTool(ctx context.Context) (Tool, error) {
	if docker, err := exec.LookPath("docker"); err == nil && exec.CommandContext(ctx, docker, "compose", "version").Run() == nil {
		return Tool{[]string{docker, "compose"}}, nil
	}
	if old, err := exec.LookPath("docker-compose"); err == nil {
		return Tool{[]string{old}}, nil
	}
	return Tool{}, &fault.Error{Code: fault.Engine, ID: "BN2205", Op: "find a compose tool", Reason: "there is neither `docker compose` nor docker-compose",
		Hint: "on Debian: sudo apt install docker-compose; else Docker's plugin docker-compose-plugin"}
}

// String is what a person types.
func (t Tool) String() string {
	return strings.Join(append([]string{filepath.Base(t.argv[0])}, t.argv[1:]...), " ")
}

// Files says which files make up a project, as the tool's own flags do.
type Files struct {
	Files     []string
	Project   string
	Directory string
	Profiles  []string
	EnvFile   string
}

// args are the tool's flags, but for the project's name.
func (f Files) args() []string {
	var out []string
	for _, file := range f.Files {
		out = append(out, "-f", file)
	}
	for _, p := range f.Profiles {
		out = append(out, "--profile", p)
	}
	if f.Directory != "" {
		out = append(out, "--project-directory", f.Directory)
	}
	if f.EnvFile != "" {
		out = append(out, "--env-file", f.EnvFile)
	}
	return out
}

// Config returns what the files say, all of it, in the tool's own words.
func (t Tool) Config(ctx context.Context, f Files) ([]byte, error) {
	args := append(f.args(), "config")
	if f.Project != "" {
		args = append([]string{"-p", f.Project}, args...)
	}
	cmd := exec.CommandContext(ctx, t.argv[0], append(t.argv[1:len(t.argv):len(t.argv)], args...)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err == nil {
		return out, nil
	}
	if _, exit := errors.AsType[*exec.ExitError](err); !exit {
		return nil, err
	}
	return nil, &fault.Error{Code: fault.Usage, Op: "read the compose file", Reason: strings.TrimSpace(said.String()), Err: err,
		Hint: t.String() + " " + strings.Join(args, " ")}
}

// Run runs a command of the tool on a file of ours and returns its exit code.
func (t Tool) Run(file string, f Files, words []string) (int, error) {
	args := []string{"-p", f.Project, "-f", file}
	for _, p := range f.Profiles {
		args = append(args, "--profile", p)
	}
	if f.Directory != "" {
		args = append(args, "--project-directory", f.Directory)
	}
	cmd := exec.Command(t.argv[0], append(append(t.argv[1:len(t.argv):len(t.argv)], args...), words...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// What the terminal sends reaches the tool too, and is for it to heed. It must not
	// be ignored here: the tool would inherit that.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() { // ends with the tool
		for {
			select {
			case s := <-signals:
				if s != syscall.SIGINT {
					_ = cmd.Process.Signal(s) // sent to this process alone, perhaps
				}
			case <-ended:
				return
			}
		}
	}()
	err := cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if exit.ExitCode() < 0 {
			return 130, nil // a signal
		}
		return exit.ExitCode(), nil
	}
	return 0, err
}

// notPlain are the characters that names of projects do not have.
var notPlain = regexp.MustCompile(`[^a-z0-9_-]`)

// ProjectName is the name that the tools give a project that has none: that of
// its directory.
func ProjectName(f Files, env string) (string, error) {
	if f.Project != "" {
		return f.Project, nil
	}
	if env != "" {
		return env, nil
	}
	dir := f.Directory
	if dir == "" && len(f.Files) > 0 {
		dir = filepath.Dir(f.Files[0])
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	name := strings.TrimLeft(notPlain.ReplaceAllString(strings.ToLower(filepath.Base(abs)), ""), "_-")
	if name == "" {
		name = "default"
	}
	return name, nil
}
