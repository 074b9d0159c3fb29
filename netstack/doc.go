// Package netstack is a userspace IP host on gVisor's netstack, and the only
// package that knows gVisor.
//
// A Stack is joined to the world by raw IP packets: Deliver takes one in,
// ReadPackets hands those out that leave. Above it are conns, listeners and
// forwarders that speak netip and net; every error wraps the errno that a
// kernel socket would have given, so errors.Is(err, syscall.ECONNREFUSED)
// holds.
//
// # Back-pressure
//
// The link under a stack is a reliable stream, so TCP data that leaves a stack
// is never dropped: a Write waits while much of its conn, or of all conns, is
// queued. Nothing that gVisor does waits. Segments without data,
// retransmissions, UDP and ICMP have budgets of their own, and are dropped and
// counted when those are full. Deliver therefore never waits for ReadPackets,
// and two stacks whose readers have both stalled cannot block each other.
//
// # Goroutines
//
// gVisor runs GOMAXPROCS goroutines per stack, and one per request of
// ForwardTCP. Close ends all of them but the last, which are in the handler.
package netstack
