// Package printable makes foreign texts fit for a terminal. What clusters, agents and pods
// say may hold what moves the cursor, renames the window or turns the direction of a line.
package printable

import (
	"strings"
	"unicode"
)

// Text returns s with a question mark in the place of every character that drives a
// terminal. Tabs and the ends of lines stay, and what is no UTF-8 is shown as that.
func Text(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && r != '\n' && Drives(r) {
			return '?'
		}
		return r
	}, s)
}

// Line is Text without what would make it more than a line, or than a cell of a table.
func Line(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t', r == '\n':
			return ' '
		case Drives(r):
			return '?'
		}
		return r
	}, strings.TrimSpace(s))
}

// Drives reports whether a terminal obeys r or, as to the direction of text, who draws for
// it does: control characters (ECMA-48 §5), bidirectional ones (UAX #9 §2), and those that
// end lines and paragraphs.
func Drives(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
}
