package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"os"
)

// Sockets makes the sockets that programs get. It is used from one goroutine at
// a time and must answer within seconds: a program waits.
type Sockets interface {
	// Socket is socket(2); the error wraps the errno the program is to see.
	Socket(domain, typ, proto int) (fd int, err error)
}

// Config says what to run.
type Config struct {
	// Shim is the argument vector that ends in ShimMain, for example
	// [self, "__exec"]. It is required.
	Shim []string
	// Argv is the command. Argv[0] is looked up in PATH of Env. It is required.
	Argv []string
	// Env is the command's environment, nil means this process's.
	Env []string
	// Dir is the command's working directory, "" means this process's.
	Dir string
	// Stdin, Stdout and Stderr are the command's, nil means /dev/null.
	Stdin, Stdout, Stderr *os.File
	// Sockets makes the sockets that trapped calls get. It is required.
	Sockets Sockets
	// Logger may be nil: nothing is logged.
	Logger *slog.Logger
}

// Run runs the command and returns its exit code, 128+n if signal n ended it.
// It waits for the command and then for every process the command left behind,
// because the socket calls of those are answered here. An error means that the
// failure is ours (exit code 125) or that the command could not be executed
// (a *CommandError, exit code 126 or 127).
func Run(ctx context.Context, cfg Config) (exitCode int, err error) {
	return 125, errors.ErrUnsupported
}

// ShimMain installs the filter, hands its listener to Run and executes the
// command. It returns an exit code only when that was not possible.
func ShimMain(args []string) int { return 125 }

// Probe reports why a seccomp notification filter cannot be used here, nil if it can.
func Probe() error { return errors.ErrUnsupported }

// CommandError says that the command could not be executed.
type CommandError struct {
	Name string // as the user wrote it
	Code int    // 126 found but not executable, 127 not found
	Err  error
}

func (e *CommandError) Error() string { return e.Name + ": " + e.Err.Error() }

func (e *CommandError) Unwrap() error { return e.Err }
