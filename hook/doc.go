// Package hook knows the ways by which programs get into a session, the rungs:
// which of them a machine allows, and the preload library that two of them need.
//
// The rungs themselves are its packages: hook/supervisor (seccomp), hook/netns
// (the session's namespace), hook/switchboard and hook/broker (flows without
// one), and the C library in hook/preload.
//
// The library is built by make where there is a C compiler and is part of this
// package then; abi.h and abi.go are what it and borrownet agree on.
//
// The package is for Linux.
package hook
