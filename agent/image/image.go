// Package image builds small container images without a container engine: one
// uncompressed layer, packed as a tar that is an OCI image layout
// (ctr image import, crane, skopeo) and a docker-archive (docker load) at once.
//
// The same [Config] gives the same bytes on every machine: entries are sorted,
// times are the epoch, owners are numeric, and nothing is read from the host
// but the files that are named.
package image

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

const (
	mediaIndex    = "application/vnd.oci.image.index.v1+json"
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar"

	created = "1970-01-01T00:00:00Z"
)

// Config describes an image.
type Config struct {
	Ref        string   // full reference with a tag: registry.example.org/name:tag
	Arch       string   // GOARCH: "amd64" (default) or "arm64"
	User       string   // uid or uid:gid; empty = root
	Entrypoint []string // must not be empty
	Cmd        []string
	Env        []string // KEY=value
	WorkingDir string
	Labels     map[string]string
	Files      []File
}

// Image is a built image: the three blobs of an OCI image with one layer.
type Image struct {
	Ref      string
	Arch     string
	Config   []byte
	Layer    []byte // uncompressed tar
	Manifest []byte
}

// Build makes the image that cfg describes.
func Build(cfg Config) (*Image, error) {
	if cfg.Arch == "" {
		cfg.Arch = "amd64"
	}
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("build image %q: %w", cfg.Ref, err)
	}
	layer, err := buildLayer(cfg.Files)
	if err != nil {
		return nil, fmt.Errorf("build image %s: %w", cfg.Ref, err)
	}
	config, err := json.Marshal(imageConfig{
		Created:      created,
		Architecture: cfg.Arch,
		OS:           "linux",
		Config: runConfig{
			User: cfg.User, Env: cfg.Env, Entrypoint: cfg.Entrypoint,
			Cmd: cfg.Cmd, WorkingDir: cfg.WorkingDir, Labels: cfg.Labels,
		},
		RootFS:  rootFS{Type: "layers", DiffIDs: []string{digest(layer)}},
		History: []history{{Created: created, CreatedBy: "borrownet mkimage"}},
	})
	if err != nil {
		return nil, fmt.Errorf("build image %s: %w", cfg.Ref, err)
	}
	manifest, err := json.Marshal(ociManifest{
		SchemaVersion: 2,
		MediaType:     mediaManifest,
		Config:        describe(mediaConfig, config),
		Layers:        []descriptor{describe(mediaLayer, layer)},
	})
	if err != nil {
		return nil, fmt.Errorf("build image %s: %w", cfg.Ref, err)
	}
	return &Image{Ref: cfg.Ref, Arch: cfg.Arch, Config: config, Layer: layer, Manifest: manifest}, nil
}

// Digest returns the digest of the image's manifest, sha256:hex: what follows
// the @ in a reference that pins the image.
func (img *Image) Digest() string { return digest(img.Manifest) }

// WriteTo writes the image as one tar, OCI layout and docker-archive at once.
func (img *Image) WriteTo(w io.Writer) (int64, error) {
	count := &countingWriter{w: w}
	if err := img.writeTar(tar.NewWriter(count)); err != nil {
		return count.n, fmt.Errorf("write image %s: %w", img.Ref, err)
	}
	return count.n, nil
}

func (img *Image) writeTar(tw *tar.Writer) error {
	manifest := describe(mediaManifest, img.Manifest)
	manifest.Platform = &platform{Architecture: img.Arch, OS: "linux"}
	manifest.Annotations = map[string]string{
		"io.containerd.image.name":          img.Ref, // containerd names the image by it
		"org.opencontainers.image.ref.name": img.Ref,
	}
	index, err := json.Marshal(ociIndex{SchemaVersion: 2, MediaType: mediaIndex, Manifests: []descriptor{manifest}})
	if err != nil {
		return err
	}
	archive, err := json.Marshal([]dockerManifest{{
		Config: blobPath(img.Config), RepoTags: []string{img.Ref}, Layers: []string{blobPath(img.Layer)},
	}})
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		body []byte
	}{
		{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{blobPath(img.Config), img.Config},
		{blobPath(img.Layer), img.Layer},
		{blobPath(img.Manifest), img.Manifest},
		{"index.json", index},
		{"manifest.json", archive},
	} {
		h := &tar.Header{Name: f.name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(f.body)), ModTime: time.Unix(0, 0)}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := tw.Write(f.body); err != nil {
			return err
		}
	}
	return tw.Close()
}

func (cfg *Config) validate() error {
	name, tag, ok := cutTag(cfg.Ref)
	switch {
	case !ok || name == "" || tag == "" || strings.ContainsAny(cfg.Ref, " \t\n@"):
		return errors.New("the reference must be NAME:TAG")
	case strings.ToLower(name) != name:
		return errors.New("the name in a reference must be lower case")
	case !slices.Contains([]string{"amd64", "arm64"}, cfg.Arch):
		return fmt.Errorf("unknown architecture %q, want amd64 or arm64", cfg.Arch)
	case len(cfg.Entrypoint) == 0:
		return errors.New("no entrypoint")
	}
	for _, kv := range cfg.Env {
		if k, _, ok := strings.Cut(kv, "="); !ok || k == "" {
			return fmt.Errorf("environment entry %q is not KEY=value", kv)
		}
	}
	return nil
}

// cutTag splits name:tag; a colon before the last slash belongs to the registry's port.
func cutTag(ref string) (name, tag string, ok bool) {
	i := strings.LastIndexByte(ref, ':')
	if i < 0 || i < strings.LastIndexByte(ref, '/') {
		return ref, "", false
	}
	return ref[:i], ref[i+1:], true
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func blobPath(b []byte) string { return "blobs/" + strings.Replace(digest(b), ":", "/", 1) }

func describe(mediaType string, b []byte) descriptor {
	return descriptor{MediaType: mediaType, Digest: digest(b), Size: len(b)}
}

// countingWriter counts what it passes on.
type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// The documents of the OCI image specification 1.1 and of docker save, as far
// as a single-layer image has them. Field order fixes the bytes.
type (
	imageConfig struct {
		Created      string    `json:"created"`
		Architecture string    `json:"architecture"`
		OS           string    `json:"os"`
		Config       runConfig `json:"config"`
		RootFS       rootFS    `json:"rootfs"`
		History      []history `json:"history"`
	}
	runConfig struct {
		User       string            `json:"User,omitempty"`
		Env        []string          `json:"Env,omitempty"`
		Entrypoint []string          `json:"Entrypoint"`
		Cmd        []string          `json:"Cmd,omitempty"`
		WorkingDir string            `json:"WorkingDir,omitempty"`
		Labels     map[string]string `json:"Labels,omitempty"`
	}
	rootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	}
	history struct {
		Created   string `json:"created"`
		CreatedBy string `json:"created_by"`
	}
	descriptor struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int               `json:"size"`
		Platform    *platform         `json:"platform,omitempty"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	platform struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
	}
	ociManifest struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Config        descriptor   `json:"config"`
		Layers        []descriptor `json:"layers"`
	}
	ociIndex struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Manifests     []descriptor `json:"manifests"`
	}
	dockerManifest struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
)
