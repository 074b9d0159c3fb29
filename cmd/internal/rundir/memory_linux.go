package rundir

import "golang.org/x/sys/unix"

// memoryRoot is where every user may make files that stay in memory.
const memoryRoot = "/dev/shm"

// InMemory reports whether what is written at path stays in memory.
func InMemory(path string) bool {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return false
	}
	return st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC
}
