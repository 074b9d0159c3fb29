// Package stream generates the deterministic bytes that the sample apps send,
// so that a test can check what arrived without holding it in memory twice.
package stream

import (
	"crypto/sha256"
	"encoding/binary"
	"io"
	"math/rand/v2"
)

// New returns a reader of n bytes that depend only on seed, followed by EOF.
// A longer stream of the same seed begins with the shorter one.
func New(n int64, seed uint64) io.Reader {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return io.LimitReader(rand.NewChaCha8(key), n)
}

// Sum returns the SHA-256 of the stream of n bytes of seed.
func Sum(n int64, seed uint64) [sha256.Size]byte {
	h := sha256.New()
	// Neither side can fail: ChaCha8 always reads, a hash always writes.
	_, _ = io.Copy(h, New(n, seed))
	return [sha256.Size]byte(h.Sum(nil))
}
