//go:build !linux

package rundir

// memoryRoot is nowhere.
const memoryRoot = ""

// InMemory cannot be known: what must not be on a disk is not written.
func InMemory(string) bool { return false }
