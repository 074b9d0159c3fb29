package stream_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"testing"
	"testing/iotest"

	"github.com/borrownet/borrownet/integration/apps/stream"
)

func TestStream(t *testing.T) {
	for _, tt := range []struct {
		name string
		n    int64
		seed uint64
	}{
		{"empty", 0, 1},
		{"one", 1, 1},
		{"block", 64, 2},
		{"odd", 100_003, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := io.ReadAll(stream.New(tt.n, tt.seed))
			if err != nil {
				t.Fatal(err)
			}
			if int64(len(got)) != tt.n {
				t.Fatalf("read %d bytes, want %d", len(got), tt.n)
			}
			split, err := io.ReadAll(iotest.OneByteReader(stream.New(tt.n, tt.seed)))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, split) {
				t.Error("bytes depend on the sizes of the reads")
			}
			if got, want := sha256.Sum256(got), stream.Sum(tt.n, tt.seed); got != want {
				t.Errorf("sum %x, want %x", got, want)
			}
		})
	}
}

// TestStable pins the bytes: apps and tests of different builds must agree.
func TestStable(t *testing.T) {
	b, err := io.ReadAll(stream.New(8, 42))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := hex.EncodeToString(b), "22301fb8d82978da"; got != want {
		t.Errorf("stream(8, 42) = %s, want %s", got, want)
	}
}
