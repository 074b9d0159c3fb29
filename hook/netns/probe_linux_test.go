package netns

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/borrownet/borrownet/hook/hooktest"
)

// TestProbe: what it says is what Start does, and it leaves no file.
func TestProbe(t *testing.T) {
	dir := shortDir(t)
	t.Setenv("TMPDIR", dir)
	kind, err := Probe(t.Context(), []string{hooktest.Self, "__netns"})
	left, globErr := filepath.Glob(filepath.Join(dir, "*"))
	if globErr != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, globErr)
	}
	h, startErr := Start(t.Context(), testConfig(filepath.Join(dir, "s"), pod4))
	if startErr != nil {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Probe: %v, Start: %v", err, startErr)
		}
		hooktest.Unavailable(t, "netns", startErr)
	}
	defer h.Close()
	if err != nil || kind != h.Kind() {
		t.Errorf("Probe: %q, %v; Start: %q", kind, err, h.Kind())
	}
}
