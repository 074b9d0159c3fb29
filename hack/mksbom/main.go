// Command mksbom writes a software bill of materials (CycloneDX 1.5, JSON) of a Go
// program, of what is recorded in the program itself. The same program gives the same
// bytes.
//
//	mksbom -version VERSION -o FILE PROGRAM
package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
)

// The parts of CycloneDX that are used.
type (
	bom struct {
		Format     string      `json:"bomFormat"`
		Spec       string      `json:"specVersion"`
		Version    int         `json:"version"`
		Metadata   metadata    `json:"metadata"`
		Components []component `json:"components"`
	}
	metadata struct {
		Component component `json:"component"`
	}
	component struct {
		Type    string     `json:"type"`
		Ref     string     `json:"bom-ref"`
		Name    string     `json:"name"`
		Version string     `json:"version"`
		PURL    string     `json:"purl,omitempty"`
		Hashes  []hash     `json:"hashes,omitempty"`
		Facts   []property `json:"properties,omitempty"`
	}
	hash struct {
		Algorithm string `json:"alg"`
		Content   string `json:"content"`
	}
	property struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	fs := flag.NewFlagSet("mksbom", flag.ContinueOnError)
	version := fs.String("version", "", "`version` of the program")
	out := fs.String("o", "", "`file` to write")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *version == "" || *out == "" || fs.NArg() != 1 {
		return fmt.Errorf("usage: mksbom -version VERSION -o FILE PROGRAM")
	}
	b, err := describe(fs.Arg(0), *version)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(*out, append(text, '\n'), 0o644)
}

// describe reads what a program is made of.
func describe(path, version string) (*bom, error) {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return nil, err
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(program)
	main := component{
		Type: "application", Ref: filepath.Base(path), Name: filepath.Base(path), Version: version,
		Hashes: []hash{{"SHA-256", hex.EncodeToString(sum[:])}},
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "GOOS", "GOARCH", "CGO_ENABLED":
			main.Facts = append(main.Facts, property{"build:" + s.Key, s.Value})
		}
	}
	b := &bom{Format: "CycloneDX", Spec: "1.5", Version: 1, Metadata: metadata{main}}
	goVersion := strings.TrimPrefix(strings.Fields(info.GoVersion)[0], "go")
	b.Components = append(b.Components, component{
		Type: "library", Ref: "std", Name: "std", Version: goVersion, PURL: "pkg:golang/std@" + goVersion,
	})
	for _, m := range info.Deps {
		b.Components = append(b.Components, library(m))
	}
	return b, nil
}

func library(m *debug.Module) component {
	if m.Replace != nil {
		m = m.Replace
	}
	c := component{Type: "library", Ref: m.Path + "@" + m.Version, Name: m.Path, Version: m.Version, PURL: "pkg:golang/" + m.Path + "@" + m.Version}
	// go.sum's hash: SHA-256 over the list of the module's files.
	if raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.Sum, "h1:")); err == nil && len(raw) == sha256.Size {
		c.Hashes = []hash{{"SHA-256", hex.EncodeToString(raw)}}
	}
	return c
}
