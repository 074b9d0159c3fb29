package node

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/borrownet/borrownet/integration/lab/internal/cluster"
	"github.com/borrownet/borrownet/integration/lab/internal/spec"
)

// importImages gives containerd every image of the kit and more.
// Unpacking is left to the kubelet, which does it when a pod asks.
func importImages(ctx context.Context, s spec.Spec, more []string) error {
	err := cluster.Wait(ctx, 30*time.Second, "containerd", func(ctx context.Context) error {
		return ctr(ctx, "version")
	})
	if err != nil {
		return err
	}
	tars, err := filepath.Glob(filepath.Join(s.Kit, "images", "*.tar"))
	if err != nil {
		return err
	}
	for _, tar := range append(tars, more...) {
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
