package link

import (
	"context"
	"errors"
	"io"
)

// Identity is what the client proves on a new carrier, and to whom.
type Identity struct {
	Private [32]byte // our static X25519 key
	Peer    [32]byte // the agent's static public key
	Session [16]byte // told to the agent, which returns it from [Verifier.Verify]
}

// Prove shows the agent at the other end of c that we hold id.Private, and checks that it holds the
// private half of id.Peer. On an error c is closed.
func Prove(ctx context.Context, c io.ReadWriteCloser, id Identity) error {
	return errors.ErrUnsupported
}

// Verifier admits carriers of one client. It is safe for concurrent use.
type Verifier struct{}

// NewVerifier returns a Verifier for the holder of peer's private key.
func NewVerifier(private, peer [32]byte) (*Verifier, error) {
	return nil, errors.ErrUnsupported
}

// Verify waits for the proof of a client on c and answers it. On an error c is closed.
func (v *Verifier) Verify(ctx context.Context, c io.ReadWriteCloser) (session [16]byte, err error) {
	return session, errors.ErrUnsupported
}
