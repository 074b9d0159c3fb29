//go:build !linux

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime"

	"github.com/borrownet/borrownet/hook/switchboard"
	"github.com/borrownet/borrownet/hook/view"
)

// Where there is no seccomp everything says so. What the types and functions are is said
// where they are of use.

func unsupported() error {
	return &UnsupportedError{
		Reason: "programs can be supervised on Linux only, and this is " + runtime.GOOS,
		Hint:   "borrownet forward works here; programs can be wrapped in a Linux virtual machine",
		Err:    errors.ErrUnsupported,
	}
}

// Sockets makes the sockets that programs get.
type Sockets interface {
	Socket(domain, typ, proto int) (fd int, err error)
}

// Ports makes what programs listen on reachable from the laptop.
type Ports interface {
	Publish(ctx context.Context, at netip.AddrPort, v6only bool) error
}

// Identity is whose sockets a process gets.
type Identity struct {
	Sockets Sockets
	Ports   Ports
	Addrs   []netip.Addr
	Remote  []uint16
	Mark    string
}

// Config says what to run.
type Config struct {
	Shim, Argv, Env       []string
	Dir                   string
	Stdin, Stdout, Stderr *os.File
	Identity
	Tree         *Tree
	AllowIOURing bool
	Connecting   func(path string) (first func())
	Relay        *switchboard.Client
	View         view.View
	Unhooked     bool
	Wrapper      []string
	Logger       *slog.Logger
}

// Tree knows which parts of a supervised tree have an identity of their own.
type Tree struct{}

// Add has nothing to do.
func (*Tree) Add(int, Identity) (remove func(clean bool)) { return func(bool) {} }

// CommandError says that the command could not be executed.
type CommandError struct {
	Name string
	Code int
	Err  error
}

func (e *CommandError) Error() string { return fmt.Sprintf("execute %s: %v", e.Name, e.Err) }

func (e *CommandError) Unwrap() error { return e.Err }

// ViewError says that the command could not be given its view.
type ViewError struct{ Err error }

func (e *ViewError) Error() string { return "change what the command sees: " + e.Err.Error() }

func (e *ViewError) Unwrap() error { return e.Err }

// exitOurs is the exit code of a run that did not get as far as the command.
const exitOurs = 125

// Run returns an *UnsupportedError.
func Run(context.Context, Config) (exitCode int, err error) { return exitOurs, unsupported() }

// RunInside returns an *UnsupportedError.
func RunInside(context.Context, Config) (exitCode int, err error) { return exitOurs, unsupported() }

// ShimMain fails.
func ShimMain([]string) int { return exitOurs }

// Probe returns an *UnsupportedError.
func Probe() error { return unsupported() }
