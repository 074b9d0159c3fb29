package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
)

// uiHandler prints what packages log in this process: warnings always, the rest
// with -v.
type uiHandler struct {
	ui    *ui
	attrs string
}

// hintKey is the attribute of a record that says what to do.
const hintKey = "hint"

// Enabled implements slog.Handler.
func (h *uiHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn || h.ui.verbose && level >= slog.LevelInfo
}

// Handle implements slog.Handler.
func (h *uiHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	hint := ""
	b.WriteString(r.Message)
	b.WriteString(h.attrs)
	r.Attrs(func(at slog.Attr) bool {
		if at.Key == hintKey {
			hint = at.Value.String()
			return true
		}
		fmt.Fprintf(&b, " %s=%v", at.Key, at.Value)
		return true
	})
	if r.Level >= slog.LevelWarn {
		h.ui.warn(b.String(), hint)
	} else {
		h.ui.detail("%s", b.String())
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (h *uiHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	out := *h
	for _, at := range attrs {
		out.attrs += fmt.Sprintf(" %s=%v", at.Key, at.Value)
	}
	return &out
}

// WithGroup implements slog.Handler; the packages that log here use no groups.
func (h *uiHandler) WithGroup(string) slog.Handler { return h }
