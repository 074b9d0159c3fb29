package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/rundir"
)

// readyFD is the descriptor on which a spawned daemon reports: an empty JSON
// object when it takes requests, else the fault that stops it.
const readyFD = 3

// logTail bounds what is read of the log of a daemon that died.
const logTail = 4 << 10

// SpawnedFlag is appended to the arguments of a spawned daemon: it has to
// Report.
const SpawnedFlag = "--spawned"

// Spawn starts argv as a daemon of its own: no terminal, its own process group
// and session, output into the log. It returns once the daemon takes requests.
func Spawn(ctx context.Context, dir *rundir.Dir, argv []string) error {
	logFile, err := os.OpenFile(dir.Path(rundir.LogName), os.O_CREATE|os.O_TRUNC|os.O_APPEND|os.O_WRONLY|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return startFault(err.Error(), "")
	}
	defer logFile.Close()
	report, reported, err := os.Pipe()
	if err != nil {
		return startFault(err.Error(), "")
	}
	defer report.Close()
	cmd := exec.Command(argv[0], append(argv[1:len(argv):len(argv)], SpawnedFlag)...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.ExtraFiles = []*os.File{reported}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	reported.Close()
	if err != nil {
		return startFault(err.Error(), "")
	}
	ended := make(chan struct{})
	go func() { // ends with the daemon or with this process
		_ = cmd.Wait()
		close(ended)
	}()

	stop := context.AfterFunc(ctx, func() { report.Close() })
	defer stop()
	text, err := io.ReadAll(io.LimitReader(report, maxBody))
	if ctx.Err() != nil {
		giveUp(cmd.Process, ended)
		if errors.Is(ctx.Err(), context.Canceled) {
			_ = os.Remove(dir.Path(rundir.LogName)) // nobody wants to know
			return context.Cause(ctx)
		}
		return startFault("it did not get ready in time", "borrownet up again; if it stays so, look at "+dir.Path(rundir.LogName))
	}
	return judge(text, err, dir)
}

// giveUp ends a daemon that is not wanted any more and waits for it: it leaves
// no file if it is given the time.
func giveUp(p *os.Process, ended <-chan struct{}) {
	_ = p.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-ended:
	case <-time.After(endWait):
		_ = p.Kill()
	}
}

// judge reads a daemon's report.
func judge(text []byte, readErr error, dir *rundir.Dir) error {
	var f fault.Error
	if readErr != nil || json.Unmarshal(text, &f) != nil {
		return startFault("it died: "+tail(dir.Path(rundir.LogName)), "")
	}
	if f.Code != 0 {
		_ = os.Remove(dir.Path(rundir.LogName)) // the fault says all
		return &f
	}
	return nil
}

func startFault(reason, hint string) error {
	return &fault.Error{Code: fault.Laptop, ID: "BN2003", Op: "start the daemon", Reason: reason, Hint: hint}
}

// tail returns the last line of a log.
func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "no log"
	}
	text = bytes.TrimSpace(text[max(0, len(text)-logTail):])
	line := string(text[bytes.LastIndexByte(text, '\n')+1:])
	if line == "" {
		return "it said nothing"
	}
	return strings.ToValidUTF8(line, "?")
}

// Report tells the client that spawned this process how the start went; nil
// means that it takes requests. It may be called once, and only by a process
// that got SpawnedFlag.
func Report(err error) {
	f := os.NewFile(readyFD, "report")
	defer f.Close()
	out := &fault.Error{}
	if err != nil {
		out = fault.From(err)
	}
	if text, err := json.Marshal(out); err == nil {
		_, _ = f.Write(text) // the client may be gone; the daemon's own life does not depend on it
	}
}
