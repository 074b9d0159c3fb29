package direct

import "github.com/quic-go/quic-go"

// Carrier is a link's carrier: one stream of a path.
type Carrier struct{ stream *quic.Stream }

// Urgencies of RFC 9218: what is sent first.
const (
	urgencyCalls int8 = 1
	urgencyBulk  int8 = 5
)

// Prefer says whether what is sent here goes before what other carriers of the path send.
func (c *Carrier) Prefer(on bool) {
	urgency := urgencyBulk
	if on {
		urgency = urgencyCalls
	}
	c.stream.SetPriority(urgency, true)
}

// Read reads from the other end.
func (c *Carrier) Read(p []byte) (int, error) { return c.stream.Read(p) }

// Write writes to the other end.
func (c *Carrier) Write(p []byte) (int, error) { return c.stream.Write(p) }

// Close ends the carrier at both ends: a Read or Write in progress returns at once.
func (c *Carrier) Close() error {
	c.stream.CancelRead(0)
	c.stream.CancelWrite(0)
	return nil
}
