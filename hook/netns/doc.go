// Package netns keeps the session's network namespace: a small helper process in
// its own user and network namespace, made without any privilege, whose default
// route is a packet device that the daemon reads and writes.
//
// Start spawns the helper and returns a Helper, the daemon's end: IP packets in
// and out. The helper itself (Main) listens on a unix socket and answers one
// request, "make me a socket", so that a program outside the namespace can own
// sockets that live inside it; Client is the asking side. A socket keeps working
// wherever its descriptor goes.
//
// The device is a TUN where /dev/net/tun can be opened, else one end of a veth
// pair with an AF_PACKET socket on the other. The loopback range 127/8 is routed
// to the device too: what is local to the laptop is decided by the daemon.
//
// The helper ends, and removes its socket file, when the daemon's end of the
// control socket closes, however the daemon died. Close joins every goroutine
// that Start made.
//
// The package is for Linux.
package netns
