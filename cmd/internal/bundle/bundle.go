// Package bundle finds the agent's programs that came with the client: static
// binaries beside it, one for each architecture, that --agent-image target
// sends into a pod. They are not part of the client, which stays small, and
// which a plain `go build` makes.
package bundle

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/borrownet/borrownet/agent/kube"
)

// name is that of the agent for the client's own architecture; with -linux-ARCH
// behind it, it is that for another one.
const name = "borrownet-agent"

// maxSize bounds a binary, in bytes.
const maxSize = 256 << 20

// machines are the architectures that an agent can be for.
var machines = map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64"}

// Find returns the agents beside this program, at most one for each
// architecture, in the order of their names. Having none is no error.
func Find() ([]kube.Binary, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return nil, err
	}
	return In(filepath.Dir(self))
}

// In returns the agents in dir, as Find does.
func In(dir string) ([]kube.Binary, error) {
	paths, err := filepath.Glob(filepath.Join(escape(dir), name+"-linux-*"))
	if err != nil {
		return nil, err
	}
	slices.Sort(paths)
	var found []kube.Binary
	for _, path := range append([]string{filepath.Join(dir, name)}, paths...) {
		b, err := read(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("agent %s: %w", path, err)
		}
		if !slices.ContainsFunc(found, func(have kube.Binary) bool { return have.Arch == b.Arch }) {
			found = append(found, b)
		}
	}
	slices.SortFunc(found, func(a, b kube.Binary) int { return strings.Compare(a.Arch, b.Arch) })
	return found, nil
}

// escape makes a path that a pattern matches as it is.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// read describes the binary at path.
func read(path string) (kube.Binary, error) {
	f, err := os.Open(path)
	if err != nil {
		return kube.Binary{}, err
	}
	defer f.Close()
	arch, err := archOf(f)
	if err != nil {
		return kube.Binary{}, err
	}
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(f, maxSize+1))
	if err == nil && n > maxSize {
		err = fmt.Errorf("more than %d bytes", maxSize)
	}
	return kube.Binary{Arch: arch, Path: path, Size: n, SHA256: hex.EncodeToString(sum.Sum(nil))}, err
}

// archOf returns the architecture of a binary that runs without any library.
func archOf(f io.ReaderAt) (string, error) {
	file, err := elf.NewFile(f)
	if err != nil {
		return "", fmt.Errorf("no program for Linux: %w", err)
	}
	arch, ok := machines[file.Machine]
	if !ok {
		return "", fmt.Errorf("for a machine that agents do not run on: %v", file.Machine)
	}
	if slices.ContainsFunc(file.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return "", errors.New("not static: it was built with cgo, `make build` builds it without")
	}
	return arch, nil
}
