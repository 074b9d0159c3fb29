package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/borrownet/borrownet/cmd/internal/fault"
)

// board shows how several things that are set up at once go on: on a terminal as a
// picture that changes, elsewhere line by line.
type board struct {
	ui    *ui
	live  bool
	width int // of the terminal, and
	high  int
	stop  chan struct{}
	ended sync.WaitGroup // the painter

	mu    sync.Mutex
	rows  []boardRow
	drawn int // lines of the last picture
}

type boardRow struct {
	name        string
	text        string
	begun, over time.Time // zero = not yet
	failed      bool
}

func newBoard(u *ui, names []string) *board {
	b := &board{ui: u, stop: make(chan struct{})}
	for _, n := range names {
		b.rows = append(b.rows, boardRow{name: n, text: "waiting"})
	}
	w, h, err := term.GetSize(int(os.Stderr.Fd()))
	if (u.progress == progressTTY || u.progress == progressAuto && isTerminal(u.err)) && err == nil && w > 20 && h > 5 {
		b.live, b.width, b.high = true, w, h
		b.ended.Go(b.paint) // ends with close
	}
	return b
}

// paint shows a new picture now and then, until close.
func (b *board) paint() {
	again := time.NewTicker(tick)
	defer again.Stop()
	for {
		select {
		case <-b.stop:
			return
		case <-again.C:
			b.mu.Lock()
			b.drawLocked(b.high - 2)
			b.mu.Unlock()
		}
	}
}

// begin notes that row i is worked on.
func (b *board) begin(i int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rows[i].begun, b.rows[i].text = time.Now(), "starting"
}

// step notes what happens to row i.
func (b *board) step(i int, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rows[i].text = line(text)
	if !b.live && !b.ui.emit(event{Session: b.rows[i].name, Step: text, State: "begun"}) {
		b.ui.say("%s: %s", b.rows[i].name, text)
	}
}

// done notes that row i is ready, or why it is not.
func (b *board) done(i int, text string, problem *fault.Error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := &b.rows[i]
	r.over, r.text = time.Now(), line(text)
	if problem != nil {
		r.text, r.failed = line(problem.Error()), true
	}
	if !b.live && b.ui.progress != progressJSON { // there the session says more
		b.ui.say("%s: %s, after %s", r.name, r.state(), r.took())
		if r.text != "" && !r.failed {
			b.ui.say("%s: %s", r.name, r.text)
		}
	}
}

// close shows the last picture, whole, and what it sums up to.
func (b *board) close() {
	close(b.stop)
	b.ended.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.live {
		b.drawLocked(len(b.rows))
	}
	ready, longest := 0, time.Duration(0)
	for i := range b.rows {
		if !b.rows[i].failed {
			ready++
		}
		longest = max(longest, b.rows[i].over.Sub(b.rows[0].begun))
	}
	b.ui.say("%d of %d sessions are ready after %s", ready, len(b.rows), longest.Round(100*time.Millisecond))
}

// drawLocked replaces the last picture. Where there is no room for all rows, those that
// are ready are left out first.
func (b *board) drawLocked(room int) {
	var out strings.Builder
	if b.drawn > 0 {
		fmt.Fprintf(&out, "\x1b[%dA\x1b[J", b.drawn)
	}
	b.drawn = 0
	wide := 0
	for _, r := range b.rows {
		wide = max(wide, len(r.name))
	}
	skip := len(b.rows) - room
	for _, r := range b.rows {
		if skip > 0 && !r.over.IsZero() && !r.failed {
			skip--
			continue
		}
		if b.drawn == room {
			break
		}
		text := []rune(plain(fmt.Sprintf("%-*s  %-8s %6s  %s", wide, r.name, r.state(), r.took(), r.text)))
		fmt.Fprintln(&out, string(text[:min(len(text), b.width-1)]))
		b.drawn++
	}
	fmt.Fprint(b.ui.err, out.String())
}

func (r *boardRow) state() string {
	switch {
	case r.failed:
		return "failed"
	case !r.over.IsZero():
		return "ready"
	case r.begun.IsZero():
		return "waiting"
	}
	return "starting"
}

// took is how long it took, or takes so far.
func (r *boardRow) took() string {
	switch {
	case r.begun.IsZero():
		return ""
	case r.over.IsZero():
		return time.Since(r.begun).Round(100 * time.Millisecond).String()
	}
	return r.over.Sub(r.begun).Round(100 * time.Millisecond).String()
}
