// Package session joins one target to this machine: it finds the pod, attaches
// the agent, raises link, WireGuard device, client network stack, DNS proxy and
// the helper that owns the session's network namespace, and lets packets flow
// between them.
//
// A Session starts its parts in that order and undoes them in reverse, on a
// partial failure as well as in Close. Close joins every goroutine. A session
// whose agent is gone for good stays, as Lost, until it is closed: its flows
// are reset and its programs get errors at once instead of waiting.
package session
