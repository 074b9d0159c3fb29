package hook

// Rung is a way by which programs get into a session.
type Rung string

// The rungs, the best first.
const (
	Auto         Rung = "auto"          // the best that the machine allows
	Seccomp      Rung = "seccomp"       // sockets of the session namespace, put into programs by a supervisor
	Netns        Rung = "netns"         // the whole program is in the session namespace
	Preload      Rung = "preload"       // sockets of the session namespace, fetched by a library in programs
	Relay        Rung = "relay"         // sockets of the laptop, relayed by a supervisor
	PreloadRelay Rung = "preload-relay" // sockets of the laptop, relayed by a library in programs
	None         Rung = "none"          // no programs at all: a session for forwards and proxies
)

// Rungs lists what may be asked for.
func Rungs() []Rung { return []Rung{Auto, Seccomp, Netns, Preload, PreloadRelay, Relay, None} }

// Relayed reports whether the session has no namespace on this rung. Programs of
// one session may be on different rungs if these agree in that.
func (r Rung) Relayed() bool { return r == Relay || r == PreloadRelay || r == None }

// Supervised reports whether the rung needs a seccomp listener.
func (r Rung) Supervised() bool { return r == Seccomp || r == Relay }

// WithoutListener returns the rung that does for a program what r does, where
// another tool has the program's seccomp listener.
func (r Rung) WithoutListener() Rung {
	switch r {
	case Seccomp:
		return Preload
	case Relay:
		return PreloadRelay
	}
	return r
}
