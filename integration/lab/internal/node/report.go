package node

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/borrownet/borrownet/integration/lab/internal/spec"
)

// The kinds of lines that a Reporter writes: KIND TAB TEXT.
const (
	lineStep  = "step"
	lineReady = "ready"
	lineError = "error"
)

// A Reporter tells the host side how the start goes on.
type Reporter struct {
	w    *os.File
	spec spec.Spec
}

// NewReporter reports on ReportFD.
func NewReporter(s spec.Spec) *Reporter {
	return &Reporter{w: os.NewFile(ReportFD, "report"), spec: s}
}

// Step tells of something that is done. A reader that is gone is no concern.
func (r *Reporter) Step(what string) {
	_, _ = fmt.Fprintf(r.w, "%s\t%5.1f s  %s\n", lineStep, r.spec.Since().Seconds(), what)
}

// Ready tells that the lab is up, with the pid of the laptop's process 1.
func (r *Reporter) Ready(laptop int) error {
	_, err := fmt.Fprintf(r.w, "%s\t%d\n", lineReady, laptop)
	return err
}

// Error tells why the lab ends.
func (r *Reporter) Error(err error) {
	_, _ = fmt.Fprintf(r.w, "%s\t%s\n", lineError, strings.ReplaceAll(err.Error(), "\n", "; "))
}

// An Event is a line that a Reporter wrote.
type Event struct {
	Step   string    // what is done, with the time
	Laptop int       // not 0: ready
	Err    error     // the lab ends
	At     time.Time // when it was read
}

// Events reads what a Reporter writes until it ends, and calls f for each.
func Events(r io.Reader, f func(Event)) error {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		kind, text, _ := strings.Cut(s.Text(), "\t")
		e := Event{At: time.Now()}
		switch kind {
		case lineStep:
			e.Step = text
		case lineReady:
			pid, err := strconv.Atoi(text)
			if err != nil {
				return fmt.Errorf("report: %w", err)
			}
			e.Laptop = pid
		case lineError:
			e.Err = fmt.Errorf("%s", text)
		}
		f(e)
	}
	return s.Err()
}
