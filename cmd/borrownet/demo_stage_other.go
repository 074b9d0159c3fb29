//go:build !linux

package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"runtime"

	"github.com/borrownet/borrownet/cmd/internal/fault"
)

// stage is what the demo happens in, which is Linux.
type stage struct{}

func newStage(bool) (*stage, error) {
	return nil, &fault.Error{Code: fault.Hook, ID: "BN2106", Op: "show the demo", Reason: "it wraps programs, which is possible on Linux only, and this is " + runtime.GOOS,
		Hint: "make demo, in a Linux virtual machine; with a cluster: borrownet up --pod NAME, then borrownet forward"}
}

func (*stage) open(string, *slog.Logger) error { return errors.ErrUnsupported }

func (*stage) play(context.Context, []string, io.Writer) (said string, code int, err error) {
	return "", 0, errors.ErrUnsupported
}

func (*stage) exports() []string { return nil }

func (*stage) strike() error { return nil }
