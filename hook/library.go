package hook

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
)

// The files that make builds from hook/preload, if there is a C compiler; .keep
// stands in for them else.
//
//go:embed all:lib
var built embed.FS

// Their names.
const (
	libraryName = "libborrownet.so"
	enterName   = "borrownet-enter"
)

// ErrNotBuilt says that this program was built without the preload library.
var ErrNotBuilt = errors.New("the preload library is not part of this build")

// Built reports whether the preload library is part of this program: nil, or
// ErrNotBuilt.
func Built() error {
	for _, name := range []string{libraryName, enterName} {
		if _, err := fs.Stat(built, "lib/"+name); err != nil {
			return ErrNotBuilt
		}
	}
	return nil
}

// content returns a file that make built.
func content(name string) ([]byte, error) {
	b, err := built.ReadFile("lib/" + name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotBuilt
	}
	if err != nil {
		return nil, fmt.Errorf("read embedded %s: %w", name, err)
	}
	return b, nil
}
