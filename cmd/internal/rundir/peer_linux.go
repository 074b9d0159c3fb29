package rundir

import "golang.org/x/sys/unix"

// connectedUID returns who connected the unix socket fd (SO_PEERCRED, unix(7)).
func connectedUID(fd int) (uint32, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, err
	}
	return cred.Uid, nil
}
