package image

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// File is one entry of an image: a regular file, or a directory or symbolic
// link when Dir or Link says so. Directories above an entry are made with mode
// 0755 when nothing names them.
type File struct {
	Path string // in the image, absolute
	Mode int64  // permission bits; 0 = 0755
	UID  int
	GID  int

	Source string // file of this machine to copy, or
	Data   []byte // the contents, when Source is empty
	Link   string // not empty: a symbolic link to this
	Dir    bool   // a directory

	// Caps are the capabilities that a regular file gives to who executes it, a bit
	// each (capabilities(7)).
	Caps uint64
}

// CapNetRaw is the bit of CAP_NET_RAW in File.Caps.
const CapNetRaw = 1 << 13

// capability is the extended attribute that holds a file's capabilities, as tar
// (GNU's and Go's) and container runtimes spell it.
const capability = "SCHILY.xattr.security.capability"

// capabilityValue is its value: struct vfs_cap_data of linux/capability.h, version
// 2, with caps permitted and effective.
func capabilityValue(caps uint64) string {
	const version2, effective = 0x02000000, 1
	b := binary.LittleEndian.AppendUint32(nil, version2|effective)
	for _, word := range []uint32{uint32(caps), uint32(caps >> 32)} {
		b = binary.LittleEndian.AppendUint32(b, word) // permitted
		b = binary.LittleEndian.AppendUint32(b, 0)    // inheritable
	}
	return string(b)
}

func (f File) write(tw *tar.Writer) error {
	h := &tar.Header{
		Name:    strings.TrimPrefix(f.Path, "/"),
		Mode:    f.Mode,
		Uid:     f.UID,
		Gid:     f.GID,
		ModTime: time.Unix(0, 0),
	}
	switch {
	case f.Dir:
		h.Typeflag = tar.TypeDir
		h.Name += "/"
		return tw.WriteHeader(h)
	case f.Link != "":
		h.Typeflag = tar.TypeSymlink
		h.Mode = 0o777
		h.Linkname = f.Link
		return tw.WriteHeader(h)
	}
	h.Typeflag = tar.TypeReg
	if f.Caps != 0 {
		h.PAXRecords = map[string]string{capability: capabilityValue(f.Caps)}
	}
	if f.Source == "" {
		h.Size = int64(len(f.Data))
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		_, err := tw.Write(f.Data)
		return err
	}
	return copySource(tw, h, f.Source)
}

// copySource writes the host's file source under the header h.
func copySource(tw *tar.Writer, h *tar.Header, source string) error {
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", source)
	}
	h.Size = info.Size()
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(tw, in)
	return err
}

// layout cleans and sorts files and adds the directories above them. Parents
// sort before their children, as unpackers want them.
func layout(files []File) ([]File, error) {
	seen := map[string]bool{}
	var out []File
	for _, f := range files {
		if !path.IsAbs(f.Path) {
			return nil, fmt.Errorf("path %q in the image is not absolute", f.Path)
		}
		f.Path = path.Clean(f.Path)
		if f.Path == "/" {
			return nil, errors.New("the root directory cannot be an entry")
		}
		if seen[f.Path] {
			return nil, fmt.Errorf("path %s is given twice", f.Path)
		}
		seen[f.Path] = true
		if f.Mode == 0 {
			f.Mode = 0o755
		}
		out = append(out, f)
	}
	for _, f := range slices.Clone(out) {
		for d := path.Dir(f.Path); d != "/"; d = path.Dir(d) {
			if !seen[d] {
				seen[d] = true
				out = append(out, File{Path: d, Mode: 0o755, Dir: true})
			}
		}
	}
	slices.SortFunc(out, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

// Tree returns the entries that put everything under the directory source at
// dst in an image. Symbolic links stay links; owners are not kept, permission
// bits are.
func Tree(source, dst string) ([]File, error) {
	var out []File
	err := filepath.WalkDir(source, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(source, name)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		f := File{Path: path.Join(dst, filepath.ToSlash(rel)), Mode: int64(info.Mode().Perm())}
		switch {
		case d.IsDir():
			f.Dir = true
		case d.Type() == fs.ModeSymlink:
			if f.Link, err = os.Readlink(name); err != nil {
				return err
			}
		case d.Type().IsRegular():
			f.Source = name
		default:
			return fmt.Errorf("%s is neither file, directory nor symbolic link", name)
		}
		if f.Path != "/" {
			out = append(out, f)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read tree %s: %w", source, err)
	}
	return out, nil
}

// buildLayer packs files, with the directories above them, into a tar.
func buildLayer(files []File) ([]byte, error) {
	entries, err := layout(files)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, e := range entries {
		if err := e.write(tw); err != nil {
			return nil, fmt.Errorf("add %s: %w", e.Path, err)
		}
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
