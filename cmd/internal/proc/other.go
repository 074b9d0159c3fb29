//go:build !linux

package proc

import "errors"

// Listener returns an error: who listens cannot be found out.
func Listener(string) (pid int, err error) { return 0, errors.ErrUnsupported }

// Below returns an error: who is whose descendant cannot be found out.
func Below(int, int) (bool, error) { return false, errors.ErrUnsupported }
