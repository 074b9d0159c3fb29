//go:build !linux

package hook

import "errors"

// Installed are the paths of what make built, as files that programs can load.
type Installed struct{ Library, Enter string }

// Install returns an error: the library is for Linux.
func Install(...string) (Installed, error) { return Installed{}, errors.ErrUnsupported }

// BlindError says that the preload library cannot see what a program does.
type BlindError struct{ Path, Why string }

func (e *BlindError) Error() string { return e.Path + " " + e.Why + "; preload cannot see it" }

// Visible reports that it cannot see any.
func Visible(path string) error { return &BlindError{Path: path, Why: "is not a program of Linux"} }
