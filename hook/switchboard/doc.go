// Package switchboard is how the supervisor asks the daemon: the protocol of one
// unix socket, its client and its server. Where programs live in a namespace, it
// asks for ports on the laptop's loopback, of what programs listen on. Where their
// sockets are the laptop's own (the relay rung), it asks for flows.
//
// Each flow has a conn of its own. The client names the destination; the server
// dials and answers with what connect(2) is to say; the client then hands over
// the far end of the program's socket, to which the server carries the flow. No
// port listens for that, so there is nothing that others on the laptop could
// connect to. A client that hangs up before cancels the dial.
package switchboard
