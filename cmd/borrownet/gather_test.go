package main

import (
	"encoding/base64"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/borrownet/borrownet/cmd/internal/gather"
	"github.com/borrownet/borrownet/cmd/internal/rundir"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

// TestGatherKnowsKeys: wherever a session's private key is written, and in whichever form,
// it is not in a bundle.
func TestGatherKnowsKeys(t *testing.T) {
	base, err := os.MkdirTemp("", "bn") // paths of sockets are bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	dir, err := rundir.At(filepath.Join(base, "run"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := session.NewKeys(dir).Take("pod", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := key.Forget(); err != nil {
			t.Error(err)
		}
		dir.Remove()
	})
	var r gather.Redactor
	knowKeys(&r, dir)
	for _, form := range []string{base64.StdEncoding.EncodeToString(key.Private[:]), hex.EncodeToString(key.Private[:])} {
		for _, text := range []string{form, `{"private":"` + form + `"}`, "x=" + form + " and more"} {
			if got := r.Text(text); strings.Contains(got, form) {
				t.Errorf("the key is in %q", got)
			}
		}
	}
}
