package session

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/borrownet/borrownet/netstack/direct"
)

// TestAwaitShortcut: a dial that waits for a path hears that there will be none. Of one that is found it is told by the end of
// its context: what is dialled anew then would be one too many else.
func TestAwaitShortcut(t *testing.T) {
	again := errors.New("dialled again")
	for _, tt := range []struct {
		name string
		end  func(c *shortcut, cancel context.CancelCauseFunc)
		want error
	}{
		{"no-path", func(c *shortcut, _ context.CancelCauseFunc) { c.set(nil, fmt.Errorf("refused: %w", errNoDirect)) }, errNoDirect},
		{"path", func(_ *shortcut, cancel context.CancelCauseFunc) { cancel(again) }, again},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				var c shortcut
				got := make(chan error, 1)
				go func() { got <- c.await(ctx) }()
				synctest.Wait()
				c.set(nil, errors.New("not yet"))
				synctest.Wait()
				c.set(&direct.Path{}, nil)
				synctest.Wait()
				select {
				case err := <-got:
					t.Fatalf("await ended, %v", err)
				default:
				}
				tt.end(&c, cancel)
				if err := <-got; !errors.Is(err, tt.want) {
					t.Errorf("await = %v, want %v", err, tt.want)
				}
			})
		})
	}
}
