package agent

import (
	"syscall"
	"time"

	"github.com/borrownet/borrownet/agent/wire"
)

// usage returns what the process has taken of the pod so far: getrusage(2).
func usage() wire.Usage {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return wire.Usage{} // of oneself it cannot fail
	}
	u := wire.Usage{CPU: time.Duration(r.Utime.Nano() + r.Stime.Nano()), Waits: uint64(r.Nvcsw)}
	if bytes, err := resident(); err == nil {
		u.Resident = bytes
	}
	return u
}
