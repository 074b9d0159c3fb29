package session

import "golang.org/x/sys/unix"

// inMemory reports whether what is written at path stays in memory.
func inMemory(path string) bool {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return false
	}
	return st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC
}
