package rundir

import (
	"errors"
	"fmt"
	"net"
	"os"
)

// Listen listens on the unix socket name of the directory and gives only
// processes of this user a conn.
func (d *Dir) Listen(name string) (net.Listener, error) {
	path := d.Path(name)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("close socket to others: %w", err), ln.Close())
	}
	return &ownListener{UnixListener: ln, uid: os.Getuid()}, nil
}

// ownListener hangs up on other users: the directory's mode keeps them out, but
// a descriptor can be passed on.
type ownListener struct {
	*net.UnixListener
	uid int
}

// Accept implements net.Listener.
func (l *ownListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if uid, err := peerUID(c); err == nil && uid == l.uid {
			return c, nil
		}
		c.Close()
	}
}
