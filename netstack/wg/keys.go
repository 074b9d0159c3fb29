package wg

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// hidden stands for a private key wherever it would be printed or logged.
const hidden = "(private)"

// PrivateKey is an X25519 private key. It prints and logs as "(private)"; only MarshalText gives it away.
type PrivateKey [32]byte

// PublicKey is an X25519 public key. Its text form is base64, as WireGuard's tools write it.
type PublicKey [32]byte

// NewPrivateKey makes a random key, clamped as RFC 7748 §5 says.
func NewPrivateKey() PrivateKey {
	var k PrivateKey
	rand.Read(k[:]) // never fails: see crypto/rand.Read
	k[0] &= 248
	k[31] = k[31]&127 | 64
	return k
}

// Public returns the public half of k.
func (k PrivateKey) Public() PublicKey {
	priv, err := ecdh.X25519().NewPrivateKey(k[:])
	if err != nil {
		panic(fmt.Sprintf("wg: X25519 refuses a 32-byte key: %v", err)) // unreachable: every 32-byte string is a key
	}
	return PublicKey(priv.PublicKey().Bytes())
}

// IsZero reports whether k was never set.
func (k PrivateKey) IsZero() bool { return k == PrivateKey{} }

// String hides the key.
func (k PrivateKey) String() string { return hidden }

// Format hides the key from every verb of package fmt.
func (k PrivateKey) Format(f fmt.State, _ rune) { io.WriteString(f, hidden) }

// LogValue hides the key from slog, whose handlers would call MarshalText.
func (k PrivateKey) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText returns the key in base64, for a file that only its owner can read.
func (k PrivateKey) MarshalText() ([]byte, error) {
	return base64.StdEncoding.AppendEncode(nil, k[:]), nil
}

// UnmarshalText parses what MarshalText wrote.
func (k *PrivateKey) UnmarshalText(text []byte) error {
	raw, err := decodeKey(string(text))
	if err != nil {
		return fmt.Errorf("parse private key: %w", err)
	}
	*k = PrivateKey(raw)
	return nil
}

// ParsePublicKey parses the base64 form of a public key.
func ParsePublicKey(s string) (PublicKey, error) {
	raw, err := decodeKey(s)
	if err != nil {
		return PublicKey{}, fmt.Errorf("parse public key: %w", err)
	}
	return PublicKey(raw), nil
}

// IsZero reports whether k was never set.
func (k PublicKey) IsZero() bool { return k == PublicKey{} }

// String returns the key in base64.
func (k PublicKey) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// MarshalText returns the key in base64.
func (k PublicKey) MarshalText() ([]byte, error) {
	return base64.StdEncoding.AppendEncode(nil, k[:]), nil
}

// UnmarshalText parses what MarshalText wrote.
func (k *PublicKey) UnmarshalText(text []byte) (err error) {
	*k, err = ParsePublicKey(string(text))
	return err
}

// decodeKey never quotes its input in an error: it may be a private key.
func decodeKey(s string) ([32]byte, error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return [32]byte{}, errors.New("not base64")
	}
	if len(raw) != 32 {
		return [32]byte{}, fmt.Errorf("%d bytes, want 32", len(raw))
	}
	if [32]byte(raw) == ([32]byte{}) {
		return [32]byte{}, errors.New("all zero")
	}
	return [32]byte(raw), nil
}
