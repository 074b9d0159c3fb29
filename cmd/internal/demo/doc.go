// Package demo is a cluster inside one process: a pod to borrow, Services that
// it can call, a cluster DNS server and a network between them, each host a
// network stack of its own. What borrows the pod is the real thing: agent,
// link, WireGuard, client stack, router, DNS proxy and hook. Only the agent's
// dialer and the way to the agent are this package's.
//
// A World serves itself on a socket in the runtime directory, to processes of
// the same user; a Client is the other end and what a session takes for a
// cluster. World.Close ends everything that the world has started.
package demo
