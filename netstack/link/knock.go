package link

import (
	"crypto/rand"
	"fmt"
	"time"
)

// KnockLen is the length of a knock.
const KnockLen = proofLen

// A Knock is a proof in a datagram of its own, of [RoleDirect]: it asks an agent's UDP port to take what follows from this
// address. It may be lost, so it is made anew for each try.
type Knock struct {
	proof []byte
	keys  proofKeys
}

// NewKnock returns a knock of id, whose Role is not used.
func NewKnock(id Identity) (*Knock, error) {
	private, peer, err := parseKeys(id.Private, id.Peer)
	if err != nil {
		return nil, err
	}
	keys, err := deriveKeys(private, peer, private.PublicKey(), peer)
	if err != nil {
		return nil, err
	}
	f := proofFields{session: id.Session, role: RoleDirect, timestamp: uint64(time.Now().UnixNano())}
	rand.Read(f.nonce[:]) // never fails: see crypto/rand.Read
	return &Knock{proof: appendProof(make([]byte, 0, proofLen), f, keys), keys: keys}, nil
}

// Datagram is what to send.
func (k *Knock) Datagram() []byte { return k.proof }

// Answered reports whether datagram is the agent's answer.
func (k *Knock) Answered(datagram []byte) bool {
	return len(datagram) == answerLen && checkAnswer(datagram, k.proof, k.keys) == nil
}

// Answer returns what to answer a knock with. On an error nothing is: neither to a stranger, nor to a knock that was
// recorded, since it must be later than every one that was answered before.
func (v *Verifier) Answer(knock []byte) ([]byte, error) {
	if len(knock) != KnockLen {
		return nil, fmt.Errorf("%w: a knock of %d bytes", ErrNotProven, len(knock))
	}
	f, err := parseProof(knock, v.keys)
	switch {
	case err != nil:
		return nil, err
	case f.role != RoleDirect:
		return nil, fmt.Errorf("%w: a carrier's proof for a knock", ErrNotProven)
	case !v.advance(f.role, f.timestamp):
		return nil, ErrReplayed
	}
	return appendAnswer(nil, knock, v.keys), nil
}
