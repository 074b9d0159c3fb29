// Package dash shows sessions on a terminal as they are now: one line each, with
// what has moved lately, and all that is known of one.
//
// Run owns the terminal until it returns.
package dash

import (
	"context"
	"errors"
	"io"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/borrownet/borrownet/cmd/internal/session"
)

// Pause is the time between two questions to the daemon.
const Pause = time.Second

// Config configures a dashboard. All but Environ is required.
type Config struct {
	// Poll asks for the sessions. An error for which Over holds ends the dashboard,
	// others are shown until the next answer.
	Poll func(ctx context.Context) ([]session.Status, error)
	Over func(error) bool
	// Rows are the names and values of all that is known of a session.
	Rows    func(session.Status) [][2]string
	In      io.Reader
	Out     io.Writer
	Environ []string // nil = this process's
}

// Run shows the dashboard until the person leaves it or ctx ends, both without an
// error, or until Poll is over, whose error it returns.
func Run(ctx context.Context, cfg Config) error {
	opts := []tea.ProgramOption{tea.WithContext(ctx), tea.WithInput(cfg.In), tea.WithOutput(cfg.Out), tea.WithFPS(30)}
	if cfg.Environ != nil {
		opts = append(opts, tea.WithEnvironment(cfg.Environ))
	}
	end, err := tea.NewProgram(newModel(ctx, cfg), opts...).Run()
	switch {
	case ctx.Err() != nil, errors.Is(err, tea.ErrInterrupted):
		return nil
	case err != nil:
		return err
	}
	return end.(*model).over
}
