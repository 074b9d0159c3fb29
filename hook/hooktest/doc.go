// Package hooktest runs the hook's tests as the users they are meant for and
// holds what those tests share. It is imported by tests only and is for Linux.
package hooktest
