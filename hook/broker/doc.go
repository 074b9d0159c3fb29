// Package broker is how the preload library asks the daemon: the server of the
// protocol that hook/abi.h describes, over one unix socket per session.
//
// It resolves names for every program that has the library in it. For programs
// whose sockets are the laptop's own (the preload-relay rung) it also connects
// them: the library sends a duplicate of the program's socket along, and the broker
// carries the flow to a far end on loopback, as the supervisor of the relay rung
// does. The library keeps nothing; what has to be remembered is here.
//
// The package is for Linux.
package broker
