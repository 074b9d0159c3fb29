package proc

import (
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
)

func TestBelow(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 1000 & echo $!; wait")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 16)
	n, err := stdout.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	grandchild, err := strconv.Atoi(string(line[:n-1]))
	if err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait() // sh waits for it
	defer syscall.Kill(grandchild, syscall.SIGKILL)
	self := os.Getpid()
	for _, tt := range []struct {
		name     string
		top, pid int
		want     bool
	}{
		{"itself", self, self, true},
		{"child", self, cmd.Process.Pid, true},
		{"grandchild", self, grandchild, true},
		{"parent", self, os.Getppid(), false},
		{"init", self, 1, false},
		{"another", cmd.Process.Pid, self, false},
	} {
		if got, err := Below(tt.top, tt.pid); err != nil || got != tt.want {
			t.Errorf("%s: %v, %v, want %v", tt.name, got, err, tt.want)
		}
	}
	if _, err := Below(self, 1<<30); err == nil {
		t.Error("no error for a process that does not exist")
	}
}
