package link

import (
	"context"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// The proof is the first frame of a carrier, from the client:
//
//	magic 4 | version 1 | role 1 | reserved 2 | session 16 | timestamp 8 | nonce 16 | MAC 32
//
// and the agent's answer to a proof that holds:
//
//	magic 4 | version 1 | reserved 3 | MAC 32
//
// Integers are big-endian. Both MACs are HMAC-SHA256 under keys derived from the static-static X25519
// secret and both public keys; the agent's covers its header and the whole proof, hence the nonce, so a recorded
// answer fits no other proof. The timestamp (Unix nanoseconds of the client) must grow from proof to proof:
// a recorded proof is worth nothing; the two roles are counted apart, for both carriers are dialled at the same time. A client
// whose clock was set back is refused until it catches up. Reserved bytes are 0 when sent, and covered by the MAC, so
// that a later version of either end can give them a meaning.
const (
	proofMagic  = "BNLK"
	answerMagic = "BNLA"

	proofVersion = 2

	proofLen  = proofMACAt + sha256.Size
	answerLen = answerMACAt + sha256.Size

	proofSessionAt   = 8
	proofTimestampAt = proofSessionAt + 16
	proofNonceAt     = proofTimestampAt + 8
	proofMACAt       = proofNonceAt + 16
	answerMACAt      = 8

	proveTimeout = 10 * time.Second
)

// ErrRefused is wrapped by Prove's error if the other end closed the carrier or kept silent: it does not serve our
// key, or saw a later proof of ours.
var ErrRefused = errors.New("proof not answered")

// ErrNotProven is wrapped by errors of Prove and Verify if what the other end sent proves nothing.
var ErrNotProven = errors.New("peer does not prove its key")

// ErrReplayed is wrapped by Verify's error if the proof is not later than one seen before.
var ErrReplayed = errors.New("proof is not later than the last one")

// Role says which of a session's links a carrier is for.
type Role uint8

// The roles.
const (
	RoleExpress Role = 1
	RoleBulk    Role = 2
	// RoleDirect is of no carrier, but of a [Knock].
	RoleDirect Role = 3

	roles = 4
)

func (r Role) valid() bool { return RoleExpress <= r && r < roles }

// Identity is what the client proves on a new carrier, and to whom.
type Identity struct {
	Private [32]byte // our static X25519 key
	Peer    [32]byte // the agent's static public key
	Session [16]byte // told to the agent, which returns it from [Verifier.Verify]
	Role    Role     // so is this; 0 = RoleExpress
}

// proofKeys are the two MAC keys that client and agent have in common.
type proofKeys struct {
	client []byte // of the client's proof
	agent  []byte // of the agent's answer
}

// Prove shows the agent at the other end of c that we hold id.Private, and checks that it holds the
// private half of id.Peer. It waits at most 10 s. On an error c is closed.
func Prove(ctx context.Context, c io.ReadWriteCloser, id Identity) error {
	private, peer, err := parseKeys(id.Private, id.Peer)
	if err != nil {
		c.Close()
		return err
	}
	keys, err := deriveKeys(private, peer, private.PublicKey(), peer)
	if err != nil {
		c.Close()
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, proveTimeout, ErrRefused)
	defer cancel()
	err = bounded(ctx, c, func() error { return prove(c, id, keys) })
	if err != nil {
		return fmt.Errorf("prove key to agent: %w", err)
	}
	return nil
}

func prove(c io.ReadWriter, id Identity, keys proofKeys) error {
	var nonce [16]byte
	rand.Read(nonce[:]) // never fails: see crypto/rand.Read
	proof := appendProof(make([]byte, 0, proofLen), proofFields{
		session:   id.Session,
		role:      max(id.Role, RoleExpress),
		timestamp: uint64(time.Now().UnixNano()),
		nonce:     nonce,
	}, keys)
	if err := writeAll(c, proof); err != nil {
		return err
	}
	var answer [answerLen]byte
	if _, err := io.ReadFull(c, answer[:]); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return checkAnswer(answer[:], proof, keys)
}

// proofFields is what a proof says.
type proofFields struct {
	session   [16]byte
	role      Role
	timestamp uint64
	nonce     [16]byte
}

func appendProof(b []byte, f proofFields, keys proofKeys) []byte {
	start := len(b)
	b = append(b, proofMagic...)
	b = append(b, proofVersion, byte(f.role), 0, 0)
	b = append(b, f.session[:]...)
	b = binary.BigEndian.AppendUint64(b, f.timestamp)
	b = append(b, f.nonce[:]...)
	return append(b, mac(keys.client, b[start:])...)
}

// parseProof returns what proof, proofLen bytes, says if its MAC holds.
func parseProof(proof []byte, keys proofKeys) (proofFields, error) {
	if string(proof[:4]) != proofMagic {
		return proofFields{}, fmt.Errorf("%w: not a proof", ErrNotProven)
	}
	if !hmac.Equal(proof[proofMACAt:], mac(keys.client, proof[:proofMACAt])) {
		return proofFields{}, fmt.Errorf("%w: wrong MAC", ErrNotProven)
	}
	if proof[4] != proofVersion || !Role(proof[5]).valid() {
		return proofFields{}, fmt.Errorf("%w: version %d, role %d of the link protocol", errors.ErrUnsupported, proof[4], proof[5])
	}
	return proofFields{
		session:   [16]byte(proof[proofSessionAt:]),
		role:      Role(proof[5]),
		timestamp: binary.BigEndian.Uint64(proof[proofTimestampAt:]),
		nonce:     [16]byte(proof[proofNonceAt:]),
	}, nil
}

func appendAnswer(b, proof []byte, keys proofKeys) []byte {
	start := len(b)
	b = append(b, answerMagic...)
	b = append(b, proofVersion, 0, 0, 0)
	return append(b, mac(keys.agent, b[start:], proof)...)
}

// checkAnswer reports whether answer, answerLen bytes, is the agent's to proof.
func checkAnswer(answer, proof []byte, keys proofKeys) error {
	if string(answer[:4]) != answerMagic {
		return fmt.Errorf("%w: not an answer", ErrNotProven)
	}
	if !hmac.Equal(answer[answerMACAt:], mac(keys.agent, answer[:answerMACAt], proof)) {
		return fmt.Errorf("%w: wrong MAC", ErrNotProven)
	}
	if answer[4] != proofVersion {
		return fmt.Errorf("%w: version %d of the link protocol", errors.ErrUnsupported, answer[4])
	}
	return nil
}

func mac(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

func parseKeys(private, peer [32]byte) (*ecdh.PrivateKey, *ecdh.PublicKey, error) {
	priv, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		return nil, nil, fmt.Errorf("use link's private key: %w", err)
	}
	pub, err := ecdh.X25519().NewPublicKey(peer[:])
	if err != nil {
		return nil, nil, fmt.Errorf("use peer's public key: %w", err)
	}
	return priv, pub, nil
}

// deriveKeys binds the keys to who is client and who is agent, so that neither MAC can be reflected.
func deriveKeys(private *ecdh.PrivateKey, peer, client, agent *ecdh.PublicKey) (proofKeys, error) {
	secret, err := private.ECDH(peer)
	if err != nil {
		return proofKeys{}, fmt.Errorf("agree on a secret with peer: %w", err)
	}
	info := "borrownet link proof 1" + string(client.Bytes()) + string(agent.Bytes())
	k, err := hkdf.Key(sha256.New, secret, nil, info, 2*sha256.Size)
	if err != nil {
		return proofKeys{}, fmt.Errorf("derive proof keys: %w", err)
	}
	return proofKeys{client: k[:sha256.Size], agent: k[sha256.Size:]}, nil
}

// bounded runs f, which reads and writes c. A carrier has no deadlines, so it is closed when ctx ends; it is also
// closed when f fails.
func bounded(ctx context.Context, c io.Closer, f func() error) error {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	err := f()
	if !stop() {
		return context.Cause(ctx)
	}
	if err != nil {
		c.Close()
	}
	return err
}

func writeAll(w io.Writer, b []byte) error {
	n, err := w.Write(b)
	if err == nil && n < len(b) {
		return io.ErrShortWrite
	}
	return err
}
