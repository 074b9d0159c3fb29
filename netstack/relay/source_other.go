//go:build !linux

package relay

// kernelSource returns nil: sockets are waited for with a buffer.
func kernelSource(Conn) source { return nil }
