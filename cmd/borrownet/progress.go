package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/borrownet/borrownet/cmd/internal/encode"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

// progressMode is how a command tells what it is doing.
type progressMode string

const (
	progressAuto  progressMode = "auto"  // tty on a terminal, else plain
	progressTTY   progressMode = "tty"   // steps on lines that change, with times
	progressPlain progressMode = "plain" // a line when a step begins
	progressJSON  progressMode = "json"  // everything on standard error is JSON, an object a line
	progressQuiet progressMode = "quiet" // warnings and errors alone
)

var progressModes = []string{string(progressAuto), string(progressTTY), string(progressPlain), string(progressJSON), string(progressQuiet)}

// addProgress adds --progress to a command that sets sessions up.
func (a *app) addProgress(cmd *cobra.Command) {
	f := cmd.Flags()
	f.VarP(&a.ui.progress, "progress", "", "`MODE` of telling what happens: "+either(progressModes))
	complete(cmd, "progress", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return nameList(progressModes, nil)
	})
}

// Set implements pflag.Value.
func (m *progressMode) Set(text string) error {
	if !slices.Contains(progressModes, text) {
		return fmt.Errorf("not %s", either(progressModes))
	}
	*m = progressMode(text)
	return nil
}

func (m *progressMode) String() string { return string(*m) }

// Type implements pflag.Value.
func (*progressMode) Type() string { return "mode" }

// event is a line of progressJSON. One of Step, Message, Warning, Error and Ready is
// set. docs/output.md promises its form.
type event struct {
	Time    time.Time       `json:"time"`
	Session string          `json:"session,omitempty"` // that the step is of, if it was named
	Step    string          `json:"step,omitempty"`
	State   string          `json:"state,omitempty"`     // of the step: begun, done, failed
	Took    time.Duration   `json:"tookNanos,omitempty"` // of a step that is over
	Message string          `json:"message,omitempty"`
	Warning string          `json:"warning,omitempty"`
	Hint    string          `json:"hint,omitempty"` // beside Warning
	Error   *fault.Error    `json:"error,omitempty"`
	Ready   *session.Status `json:"ready,omitempty"`
}

// emit prints a line of progressJSON, if that is the mode, and reports whether it is.
func (u *ui) emit(e event) bool {
	if u.progress != progressJSON {
		return false
	}
	e.Time = time.Now().UTC()
	if text, err := encode.Line(e); err == nil { // it always is
		_, _ = u.err.Write(text) // a reader that is gone
	}
	return true
}

// steps tells how something goes that has steps, one after the other. Its methods
// may be called concurrently. done must be called.
type steps struct {
	ui    *ui
	name  string // of the session, "" = it has none yet
	live  bool   // the current step's line changes
	width func() int
	stop  chan struct{}
	wg    sync.WaitGroup

	mu    sync.Mutex
	text  string    // of the step that goes on, "" = none; guarded by mu
	begun time.Time // when it began; guarded by mu
}

// tick is how often the line of a step that goes on changes.
const tick = 100 * time.Millisecond

// begin starts to tell.
func (u *ui) begin(name string) *steps {
	s := &steps{ui: u, name: name, stop: make(chan struct{}), width: terminalWidth}
	s.live = u.progress == progressTTY || u.progress == progressAuto && isTerminal(u.err)
	if s.live {
		s.wg.Go(s.run) // ends with done
	}
	return s
}

// run keeps the line of the step that goes on up to date.
func (s *steps) run() {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-t.C:
			s.mu.Lock()
			if s.text != "" {
				s.draw("…", time.Since(s.begun))
			}
			s.mu.Unlock()
		}
	}
}

// step says that the next step begins, and so that the last one is over.
func (s *steps) step(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.overLocked("done", "✓")
	s.text, s.begun = text, time.Now()
	switch {
	case s.ui.emit(event{Session: s.name, Step: text, State: "begun"}):
	case s.live:
		s.draw("…", 0)
	default:
		s.ui.say("%s", text)
	}
}

// done says how the last step ended.
func (s *steps) done(err error) {
	close(s.stop)
	s.wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.overLocked("failed", "✗")
		return
	}
	s.overLocked("done", "✓")
}

func (s *steps) overLocked(state, sign string) {
	if s.text == "" {
		return
	}
	took := time.Since(s.begun)
	if !s.ui.emit(event{Session: s.name, Step: s.text, State: state, Took: took}) && s.live {
		s.draw(sign, took)
		fmt.Fprintln(s.ui.err)
	}
	s.text = ""
}

// draw writes the step's line anew, no wider than the terminal: a line that wraps
// cannot be written over.
func (s *steps) draw(sign string, took time.Duration) {
	end := ""
	if took >= tick {
		end = fmt.Sprintf("  %.1fs", took.Seconds())
	}
	room := s.width() - len(end) - 3
	text := []rune(line(s.text))
	if len(text) > room {
		text = append(text[:max(room-1, 0)], '…')
	}
	fmt.Fprint(s.ui.err, "\r\x1b[K"+sign+" "+string(text)+end)
}

// terminalWidth is that of standard error.
func terminalWidth() int {
	width, _, err := term.GetSize(int(os.Stderr.Fd()))
	if err != nil || width <= 0 {
		return 80
	}
	return width
}

// isTerminal reports whether w is a terminal that can go back to the start of a line.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && !strings.HasPrefix(os.Getenv("TERM"), "dumb")
}
