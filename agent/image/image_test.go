package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func sample(t *testing.T) Config {
	t.Helper()
	src := filepath.Join(t.TempDir(), "agent")
	if err := os.WriteFile(src, []byte("\x7fELF binary"), 0o700); err != nil {
		t.Fatal(err)
	}
	return Config{
		Ref:        "registry.example.org:5000/tools/agent:1.2",
		User:       "65532:65532",
		Entrypoint: []string{"/bin/agent"},
		Env:        []string{"A=1"},
		Labels:     map[string]string{"b": "2", "a": "1"},
		Files: []File{
			{Path: "/bin/agent", Source: src},
			{Path: "/etc/passwd", Data: []byte("nobody:x:65534\n"), Mode: 0o644},
			{Path: "/tmp", Dir: true, Mode: 0o1777},
			{Path: "/bin/sh", Link: "agent"},
		},
	}
}

func pack(t *testing.T, cfg Config) (*Image, []byte) {
	t.Helper()
	img, err := Build(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	n, err := img.WriteTo(&buf)
	if err != nil {
		t.Fatal(err)
	}
	if n != int64(buf.Len()) {
		t.Errorf("WriteTo returned %d, wrote %d", n, buf.Len())
	}
	return img, buf.Bytes()
}

// A file's capabilities are in the layer as getcap(8) reads them from a file system.
func TestCapabilities(t *testing.T) {
	cfg := sample(t)
	cfg.Files[0].Caps = CapNetRaw
	img, _ := pack(t, cfg)
	given := map[string]string{}
	for tr := tar.NewReader(bytes.NewReader(img.Layer)); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if v, ok := h.PAXRecords["SCHILY.xattr.security.capability"]; ok {
			given[h.Name] = v
		}
	}
	// As setcap cap_net_raw=ep writes it.
	want := map[string]string{"bin/agent": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}
	if diff := cmp.Diff(want, given); diff != "" {
		t.Errorf("capabilities (-want +got):\n%s", diff)
	}
}

func TestDeterministic(t *testing.T) {
	cfg := sample(t)
	_, first := pack(t, cfg)
	if err := os.Chtimes(cfg.Files[0].Source, time.Now(), time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	for i, j := 0, len(cfg.Files)-1; i < j; i, j = i+1, j-1 {
		cfg.Files[i], cfg.Files[j] = cfg.Files[j], cfg.Files[i]
	}
	_, second := pack(t, cfg)
	if !bytes.Equal(first, second) {
		t.Error("the same files in another order and with another time gave other bytes")
	}
}

func readTar(t *testing.T, b []byte) map[string]*tar.Header {
	t.Helper()
	out := map[string]*tar.Header{}
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		h.PAXRecords = map[string]string{"body": string(body)}
		if out[h.Name] != nil {
			t.Errorf("%s is in the tar twice", h.Name)
		}
		out[h.Name] = h
	}
}

func TestLayout(t *testing.T) {
	img, b := pack(t, sample(t))
	files := readTar(t, b)
	body := func(name string) []byte {
		h := files[name]
		if h == nil {
			t.Fatalf("no %s in the tar", name)
		}
		return []byte(h.PAXRecords["body"])
	}
	var index ociIndex
	if err := json.Unmarshal(body("index.json"), &index); err != nil {
		t.Fatal(err)
	}
	if got, want := index.Manifests[0].Annotations["io.containerd.image.name"], img.Ref; got != want {
		t.Errorf("image name %q, want %q", got, want)
	}
	if got, want := index.Manifests[0].Digest, img.Digest(); got != want {
		t.Errorf("manifest digest %s, want %s", got, want)
	}
	var archive []dockerManifest
	if err := json.Unmarshal(body("manifest.json"), &archive); err != nil {
		t.Fatal(err)
	}
	var manifest ociManifest
	if err := json.Unmarshal(body(blobOf(index.Manifests[0].Digest)), &manifest); err != nil {
		t.Fatal(err)
	}
	want := []dockerManifest{{
		Config: blobOf(manifest.Config.Digest), RepoTags: []string{img.Ref}, Layers: []string{blobOf(manifest.Layers[0].Digest)},
	}}
	if diff := cmp.Diff(want, archive); diff != "" {
		t.Errorf("manifest.json (-want +got):\n%s", diff)
	}
	for name := range files {
		if sum, ok := strings.CutPrefix(name, "blobs/sha256/"); ok && digest(body(name)) != "sha256:"+sum {
			t.Errorf("blob %s does not have that digest", name)
		}
	}
	var config imageConfig
	if err := json.Unmarshal(body(archive[0].Config), &config); err != nil {
		t.Fatal(err)
	}
	if got, want := config.RootFS.DiffIDs[0], manifest.Layers[0].Digest; got != want {
		t.Errorf("diff id %s, layer %s: an uncompressed layer has one digest", got, want)
	}
	if got, want := config.Architecture+" "+config.Config.User, "amd64 65532:65532"; got != want {
		t.Errorf("config %q, want %q", got, want)
	}
}

func TestLayer(t *testing.T) {
	img, _ := pack(t, sample(t))
	type entry struct {
		Type byte
		Mode int64
		Body string
		Link string
	}
	got := map[string]entry{}
	for name, h := range readTar(t, img.Layer) {
		got[name] = entry{h.Typeflag, h.Mode, h.PAXRecords["body"], h.Linkname}
		if !h.ModTime.Equal(time.Unix(0, 0)) || h.Uid != 0 || h.Uname != "" {
			t.Errorf("%s: time %v, uid %d, name %q", name, h.ModTime, h.Uid, h.Uname)
		}
	}
	want := map[string]entry{
		"bin/":       {tar.TypeDir, 0o755, "", ""},
		"bin/agent":  {tar.TypeReg, 0o755, "\x7fELF binary", ""},
		"bin/sh":     {tar.TypeSymlink, 0o777, "", "agent"},
		"etc/":       {tar.TypeDir, 0o755, "", ""},
		"etc/passwd": {tar.TypeReg, 0o644, "nobody:x:65534\n", ""},
		"tmp/":       {tar.TypeDir, 0o1777, "", ""},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("layer (-want +got):\n%s", diff)
	}
}

func TestTree(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a", "f"), []byte("x"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a/f", filepath.Join(dir, "l")); err != nil {
		t.Fatal(err)
	}
	got, err := Tree(dir, "/opt")
	if err != nil {
		t.Fatal(err)
	}
	want := []File{
		{Path: "/opt", Mode: 0o755, Dir: true},
		{Path: "/opt/a", Mode: 0o755, Dir: true},
		{Path: "/opt/a/f", Mode: 0o640, Source: filepath.Join(dir, "a", "f")},
		{Path: "/opt/l", Mode: 0o777, Link: "a/f"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Tree (-want +got):\n%s", diff)
	}
}

func TestBuildRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*Config)
		want string
	}{
		{"no-tag", func(c *Config) { c.Ref = "registry.example.org:5000/agent" }, "NAME:TAG"},
		{"upper-case", func(c *Config) { c.Ref = "example.org/Agent:1" }, "lower case"},
		{"arch", func(c *Config) { c.Arch = "mips" }, "unknown architecture"},
		{"no-entrypoint", func(c *Config) { c.Entrypoint = nil }, "no entrypoint"},
		{"env", func(c *Config) { c.Env = []string{"A"} }, "not KEY=value"},
		{"relative", func(c *Config) { c.Files[0].Path = "bin/agent" }, "not absolute"},
		{"twice", func(c *Config) { c.Files[1].Path = "/bin//agent" }, "given twice"},
		{"missing-source", func(c *Config) { c.Files[0].Source += "-missing" }, "no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := sample(t)
			tt.edit(&cfg)
			if _, err := Build(cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func blobOf(digest string) string { return "blobs/" + strings.Replace(digest, ":", "/", 1) }
