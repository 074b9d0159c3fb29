package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/hook/farend"
)

const (
	// maxRelaySockets bounds the sockets that are tracked: those that programs
	// have open and that are neither connected streams nor listeners.
	maxRelaySockets = 4096
	// maxPeers bounds what is remembered of connected streams, for getpeername.
	maxPeers = 8192

	// The pause between two looks for sockets that programs have closed: short
	// while there are some, longer while there are none.
	sweepMin = 2 * time.Second
	sweepMax = 30 * time.Second
)

// relaySocket is a socket that was given to a program. fd is our duplicate.
type relaySocket struct {
	ino    uint64 // what /proc/PID/fd says it is
	fd     int
	domain int
	typ    int

	refs   int  // guarded by the table: who uses fd; 0 = it is closed
	given  bool // guarded by the table: a program has it
	absent int  // guarded by the table: looks in a row that found it in no process

	mu         sync.Mutex
	connecting bool           // guarded by mu: a connect of a stream is under way
	peer       netip.AddrPort // guarded by mu: what it is connected to, or is about to be
	flows      datagramFlows  // guarded by mu
}

// near is the socket as far ends know it.
func (s *relaySocket) near() farend.Socket { return farend.Socket{FD: s.fd, Domain: s.domain} }

// close is called once, by who uses the socket last.
func (s *relaySocket) close() {
	unix.Close(s.fd)
	s.flows.close()
}

// peer is the destination of a connected stream.
type peer struct {
	domain int
	addr   netip.AddrPort
}

// relayTable knows the sockets of programs by inode.
type relayTable struct {
	fresh chan struct{} // buffered 1: a socket was added

	mu      sync.Mutex
	sockets map[uint64]*relaySocket
	peers   map[uint64]peer
	order   []uint64 // of peers, oldest first
}

func newRelayTable() *relayTable {
	return &relayTable{fresh: make(chan struct{}, 1), sockets: map[uint64]*relaySocket{}, peers: map[uint64]peer{}}
}

// add tracks a socket, and owns fd from then on.
func (t *relayTable) add(fd, domain, typ int) (*relaySocket, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	if t.len() >= maxRelaySockets {
		t.settle(1, 0)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.sockets) >= maxRelaySockets {
		return nil, fmt.Errorf("%d sockets are open", len(t.sockets))
	}
	s := &relaySocket{ino: st.Ino, fd: fd, domain: domain, typ: typ, refs: 1}
	t.sockets[s.ino] = s
	t.forgetPeerLocked(s.ino) // of an earlier socket with that number
	select {
	case t.fresh <- struct{}{}:
	default:
	}
	return s, nil
}

func (t *relayTable) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.sockets)
}

// given notes that a program has the socket now.
func (t *relayTable) given(s *relaySocket) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.given = true
}

// acquire finds the socket behind a descriptor of a thread, nil if it is not
// tracked, and keeps it open until release.
func (t *relayTable) acquire(pid, fd int) (*relaySocket, uint64, error) {
	ino, err := inodeOf(pid, fd)
	if err != nil {
		return nil, 0, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sockets[ino]
	if s != nil {
		s.refs++
	}
	return s, ino, nil
}

// keep is acquire for who has it already.
func (t *relayTable) keep(s *relaySocket) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.refs++
}

// release undoes acquire and keep.
func (t *relayTable) release(s *relaySocket) {
	t.mu.Lock()
	s.refs--
	last := s.refs == 0
	t.mu.Unlock()
	if last {
		s.close()
	}
}

// drop ends the tracking of a socket.
func (t *relayTable) drop(s *relaySocket) {
	t.mu.Lock()
	tracked := t.sockets[s.ino] == s
	if tracked {
		delete(t.sockets, s.ino)
	}
	t.mu.Unlock()
	if tracked {
		t.release(s)
	}
}

// connected ends the tracking of a stream that has reached dst.
func (t *relayTable) connected(s *relaySocket, dst netip.AddrPort) {
	t.mu.Lock()
	if len(t.order) == maxPeers {
		delete(t.peers, t.order[0])
		t.order = t.order[1:]
	}
	t.peers[s.ino] = peer{domain: s.domain, addr: dst}
	t.order = append(t.order, s.ino)
	t.mu.Unlock()
	t.drop(s)
}

// peer returns the destination of a connected stream.
func (t *relayTable) peer(ino uint64) (peer, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.peers[ino]
	return p, ok
}

func (t *relayTable) forgetPeerLocked(ino uint64) {
	if _, ok := t.peers[ino]; !ok {
		return
	}
	delete(t.peers, ino)
	for i, o := range t.order {
		if o == ino {
			t.order = append(t.order[:i], t.order[i+1:]...)
			return
		}
	}
}

// all returns the sockets that are tracked, each kept open until release.
func (t *relayTable) all() []*relaySocket {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]*relaySocket, 0, len(t.sockets))
	for _, s := range t.sockets {
		s.refs++
		out = append(out, s)
	}
	return out
}

// hasPort reports whether a tracked socket has the local port.
func (t *relayTable) hasPort(port uint16) bool {
	found := false
	for _, s := range t.all() {
		found = found || farend.Name(s.fd).Port() == port
		t.release(s)
	}
	return found
}

// settle drops the sockets that no program has open any more, seen so in that
// many looks in a row: one may be on its way between two processes. With a port
// it heeds only sockets that have it. It reports how many it dropped.
func (t *relayTable) settle(looks int, port uint16) int {
	sockets := t.all()
	held, err := heldBy(os.Getpid())
	gone := 0
	for _, s := range sockets {
		// After an error a process that cannot be looked into may have it.
		if err == nil && (port == 0 || farend.Name(s.fd).Port() == port) && t.absent(s, held[s.ino]) >= looks {
			t.drop(s)
			gone++
		}
		t.release(s)
	}
	return gone
}

// absent counts a look at the socket.
func (t *relayTable) absent(s *relaySocket, held bool) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if held || !s.given {
		s.absent = 0
	} else {
		s.absent++
	}
	return s.absent
}

// clear drops everything.
func (t *relayTable) clear() {
	for _, s := range t.all() {
		t.drop(s)
		t.release(s)
	}
}

// sweep drops what programs have closed until the relay closes.
func (r *relay) sweep() {
	pause := sweepMin
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		if r.table.len() == 0 {
			select {
			case <-r.table.fresh:
			case <-r.ctx.Done():
				return
			}
		}
		timer.Reset(pause)
		select {
		case <-r.ctx.Done():
			return
		case <-timer.C:
		}
		pause = min(2*pause, sweepMax)
		select {
		case <-r.table.fresh:
			pause = sweepMin
		default:
		}
		if r.table.settle(2, 0) > 0 {
			pause = sweepMin
		}
	}
}

// inodeOf returns the inode of a socket that a thread has open, 0 if the
// descriptor is something else.
func inodeOf(pid, fd int) (uint64, error) {
	var buf [64]byte
	n, err := unix.Readlink("/proc/"+strconv.Itoa(pid)+"/fd/"+strconv.Itoa(fd), buf[:])
	switch {
	case err == unix.ENOENT:
		return 0, unix.EBADF
	case err != nil:
		return 0, os.NewSyscallError("readlink", err)
	}
	return parseInode(string(buf[:n])), nil
}

// parseInode reads "socket:[123]".
func parseInode(link string) uint64 {
	s, ok := strings.CutPrefix(link, "socket:[")
	if !ok {
		return 0
	}
	ino, err := strconv.ParseUint(strings.TrimSuffix(s, "]"), 10, 64)
	if err != nil {
		return 0
	}
	return ino
}

// heldBy returns the inodes of the sockets that the descendants of a process have
// open. It fails if one of them cannot be looked into.
func heldBy(root int) (map[uint64]bool, error) {
	held := map[uint64]bool{}
	pids, err := descendants(root)
	if err != nil {
		return nil, err
	}
	for _, pid := range pids {
		dir := "/proc/" + strconv.Itoa(pid) + "/fd"
		names, err := readNames(dir)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it has ended
		}
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			link, err := os.Readlink(dir + "/" + name)
			if ino := parseInode(link); err == nil && ino != 0 {
				held[ino] = true
			}
		}
	}
	return held, nil
}

func readNames(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// descendants lists the processes below root. All that a tree leaves behind are
// root's, because it is their subreaper.
func descendants(root int) ([]int, error) {
	names, err := readNames("/proc")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue // it has ended
		}
		// proc_pid_stat(5): pid (comm) state ppid …, and comm may hold anything.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) < 2 {
			continue
		}
		if ppid, err := strconv.Atoi(string(fields[1])); err == nil {
			children[ppid] = append(children[ppid], pid)
		}
	}
	var out []int
	for queue := children[root]; len(queue) > 0; queue = queue[1:] {
		out = append(out, queue[0])
		queue = append(queue, children[queue[0]]...)
	}
	return out, nil
}
