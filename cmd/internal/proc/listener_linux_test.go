package proc

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestListener(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	if pid, err := Listener(path); err == nil {
		t.Errorf("process %d listens at a path that does not exist", pid)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if pid, err := Listener(path); err != nil || pid != os.Getpid() {
		t.Errorf("process %d, %v, want this one", pid, err)
	}
}
