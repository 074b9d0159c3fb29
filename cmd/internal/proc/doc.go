// Package proc waits for processes that are not this one's children. It is for
// Linux.
package proc
