package relay

// A source reads with a buffer that it takes for each attempt, and gives back
// before it waits for bytes. A *netstack.TCPConn is one.
type source interface {
	ReadLazily(take func() []byte, giveBack func()) (int, error)
}

// newSource returns c as a source.
func newSource(c Conn) source {
	switch c := c.(type) {
	case source:
		return c
	default:
		if s := kernelSource(c); s != nil {
			return s
		}
		return eager{c}
	}
}

// eager is a conn that cannot wait without a buffer.
type eager struct{ Conn }

func (e eager) ReadLazily(take func() []byte, _ func()) (int, error) { return e.Read(take()) }
