// Package supervisor runs one command with its network sockets taken from
// somewhere else: a seccomp filter stops the command, and every process it
// starts, at socket(2), and the supervisor answers with a socket made by a
// Sockets, normally one of the session's network namespace. Everything after
// socket(2) is native kernel behaviour, so static binaries, every runtime,
// epoll, sendmmsg and debuggers work unchanged.
//
// Two calls may find that a socket is on the wrong side, and get another one in its
// place: listen(2) on the laptop's loopback, and connect(2) to ::1 (swap_linux.go).
// Other listeners are published by a Ports. Parts of the tree may have an Identity
// of their own (Tree, RunInside): a tree can have one supervisor only.
//
// Run starts the command through a shim (ShimMain, the same executable run
// again) that installs the filter and hands the notification descriptor back,
// then answers notifications on one locked thread until the last process under
// the filter has gone. It makes the calling process a subreaper and reaps every
// child of it, so it belongs in a process of its own.
//
// The package is for Linux.
package supervisor
