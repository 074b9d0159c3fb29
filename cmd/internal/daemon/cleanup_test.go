package daemon

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/cmd/internal/rundir"
)

func TestCleanUp(t *testing.T) {
	keep := func(name string) bool { return name == "pod.key" }
	for _, tt := range []struct {
		name  string
		alive bool // a daemon holds its lock
		want  []string
	}{
		{"daemon_killed", false, []string{"pod.key"}},
		{"daemon_alive", true, []string{rundir.DaemonLock, rundir.LogName, rundir.SocketName, "pod.key"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, err := rundir.At(filepath.Join(t.TempDir(), "run"))
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{rundir.SocketName, rundir.LogName, rundir.DaemonLock, "pod.key"} {
				if err := os.WriteFile(dir.Path(name), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if tt.alive {
				lock, err := dir.TryLock(rundir.DaemonLock)
				if err != nil {
					t.Fatal(err)
				}
				defer lock.Release()
			}
			if err := CleanUp(dir, keep); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(dir.String())
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range entries {
				got = append(got, e.Name())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
}
