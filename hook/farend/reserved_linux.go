package farend

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// FirstAutoPort is where the ports begin that a session's kernel gives to sockets
	// that ask for none.
	FirstAutoPort = 61001
	// maxReserved bounds the ports that are kept.
	maxReserved = 1024
	// releaseEvery is how long a port may be kept after its listener has gone.
	releaseEvery = 500 * time.Millisecond
)

// Reserved keeps ports of a session from being given out twice. A listener that
// becomes one of the laptop's would leave its port free in the session, whose kernel
// could give it to the next socket that asks for any: the laptop has it in use, and
// listen(2) would fail. So the socket that is replaced stays bound as long as there is
// a listener on the laptop. It has SO_REUSEADDR: who names the port, and has that too,
// gets it all the same. The zero value is ready; Close joins nothing, because nothing
// is waited for.
type Reserved struct {
	mu     sync.Mutex
	held   map[uint16]int // guarded by mu; descriptors by port
	timer  *time.Timer    // guarded by mu; nil while nothing is held
	closed bool           // guarded by mu
}

// Keep keeps the port of bound, if the session's kernel has chosen it. The listener on
// the laptop has to be there already. Keep takes no descriptor over.
func (r *Reserved) Keep(bound int) {
	port := Name(bound).Port()
	if port < FirstAutoPort {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.held[port]; known || r.closed || len(r.held) >= maxReserved {
		return
	}
	dup, err := unix.FcntlInt(uintptr(bound), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return // the port may clash, no more
	}
	_ = unix.SetsockoptInt(dup, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if r.held == nil {
		r.held = map[uint16]int{}
	}
	r.held[port] = dup
	if r.timer == nil {
		r.timer = time.AfterFunc(releaseEvery, r.release)
	}
}

// release gives up the ports whose listeners have gone, and comes again for the rest.
func (r *Reserved) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	// Looked up under the lock: what is kept meanwhile would seem to have no listener.
	live, err := listeningPorts()
	for port, fd := range r.held {
		if err == nil && !live[port] {
			unix.Close(fd)
			delete(r.held, port)
		}
	}
	if r.timer = nil; len(r.held) > 0 {
		r.timer = time.AfterFunc(releaseEvery, r.release)
	}
}

// Close gives all ports up; later calls do nothing.
func (r *Reserved) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.timer != nil {
		r.timer.Stop() // one that has begun finds it closed
	}
	for _, fd := range r.held {
		unix.Close(fd)
	}
	r.held = nil
}

// listeningPorts are the ports of this namespace's TCP listeners (proc_pid_net(5)).
func listeningPorts() (map[uint16]bool, error) {
	const listen, localField, stateField = "0A", 1, 3
	live := map[uint16]bool{}
	for _, name := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		table, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // no IPv6 here
		}
		if err != nil {
			return nil, err
		}
		for line := range bytes.Lines(table) {
			fields := bytes.Fields(line)
			if len(fields) <= stateField || string(fields[stateField]) != listen {
				continue
			}
			_, hex, _ := bytes.Cut(fields[localField], []byte(":"))
			if port, err := strconv.ParseUint(string(hex), 16, 16); err == nil {
				live[uint16(port)] = true
			}
		}
	}
	return live, nil
}
