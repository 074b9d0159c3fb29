// Package proc looks at processes that are not this one's children: when they end,
// whom they descend from, what they listen at. It is for Linux.
package proc
