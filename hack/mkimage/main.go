// Command mkimage writes a container image of a few files as a tar, without a
// container engine and with the same bytes every time.
//
//	mkimage -ref REF -o out.tar -entrypoint /x -file src:/dst[:mode[:uid]] … [-net-raw /dst]
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/borrownet/borrownet/agent/image"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// run writes the image that args describe and prints its reference by digest.
func run(args []string, stdout io.Writer) error {
	var (
		cfg                                  image.Config
		out                                  string
		entrypoint, cmd, env, files, dirs, t list
		netRaw                               string
	)
	fs := flag.NewFlagSet("mkimage", flag.ContinueOnError)
	fs.StringVar(&cfg.Ref, "ref", "", "full image reference, `NAME:TAG`")
	fs.StringVar(&out, "o", "", "tar `file` to write")
	fs.StringVar(&cfg.User, "user", "", "`uid[:gid]` of the process")
	fs.StringVar(&cfg.Arch, "arch", "amd64", "amd64 or arm64")
	fs.StringVar(&cfg.WorkingDir, "workdir", "", "working `directory`")
	fs.Var(&entrypoint, "entrypoint", "entrypoint `word`, may be given again")
	fs.Var(&cmd, "cmd", "argument `word`, may be given again")
	fs.Var(&env, "env", "`KEY=value`, may be given again")
	fs.Var(&files, "file", "`src:dst[:mode[:uid]]`, mode in octal (0755), may be given again")
	fs.StringVar(&netRaw, "net-raw", "", "the `dst` of a file that gets the capability CAP_NET_RAW")
	fs.Var(&dirs, "dir", "empty directory `dst[:mode[:uid]]`, may be given again")
	fs.Var(&t, "tree", "whole directory `src:dst`, may be given again")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if out == "" || fs.NArg() > 0 {
		return fmt.Errorf("usage: mkimage -ref REF -o out.tar -entrypoint /x -file src:dst …")
	}
	cfg.Entrypoint, cfg.Cmd, cfg.Env = entrypoint, cmd, env
	if err := addFiles(&cfg, files, dirs, t); err != nil {
		return err
	}
	if err := giveNetRaw(&cfg, netRaw); err != nil {
		return err
	}
	img, err := image.Build(cfg)
	if err != nil {
		return err
	}
	if err := save(img, out); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s@%s\n", img.Ref, img.Digest())
	return err
}

func addFiles(cfg *image.Config, files, dirs, trees list) error {
	for _, s := range files {
		src, rest, ok := strings.Cut(s, ":")
		if !ok || src == "" {
			return fmt.Errorf("-file %s: want src:dst[:mode[:uid]]", s)
		}
		f, err := parseEntry(rest)
		if err != nil {
			return fmt.Errorf("-file %s: %w", s, err)
		}
		f.Source = src
		cfg.Files = append(cfg.Files, f)
	}
	for _, s := range dirs {
		f, err := parseEntry(s)
		if err != nil {
			return fmt.Errorf("-dir %s: %w", s, err)
		}
		f.Dir = true
		cfg.Files = append(cfg.Files, f)
	}
	for _, s := range trees {
		src, dst, ok := strings.Cut(s, ":")
		if !ok {
			return fmt.Errorf("-tree %s: want src:dst", s)
		}
		entries, err := image.Tree(src, dst)
		if err != nil {
			return err
		}
		cfg.Files = append(cfg.Files, entries...)
	}
	return nil
}

// giveNetRaw sets the capability of the file at dst; "" is none.
func giveNetRaw(cfg *image.Config, dst string) error {
	for i := range cfg.Files {
		if f := &cfg.Files[i]; f.Path == dst && f.Source != "" {
			f.Caps = image.CapNetRaw
			return nil
		}
	}
	if dst != "" {
		return fmt.Errorf("-net-raw %s: no -file has that path", dst)
	}
	return nil
}

// parseEntry reads dst[:mode[:uid]].
func parseEntry(s string) (image.File, error) {
	parts := strings.Split(s, ":")
	f := image.File{Path: parts[0]}
	var err error
	if len(parts) > 1 {
		if f.Mode, err = strconv.ParseInt(parts[1], 8, 32); err != nil {
			return f, fmt.Errorf("mode %q: %w", parts[1], err)
		}
	}
	if len(parts) > 2 {
		if f.UID, err = strconv.Atoi(parts[2]); err != nil {
			return f, fmt.Errorf("uid %q: %w", parts[2], err)
		}
		f.GID = f.UID
	}
	if len(parts) > 3 {
		return f, fmt.Errorf("unexpected %q", parts[3])
	}
	return f, nil
}

// save writes img next to out and renames it, so that an interrupted build
// leaves no half image under the name.
func save(img *image.Image, out string) error {
	tmp, err := os.CreateTemp(filepath.Dir(out), ".mkimage-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if _, err := img.WriteTo(tmp); err != nil {
		return err
	}
	if err := tmp.Chmod(0o644); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), out)
}
