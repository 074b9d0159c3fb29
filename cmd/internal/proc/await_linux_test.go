package proc

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestAwaitExit(t *testing.T) {
	cmd := exec.Command("cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		AwaitExit(t.Context(), cmd.Process.Pid)
		close(done)
	}()
	select {
	case <-done:
		t.Fatal("returned while the process runs")
	case <-time.After(50 * time.Millisecond):
	}
	stdin.Close()
	<-done // the process is not reaped yet: a zombie has ended
	cmd.Wait()
	AwaitExit(t.Context(), cmd.Process.Pid)
}

func TestAwaitExitEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	start := time.Now()
	AwaitExit(ctx, os.Getpid())
	if d := time.Since(start); d > 20*time.Second { // this process does not end
		t.Errorf("took %v", d)
	}
}
