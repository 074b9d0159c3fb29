package cluster

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"slices"
	"testing"
)

func TestArchive(t *testing.T) {
	first, err := archive(Workloads, Bare)
	if err != nil {
		t.Fatal(err)
	}
	second, err := archive(Workloads, Bare)
	if err != nil {
		t.Fatal(err)
	}
	// Its digest is computed apart from what is served.
	if !bytes.Equal(first, second) {
		t.Error("the same manifests give different archives")
	}
	zr, err := gzip.NewReader(bytes.NewReader(first))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for tr := tar.NewReader(zr); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	for _, want := range []string{"workloads/30-targets.yaml", "bare/bare.yaml"} {
		if !slices.Contains(names, want) {
			t.Errorf("no %s in %q", want, names)
		}
	}
}
