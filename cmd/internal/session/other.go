//go:build !linux

package session

// inMemory cannot be known: the pod's files are not copied to where they might stay.
func inMemory(string) bool { return false }

// hasUDPPort is about namespaces, of which there are none.
func hasUDPPort(int, uint16) bool { return false }
