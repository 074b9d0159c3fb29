//go:build !linux

package capture

import (
	"context"
	"errors"
)

// Capture exists on Linux only.
type Capture struct{}

// Open returns an error.
func Open(Spec, string) (*Capture, error) { return nil, errors.ErrUnsupported }

// HelperMain fails.
func HelperMain() int { return 1 }

// Interfaces returns nothing.
func (*Capture) Interfaces() []string { return nil }

// Places returns nothing.
func (*Capture) Places() []Place { return nil }

// Counters returns nothing.
func (*Capture) Counters() Counters { return Counters{} }

// Run returns an error.
func (*Capture) Run(context.Context, func(Packet), func(uint64)) error { return errors.ErrUnsupported }
