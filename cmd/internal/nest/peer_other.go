//go:build !linux

package nest

import (
	"errors"
	"net"
)

// peer returns an error: there is nothing to nest.
func peer(*net.UnixConn) (pid int, err error) { return 0, errors.ErrUnsupported }
