package link

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
)

func TestKnock(t *testing.T) {
	id, v := testEnds(t)
	stranger := id
	stranger.Private, _ = testKey(t, 9)
	knock := func(id Identity) *Knock {
		k, err := NewKnock(id)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	k := knock(id)
	answer, err := v.Answer(k.Datagram())
	if err != nil {
		t.Fatal(err)
	}
	if !k.Answered(answer) {
		t.Error("the answer is not taken")
	}
	if len(answer) > len(k.Datagram()) {
		t.Errorf("%d bytes are answered with %d", len(k.Datagram()), len(answer))
	}
	if knock(id).Answered(answer) {
		t.Error("an answer to another knock is taken")
	}
	if _, err := v.Answer(k.Datagram()); !errors.Is(err, ErrReplayed) {
		t.Errorf("a recorded knock: %v", err)
	}
	if _, err := v.Answer(knock(stranger).Datagram()); !errors.Is(err, ErrNotProven) {
		t.Errorf("a stranger's knock: %v", err)
	}
	changed := bytes.Clone(knock(id).Datagram())
	changed[proofNonceAt]++
	if _, err := v.Answer(changed); !errors.Is(err, ErrNotProven) {
		t.Errorf("a changed knock: %v", err)
	}
	for _, n := range []int{0, 1, KnockLen - 1, KnockLen + 1} {
		if _, err := v.Answer(make([]byte, n)); !errors.Is(err, ErrNotProven) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// TestKnockIsNoCarrier uses a knock as a carrier's proof and a carrier's proof as a knock.
func TestKnockIsNoCarrier(t *testing.T) {
	id, v := testEnds(t)
	k, err := NewKnock(id)
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	go func() { // ends with the pipe
		_, _ = near.Write(k.Datagram())
		_, _ = io.Copy(io.Discard, near)
	}()
	if _, _, err := v.Verify(context.Background(), far); !errors.Is(err, ErrNotProven) {
		t.Errorf("a knock for a carrier: %v", err)
	}
	proof := appendProof(nil, proofFields{role: RoleExpress, timestamp: 1 << 62}, k.keys)
	if _, err := v.Answer(proof); !errors.Is(err, ErrNotProven) {
		t.Errorf("a carrier's proof for a knock: %v", err)
	}
}
