package supervisor

import (
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// maxMoved bounds what is remembered of listeners that were moved.
const maxMoved = 1024

// movedTable remembers which socket took the place of which, by SO_COOKIE. Workers
// that share a bound socket listen one after the other (uvicorn --workers), and each
// must get the same socket of the laptop. Nothing is kept open for that: as long as
// a process of the tree has the socket it is found there.
type movedTable struct {
	mu    sync.Mutex
	by    map[uint64]movedTo // key: the cookie of the socket that was replaced
	order []uint64           // of the keys, oldest first
}

type movedTo struct{ ino, cookie uint64 }

// note remembers that fresh took the place of the socket with that cookie.
func (t *movedTable) note(cookie uint64, fresh int) {
	f, ok := factsOf(fresh)
	if !ok {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.by == nil {
		t.by = map[uint64]movedTo{}
	}
	if _, known := t.by[cookie]; !known {
		t.order = append(t.order, cookie)
	}
	t.by[cookie] = movedTo{f.ino, f.cookie}
	if len(t.order) > maxMoved {
		delete(t.by, t.order[0])
		t.order = t.order[1:]
	}
}

// find returns a duplicate of what took the socket's place, if a descendant of
// this process still has it.
func (t *movedTable) find(cookie uint64) (int, error) {
	t.mu.Lock()
	to, ok := t.by[cookie]
	t.mu.Unlock()
	if !ok {
		return -1, unix.ENOENT
	}
	pids, err := descendants(os.Getpid())
	if err != nil {
		return -1, err
	}
	for _, pid := range pids {
		holders, _, err := descriptorsOf(pid, to.ino)
		if err != nil || len(holders) == 0 {
			continue
		}
		fd, err := borrow(pid, holders[0].fd)
		if err != nil {
			continue
		}
		if f, ok := factsOf(fd); ok && f.cookie == to.cookie {
			return fd, nil
		}
		unix.Close(fd)
	}
	return -1, &os.PathError{Op: "find", Path: "socket:[" + strconv.FormatUint(to.ino, 10) + "]", Err: unix.ENOENT}
}
