package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

const (
	maxWaiting    = 8               // carriers that have connected but proven nothing yet
	verifyTimeout = 2 * time.Second // for a carrier to prove itself
)

var (
	errSlow    = errors.New("no proof in time")
	errCrowded = errors.New("too many unproven carriers")
)

// Verifier admits carriers of one client. It is safe for concurrent use.
//
// Everybody who reaches the agent's port can connect, so what strangers can hold is bounded: eight carriers wait at
// a time, two seconds each. A ninth takes the place of the one that waited longest: the client sends its proof
// together with connecting and is quicker than that, so strangers who connect and say nothing cannot keep it out.
type Verifier struct {
	keys proofKeys

	mu      sync.Mutex
	waiting []*waiter     // oldest first
	last    [roles]uint64 // timestamp of the latest proof that held, by role
}

// waiter is a Verify in progress.
type waiter struct {
	cancel context.CancelCauseFunc
}

// NewVerifier returns a Verifier for the agent with key private that serves the holder of peer's private key. It
// fails if the two keys agree on no secret.
func NewVerifier(private, peer [32]byte) (*Verifier, error) {
	priv, pub, err := parseKeys(private, peer)
	if err != nil {
		return nil, err
	}
	keys, err := deriveKeys(priv, pub, pub, priv.PublicKey())
	if err != nil {
		return nil, err
	}
	return &Verifier{keys: keys}, nil
}

// Verify waits for the client's proof on c and answers it. It returns what the client's [Identity] says. Nothing is written
// before the proof holds, and it must be later than every one of its role that held before. On an error c is closed.
func (v *Verifier) Verify(ctx context.Context, c io.ReadWriteCloser) (session [16]byte, role Role, err error) {
	ctx, stop := context.WithTimeoutCause(ctx, verifyTimeout, errSlow)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	w := &waiter{cancel: cancel}
	v.enter(w)
	defer v.leave(w)

	err = bounded(ctx, c, func() (err error) {
		session, role, err = v.verify(c)
		return err
	})
	if err != nil {
		return [16]byte{}, 0, fmt.Errorf("verify carrier: %w", err)
	}
	return session, role, nil
}

func (v *Verifier) verify(c io.ReadWriter) ([16]byte, Role, error) {
	var proof [proofLen]byte
	if _, err := io.ReadFull(c, proof[:]); err != nil {
		return [16]byte{}, 0, err
	}
	f, err := parseProof(proof[:], v.keys)
	if err != nil {
		return [16]byte{}, 0, err
	}
	if f.role == RoleDirect {
		return [16]byte{}, 0, fmt.Errorf("%w: a knock for a carrier", ErrNotProven)
	}
	if !v.advance(f.role, f.timestamp) {
		return [16]byte{}, 0, ErrReplayed
	}
	return f.session, f.role, writeAll(c, appendAnswer(nil, proof[:], v.keys))
}

// advance reports whether timestamp is later than all before of the role.
func (v *Verifier) advance(role Role, timestamp uint64) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if timestamp <= v.last[role] {
		return false
	}
	v.last[role] = timestamp
	return true
}

func (v *Verifier) enter(w *waiter) {
	v.mu.Lock()
	var oldest *waiter
	if len(v.waiting) == maxWaiting {
		oldest = v.waiting[0]
		v.waiting = slices.Delete(v.waiting, 0, 1)
	}
	v.waiting = append(v.waiting, w)
	v.mu.Unlock()
	if oldest != nil {
		oldest.cancel(errCrowded)
	}
}

func (v *Verifier) leave(w *waiter) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if i := slices.Index(v.waiting, w); i >= 0 {
		v.waiting = slices.Delete(v.waiting, i, i+1)
	}
}
