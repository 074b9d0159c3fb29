//go:build !race

package wg

const raced = false
