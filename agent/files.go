package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/borrownet/borrownet/agent/wire"
)

// Volumes are the directories whose files the client may have.
type Volumes interface {
	// Open opens the volume that is mounted at path, and nothing else.
	Open(path string) (*os.Root, error)
}

// Bounds of one volume. Secrets and ConfigMaps have 1 MiB at most.
const (
	maxVolumeFiles = 1000
	maxVolumeBytes = 8 << 20
)

// errTooLarge says that a volume is none that the kubelet makes.
var errTooLarge = fmt.Errorf("more than %d files or %d bytes", maxVolumeFiles, maxVolumeBytes)

// files reads the volume at root. A client that has its version gets no files.
func (a *Agent) files(root, have string) (wire.Files, error) {
	if a.cfg.Volumes == nil {
		return wire.Files{}, errors.New("this agent has no files")
	}
	dir, err := a.cfg.Volumes.Open(root)
	if err != nil {
		return wire.Files{}, err
	}
	defer dir.Close()
	out, err := readWhole(dir)
	if err != nil {
		return wire.Files{}, fmt.Errorf("read %s: %w", root, err)
	}
	if out.Version == have {
		out.Files = nil
	}
	return out, nil
}

const (
	// inForce is the link in a kubelet's volume to the version of its files that is in force.
	inForce = "..data"
	// readTries is how often a volume is read that changes meanwhile.
	readTries = 5
)

// errChanging says that a volume does not keep still. The client keeps what it has.
var errChanging = errors.New("it changes faster than it can be read")

// readWhole is readVolume without files of two versions: the kubelet may replace a volume
// between two of them, and removes those of before.
func readWhole(dir *os.Root) (wire.Files, error) {
	for range readTries {
		before, _ := dir.Readlink(inForce) // a volume that is not the kubelet's has none
		out, err := readVolume(dir)
		if after, _ := dir.Readlink(inForce); after == before {
			return out, err
		}
	}
	return wire.Files{}, errChanging
}

// readVolume reads all files beneath dir. The kubelet replaces them all at once
// by changing a link, so names that begin with two dots are its own.
func readVolume(dir *os.Root) (wire.Files, error) {
	var out wire.Files
	size := 0
	sum := sha256.New()
	var walk func(at string) error
	walk = func(at string) error {
		d, err := dir.Open(at)
		if err != nil {
			return err
		}
		entries, err := d.ReadDir(-1)
		d.Close()
		if err != nil {
			return err
		}
		slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
		for _, e := range entries {
			name := path.Join(at, e.Name())
			if strings.HasPrefix(e.Name(), "..") {
				continue
			}
			info, err := dir.Stat(name) // through the kubelet's links
			if err == nil && info.IsDir() {
				err = walk(name)
			} else if err == nil {
				err = read(dir, name, info, &out, &size)
			}
			switch {
			case errors.Is(err, errTooLarge):
				return err
			case err != nil:
				out.Skipped = append(out.Skipped, name+": "+reason(err))
				out.Denied = out.Denied || errors.Is(err, fs.ErrPermission)
			}
		}
		return nil
	}
	if err := walk("."); err != nil {
		return wire.Files{}, err
	}
	for _, f := range out.Files {
		fmt.Fprintf(sum, "%q %d\n", f.Name, len(f.Data))
		sum.Write(f.Data)
	}
	fmt.Fprintf(sum, "%q", out.Skipped)
	out.Version = hex.EncodeToString(sum.Sum(nil)[:16])
	return out, nil
}

// read adds one file to out.
func read(dir *os.Root, name string, info fs.FileInfo, out *wire.Files, size *int) error {
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	f, err := dir.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	left := maxVolumeBytes - *size
	data, err := io.ReadAll(io.LimitReader(f, int64(left)+1))
	if err != nil {
		return err
	}
	if len(data) > left || len(out.Files) == maxVolumeFiles {
		return errTooLarge
	}
	*size += len(data)
	out.Files = append(out.Files, wire.File{Name: name, Data: data})
	return nil
}

// reason is an error without the name that it is about.
func reason(err error) string {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Sprintf("the agent may not read it, being uid %d", os.Getuid())
	}
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}
