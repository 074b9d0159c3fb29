// Package farend makes far ends: the loopback half of a flow that is relayed from
// a socket of the laptop. A socket of a program is connected to a far end of its
// own, which is handed to who carries the flow. The program's socket is only ever
// touched by a duplicate of its descriptor.
//
// hook/supervisor does this for programs under a seccomp filter, hook/broker for
// programs with the preload library in them.
//
// The package is for Linux.
package farend
