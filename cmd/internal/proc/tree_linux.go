package proc

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// Below reports whether the process pid is top or one of its descendants. Orphans
// count if top is their subreaper.
func Below(top, pid int) (bool, error) {
	for pid != top {
		if pid <= 1 {
			return false, nil
		}
		var err error
		if pid, err = parent(pid); err != nil {
			return false, err
		}
	}
	return true, nil
}

// parent reads proc_pid_stat(5), whose second field may contain anything.
func parent(pid int) (int, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 2 {
		return 0, fmt.Errorf("process %d: no parent in its stat", pid)
	}
	return strconv.Atoi(string(fields[1]))
}
