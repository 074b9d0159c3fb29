package agent

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The agent's memory counts in its pod's limit, beside the application's.
const (
	// DefaultMemory is an agent's budget: what it may have resident, its code
	// included.
	DefaultMemory = 64 << 20
	// minMemory is less than an agent can do with; it needs 13 MiB to be there.
	minMemory = 32 << 20
	// podShare is the part of a small pod's limit that an agent takes: 1/podShare.
	podShare = 4
)

// MemoryBudget returns DefaultMemory, or less where the limit of a control
// group over the process can be read and is small.
func MemoryBudget() int64 {
	limit, ok := cgroupLimit("/sys/fs/cgroup")
	if !ok {
		return DefaultMemory
	}
	return min(max(limit/podShare, minMemory), DefaultMemory)
}

// cgroupLimit returns the memory limit that holds for the process, as far as
// its container shows: version 1 tells the pod's in the container's own group,
// version 2 the container's alone, which an ephemeral container does not have.
func cgroupLimit(root string) (int64, bool) {
	limit := func(text string) (int64, bool) {
		n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		return n, err == nil && n > 0 && n < 1<<60 // version 1 writes "none" as a huge number
	}
	if text, err := os.ReadFile(filepath.Join(root, "memory.max")); err == nil {
		return limit(string(text)) // "max" is none
	}
	text, err := os.ReadFile(filepath.Join(root, "memory", "memory.stat"))
	if err != nil {
		return 0, false
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "hierarchical_memory_limit "); ok {
			return limit(value)
		}
	}
	return 0, false
}

// LimitMemory makes the garbage collector keep the process within budget. A
// quarter is for what it does not count: code and what the kernel holds.
func LimitMemory(budget int64) { debug.SetMemoryLimit(budget / 4 * 3) }

// YieldToApplication makes the kernel kill the agent before the application
// when the pod runs out of memory. Raising one's own score needs no privilege
// (proc_pid_oom_score_adj(5)).
func YieldToApplication() error {
	return os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
}

// oomScore returns what the kernel goes by when it has to end a process of the
// pod, or "" where there is no such thing.
func oomScore() string {
	text, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// memory tells whether the process is near its budget.
type memory struct {
	budget int64 // 0 = none

	mu    sync.Mutex
	used  int64     // what was resident when it was looked at last, in bytes
	asOf  time.Time // when that was
	freed time.Time // when garbage was given back last
}

const (
	// lookEvery is how old the figure may be: flows that come in a burst do not
	// read it each for itself.
	lookEvery = 10 * time.Millisecond
	// freeEvery keeps a process that is full from collecting garbage all the time.
	freeEvery = time.Second
)

// short reports whether there is no room for one more flow: a sixteenth of the
// budget is left for those that are there. What flows of the past have left
// behind does not count.
func (m *memory) short() bool {
	if m.budget == 0 {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.look()
	if m.used > m.budget/16*15 && time.Since(m.freed) > freeEvery {
		debug.FreeOSMemory()
		m.freed, m.asOf = time.Now(), time.Time{}
		m.look()
	}
	return m.used > m.budget/16*15
}

// look reads the figure anew unless it is fresh. The caller holds m.mu.
func (m *memory) look() {
	if time.Since(m.asOf) < lookEvery {
		return
	}
	if used, err := resident(); err == nil {
		m.used, m.asOf = used, time.Now()
	}
}

// resident returns the process's resident memory, in bytes: proc_pid_statm(5).
func resident() (int64, error) {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(text), &size, &pages); err != nil {
		return 0, fmt.Errorf("read statm %q: %w", text, err)
	}
	return pages * int64(os.Getpagesize()), nil
}

// buffers returns what the conns of a session may buffer in each direction.
func (m *memory) buffers() int { return int(cmp.Or(m.budget, DefaultMemory) / 16) }
