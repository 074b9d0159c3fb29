//go:build !linux && !darwin

package forward

import (
	"errors"
	"net/netip"
)

// ownerOf returns an error: nobody is served.
func ownerOf(local, peer netip.AddrPort) (int, error) { return 0, errors.ErrUnsupported }
