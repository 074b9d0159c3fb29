package container

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/borrownet/borrownet/agent/image"
	"github.com/borrownet/borrownet/cmd/internal/engine"
)

// ImageLabel marks images that borrownet has made.
const ImageLabel = "dev.borrownet.image"

// repository is the name of the images. Nothing can be pulled from there.
const repository = "borrownet.local/guest"

// AnyImage stands for one that Load makes where none is started.
const AnyImage = repository + ":any"

// program is where the image has borrownet.
const program = "/borrownet"

// Load gives the engine the image of the program exe, a static borrownet, if it
// does not have it, and returns the image's name. Those of other builds that
// nothing uses are removed.
func Load(ctx context.Context, e *engine.Client, exe string) (string, error) {
	sum, err := digest(exe)
	if err != nil {
		return "", err
	}
	ref := repository + ":" + sum[:16]
	has, err := e.HasImage(ctx, ref)
	if err == nil && !has {
		err = load(ctx, e, ref, exe)
	}
	if err != nil {
		return "", Explain("load image", ref, e, err)
	}
	RemoveImages(ctx, e, ref)
	return ref, nil
}

func load(ctx context.Context, e *engine.Client, ref, exe string) error {
	img, err := image.Build(image.Config{
		Ref: ref, Arch: runtime.GOARCH, Entrypoint: Command(), Labels: map[string]string{ImageLabel: "guest"},
		Files: []image.File{{Path: program, Source: exe, Mode: 0o755}},
	})
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	go func() { // ends with the request, which closes r
		_, err := img.WriteTo(w)
		w.CloseWithError(err)
	}()
	defer r.Close()
	return e.LoadImage(ctx, r)
}

// RemoveImages removes the images that borrownet has made, but for keep and those
// that a container uses.
func RemoveImages(ctx context.Context, e *engine.Client, keep string) {
	images, err := e.Images(ctx, ImageLabel)
	if err != nil {
		return // the next call tries again
	}
	for _, img := range images {
		if len(img.RepoTags) == 1 && img.RepoTags[0] == keep {
			continue
		}
		_ = e.RemoveImage(ctx, img.ID) // in use: whose it is removes it
	}
}

func digest(exe string) (string, error) {
	f, err := os.Open(exe)
	if err != nil {
		return "", fmt.Errorf("read this program: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read this program: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
