// Package forward lets what cannot be wrapped reach a session's pod network:
// browsers, database tools, containers on the host's network. It serves ports of
// this machine's loopback, each as a port of a host in the cluster, a SOCKS5 proxy
// or an HTTP proxy.
//
// Only processes of the same user are served: the kernel is asked whose socket is
// at the other end of each connection (sock_diag(7)), and others are hung up on.
//
// The daemon opens each flow and says why it could not; the connection itself is
// then handed to it, so that resets and half-closed ends pass as they are. A Server
// owns its listeners and connections until Run returns.
package forward
