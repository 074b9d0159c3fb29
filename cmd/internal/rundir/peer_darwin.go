package rundir

import "golang.org/x/sys/unix"

// connectedUID returns who connected the unix socket fd (LOCAL_PEERCRED, unix(4)).
func connectedUID(fd int) (uint32, error) {
	cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return 0, err
	}
	return cred.Uid, nil
}
