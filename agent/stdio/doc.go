// Package stdio carries the link over the standard streams of the agent's
// container, for clusters that refuse port-forward and let pods/attach pass.
//
// Those streams are less than a connection. Standard output reaches whoever is attached, and the container's log;
// who attaches late begins in the middle. Standard input takes what several attached clients send as it
// comes, and what a broken one has sent may arrive behind what its successor sends. So everything is a record on a line
// of its own, with the number of its stream, its own number in it, and a checksum. A line that is damaged is a gap in its
// stream, a gap ends the stream, and the link sends again what was lost with it. Lines are text, because they
// are in the log: nothing that a terminal or a log's reader stumbles over.
//
// The agent has a [Listener], whose Close joins its goroutines; the client has a [Stream] on each attached
// connection, and no goroutine.
package stdio
