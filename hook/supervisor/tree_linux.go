package supervisor

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Identity is whose sockets a process gets.
type Identity struct {
	// Sockets makes the sockets. It is required.
	Sockets Sockets
	// Ports publishes listeners. It may be nil: they are reachable inside the
	// session then.
	Ports Ports
	// Addrs are the session's own addresses.
	Addrs []netip.Addr
	// Remote are ports of localhost that are the pod's. They are reached by IPv4.
	Remote []uint16
	// Mark is an entry of the environment that every process of a subtree has
	// unless it takes pains not to. See Tree.Add.
	Mark string
}

// Tree knows which parts of a supervised tree have an identity of their own. The
// zero value is ready to use, and safe for concurrent use.
type Tree struct {
	count atomic.Int64 // of subtrees in marks; 0 is the usual case

	mu     sync.Mutex
	by     map[int]Identity // key: the process whose descendants it is for
	marks  map[string]int   // how many subtrees bear it whose top lives, or was killed
	killed bool             // some top was
}

// Add gives the process pid and its descendants an identity. The process must be
// their subreaper and outlive them all; then remove is called with clean true. If
// it was killed before, clean is false: what it left behind is known by its mark
// from then on, and gets no sockets rather than somebody else's.
func (t *Tree) Add(pid int, id Identity) (remove func(clean bool)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.by == nil {
		t.by, t.marks = map[int]Identity{}, map[string]int{}
	}
	t.by[pid] = id
	t.marks[id.Mark]++
	t.countLocked()
	return func(clean bool) {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.by, pid)
		if t.killed = t.killed || !clean; clean {
			t.marks[id.Mark]--
		}
		t.countLocked()
	}
}

func (t *Tree) countLocked() {
	n := 0
	for _, bearers := range t.marks {
		n += bearers
	}
	t.count.Store(int64(n))
}

// of returns the identity of the thread pid, which is the nearest one above it;
// fallback if there is none.
func (t *Tree) of(pid int, fallback Identity) (Identity, error) {
	if t == nil || t.count.Load() == 0 {
		return fallback, nil
	}
	leader, parent, err := lineage(pid)
	if err != nil {
		return Identity{}, err
	}
	for at, self := leader, os.Getpid(); at > 1 && at != self; {
		t.mu.Lock()
		id, ok := t.by[at]
		t.mu.Unlock()
		if ok {
			return id, nil
		}
		at = parent
		if at <= 1 || at == self {
			break
		}
		if _, parent, err = lineage(at); err != nil {
			return Identity{}, err
		}
	}
	if t.orphan(leader, fallback.Mark) {
		return Identity{}, fmt.Errorf("the run that process %d belongs to was killed: %w", leader, unix.ENETDOWN)
	}
	return fallback, nil
}

// orphan reports whether the process bears the mark of a subtree and is not in it:
// while the top of one lives, all that bear its mark are below it. own is the mark
// of the rest of the tree.
func (t *Tree) orphan(pid int, own string) bool {
	env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		return t.killed // it hides: better no socket than a wrong one
	}
	for entry := range bytes.SplitSeq(env, []byte{0}) {
		if string(entry) != own && t.marks[string(entry)] > 0 {
			return true
		}
	}
	return false
}

// lineage returns the process that a thread belongs to, and that one's parent.
func lineage(pid int) (leader, parent int, err error) {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, 0, err
	}
	for line := range bytes.Lines(status) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch string(name) {
		case "Tgid":
			leader, err = strconv.Atoi(string(bytes.TrimSpace(value)))
		case "PPid":
			parent, err = strconv.Atoi(string(bytes.TrimSpace(value)))
			return leader, parent, err
		}
		if err != nil {
			break
		}
	}
	return 0, 0, fmt.Errorf("thread %d: no parent in its status", pid)
}
