// Package artifacts keeps what is needed to understand a failure after the lab
// is gone: the logs of components and pods, and the cluster's events.
package artifacts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/borrownet/borrownet/integration/lab/internal/cluster"
	"github.com/borrownet/borrownet/integration/lab/internal/enter"
	"github.com/borrownet/borrownet/integration/lab/internal/spec"
)

const (
	keep       = 10       // directories under root
	maxFile    = 32 << 20 // of one log, the end of it
	askTimeout = 20 * time.Second
)

// questions are asked of a cluster that is still there.
var questions = map[string][]string{
	"events.txt":    {"get", "events", "-A", "--sort-by=.metadata.creationTimestamp", "-o", "wide"},
	"pods.txt":      {"get", "pods", "-A", "-o", "wide"},
	"pods.yaml":     {"get", "pods", "-A", "-o", "yaml"},
	"describe.txt":  {"describe", "pods", "-A"},
	"services.yaml": {"get", "services,endpointslices", "-A", "-o", "yaml"},
}

// Collect copies from the lab s into a new directory under root and returns it.
// nodePID is the process whose namespaces are the node's, 0 if it is dead. What
// could not be had is in the error; the rest is there.
func Collect(ctx context.Context, s spec.Spec, nodePID int, root string) (dir string, err error) {
	dir = filepath.Join(root, time.Now().UTC().Format("20060102T150405.000Z")+"-"+s.ID)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	errs := []error{
		copyTree(s.Path("log"), filepath.Join(dir, "components")),
		copyTree(s.Path("overlay", "var", "upper", "log", "pods"), filepath.Join(dir, "pods")),
		copyTree(s.OfSecond().Path("log"), filepath.Join(dir, "components-2")),
		copyTree(s.OfSecond().Path("overlay", "var", "upper", "log", "pods"), filepath.Join(dir, "pods-2")),
	}
	if nodePID != 0 {
		for name, args := range questions {
			errs = append(errs, ask(ctx, s, nodePID, filepath.Join(dir, name), args))
		}
	}
	return dir, errors.Join(append(errs, prune(root))...)
}

func ask(ctx context.Context, s spec.Spec, nodePID int, file string, args []string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := ctx.Err(); err != nil {
		return err
	}
	argv := append([]string{"kubectl", "--request-timeout=" + askTimeout.String()}, args...)
	code, err := enter.Command{
		PID:      nodePID,
		Argv:     argv,
		Env:      []string{"PATH=" + s.Kit, "HOME=/run", "KUBECONFIG=" + s.Path("kubeconfig", cluster.AdminConfig)},
		Dir:      "/",
		Fallback: "/",
		Stdout:   f,
		Stderr:   f,
	}.Run()
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d", code)
	}
	if err != nil {
		return fmt.Errorf("kubectl %v: %w", args, err)
	}
	return nil
}

// copyTree copies regular files; a log that is a link to nowhere is left out.
func copyTree(src, dst string) error {
	err := filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(dst, rel), 0o755)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		return copyEnd(path, filepath.Join(dst, rel))
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it did not get that far
	}
	return err
}

func copyEnd(src, dst string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if _, err := in.Seek(max(0, info.Size()-maxFile), io.SeekStart); err != nil {
		return err
	}
	out, err := os.Create(dst)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.LimitReader(in, maxFile))
	return errors.Join(err, out.Close())
}

// prune removes all but the newest directories; their names sort by time.
func prune(root string) error {
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	slices.Reverse(entries)
	var errs []error
	for i, e := range entries {
		if i >= keep {
			errs = append(errs, os.RemoveAll(filepath.Join(root, e.Name())))
		}
	}
	return errors.Join(errs...)
}
