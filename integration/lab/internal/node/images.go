package node

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/borrownet/borrownet/integration/lab/internal/cluster"
	"github.com/borrownet/borrownet/integration/lab/internal/spec"
)

// importImages gives containerd every image that the lab needs.
// Unpacking is left to the kubelet, which does it when a pod asks.
func importImages(ctx context.Context, s spec.Spec) error {
	err := cluster.Wait(ctx, limit, "containerd", func(ctx context.Context) error {
		return ctr(ctx, "version")
	})
	if err != nil {
		return err
	}
	dirs := []string{filepath.Join(s.Kit, "images")}
	if s.Mesh {
		dirs = append(dirs, s.MeshKit("images"))
	}
	if s.Flux {
		dirs = append(dirs, s.FluxKit("images"))
	}
	var tars []string
	for _, dir := range dirs {
		found, err := filepath.Glob(filepath.Join(dir, "*.tar"))
		if err != nil {
			return err
		}
		tars = append(tars, found...)
	}
	for _, tar := range append(tars, s.Images...) {
		if err := ctr(ctx, "-n", "k8s.io", "images", "import", "--no-unpack", tar); err != nil {
			return fmt.Errorf("import %s: %w", tar, err)
		}
	}
	return nil
}

func ctr(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "ctr", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
