// Package switchboard is how the supervisor of the relay rung asks the daemon
// for flows, where a program's sockets are the laptop's own: the protocol of one
// unix socket, its client and its server.
//
// Each flow has a conn of its own. The client names the destination; the server
// dials and answers with what connect(2) is to say; the client then hands over
// the far end of the program's socket, to which the server carries the flow. No
// port listens for that, so there is nothing that others on the laptop could
// connect to. A client that hangs up before cancels the dial.
//
// The package is for Linux.
package switchboard
