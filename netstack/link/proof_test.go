package link

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/borrownet/borrownet/netstack/leaktest"
)

// testKey returns a private key made of b, and its public key.
func testKey(t testing.TB, b byte) (private, public [32]byte) {
	t.Helper()
	private = [32]byte(bytes.Repeat([]byte{b}, 32))
	k, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		t.Fatal(err)
	}
	return private, [32]byte(k.PublicKey().Bytes())
}

// testEnds returns a client's identity and the verifier of the agent it is for.
func testEnds(t testing.TB) (Identity, *Verifier) {
	t.Helper()
	clientPriv, clientPub := testKey(t, 1)
	agentPriv, agentPub := testKey(t, 2)
	v, err := NewVerifier(agentPriv, clientPub)
	if err != nil {
		t.Fatal(err)
	}
	return Identity{Private: clientPriv, Peer: agentPub, Session: [16]byte{3, 1, 4}}, v
}

// counted counts the bytes written to a carrier and keeps them.
type counted struct {
	io.ReadWriteCloser
	wrote atomic.Int64
	sent  bytes.Buffer
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.ReadWriteCloser.Write(p)
	c.wrote.Add(int64(n))
	c.sent.Write(p[:n])
	return n, err
}

type verdict struct {
	session [16]byte
	err     error
}

func goVerify(v *Verifier, c io.ReadWriteCloser) <-chan verdict {
	ch := make(chan verdict, 1)
	go func() {
		session, _, err := v.Verify(context.Background(), c)
		ch <- verdict{session, err}
	}()
	return ch
}

func TestProveAndVerify(t *testing.T) {
	leaktest.Check(t)
	id, v := testEnds(t)
	for range 3 { // each proof is later than the one before
		client, agent := net.Pipe()
		got := goVerify(v, agent)
		if err := Prove(t.Context(), client, id); err != nil {
			t.Fatal(err)
		}
		if g := <-got; g.err != nil || g.session != id.Session {
			t.Fatalf("Verify = %x, %v; want %x", g.session, g.err, id.Session)
		}
		// Both ends are still open and nothing of what follows was read.
		go client.Write([]byte("after"))
		buf := make([]byte, 5)
		if _, err := io.ReadFull(agent, buf); err != nil || string(buf) != "after" {
			t.Fatalf("read %q, %v", buf, err)
		}
		client.Close()
		agent.Close()
	}
}

func TestStrangerGetsNothing(t *testing.T) {
	leaktest.Check(t)
	id, v := testEnds(t)
	otherPriv, _ := testKey(t, 9)
	stranger := id
	stranger.Private = otherPriv

	client, agent := net.Pipe()
	seen := &counted{ReadWriteCloser: agent}
	got := goVerify(v, seen)
	if err := Prove(t.Context(), client, stranger); !errors.Is(err, ErrRefused) {
		t.Errorf("Prove with another key = %v, want ErrRefused", err)
	}
	if g := <-got; !errors.Is(g.err, ErrNotProven) || g.session != [16]byte{} {
		t.Errorf("Verify = %x, %v; want ErrNotProven", g.session, g.err)
	}
	if n := seen.wrote.Load(); n != 0 {
		t.Errorf("agent answered %d bytes to a stranger", n)
	}
	if _, err := client.Write([]byte("x")); err == nil {
		t.Error("client's end is still open after a refused proof")
	}
}

func TestVerifyRefuses(t *testing.T) {
	id, v := testEnds(t)
	now := uint64(time.Now().UnixNano())
	good := appendProof(nil, proofFields{role: RoleExpress, session: id.Session, timestamp: now}, v.keys)
	flipped := func(i int) []byte {
		b := bytes.Clone(good)
		b[i] ^= 1
		return b
	}
	remac := func(i int, value byte) []byte {
		b := bytes.Clone(good[:proofMACAt])
		b[i] = value
		return append(b, mac(v.keys.client, b)...)
	}
	tests := []struct {
		name  string
		proof []byte
		want  error
	}{
		{"magic", flipped(0), ErrNotProven},
		{"version", flipped(4), ErrNotProven},
		{"reserved", flipped(6), ErrNotProven},
		{"session", flipped(proofSessionAt), ErrNotProven},
		{"timestamp", flipped(proofTimestampAt), ErrNotProven},
		{"nonce", flipped(proofNonceAt), ErrNotProven},
		{"MAC", flipped(proofMACAt), ErrNotProven},
		{"later version", remac(4, proofVersion+1), errors.ErrUnsupported},
		{"unknown role", remac(5, 7), errors.ErrUnsupported},
		{"agent's own MAC key", append(bytes.Clone(good[:proofMACAt]), mac(v.keys.agent, good[:proofMACAt])...), ErrNotProven},
		{"timestamp zero", appendProof(nil, proofFields{role: RoleExpress}, v.keys), ErrReplayed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			leaktest.Check(t)
			client, agent := net.Pipe()
			seen := &counted{ReadWriteCloser: agent}
			got := goVerify(v, seen)
			if _, err := client.Write(tt.proof); err != nil {
				t.Fatal(err)
			}
			if n, err := client.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("read %d bytes, %v; want a closed carrier", n, err)
			}
			if g := <-got; !errors.Is(g.err, tt.want) {
				t.Errorf("Verify = %v, want %v", g.err, tt.want)
			}
			if n := seen.wrote.Load(); n != 0 {
				t.Errorf("agent answered %d bytes", n)
			}
		})
	}
	// What must be ignored is: the reserved bytes have a MAC and no meaning.
	client, agent := net.Pipe()
	defer client.Close()
	defer agent.Close()
	got := goVerify(v, agent)
	client.Write(remac(6, 1))
	io.ReadFull(client, make([]byte, answerLen))
	if g := <-got; g.err != nil {
		t.Errorf("Verify with reserved bytes set: %v", g.err)
	}
}

func TestReplayRefused(t *testing.T) {
	leaktest.Check(t)
	id, v := testEnds(t)
	client, agent := net.Pipe()
	recorded := &counted{ReadWriteCloser: client}
	got := goVerify(v, agent)
	if err := Prove(t.Context(), recorded, id); err != nil {
		t.Fatal(err)
	}
	<-got
	client.Close()
	agent.Close()

	client, agent = net.Pipe()
	seen := &counted{ReadWriteCloser: agent}
	got = goVerify(v, seen)
	if _, err := client.Write(recorded.sent.Bytes()); err != nil {
		t.Fatal(err)
	}
	if g := <-got; !errors.Is(g.err, ErrReplayed) {
		t.Errorf("Verify of a recorded proof = %v, want ErrReplayed", g.err)
	}
	if n := seen.wrote.Load(); n != 0 {
		t.Errorf("agent answered %d bytes to a replay", n)
	}
}

// TestAnswerIsBound shows that the client believes no answer but the one to its own proof, by the agent's key.
func TestAnswerIsBound(t *testing.T) {
	id, v := testEnds(t)
	old := appendProof(nil, proofFields{role: RoleExpress, session: id.Session, timestamp: 1}, v.keys)
	tests := []struct {
		name   string
		answer func(proof []byte) []byte
		want   error
	}{
		{"of another proof", func([]byte) []byte { return appendAnswer(nil, old, v.keys) }, ErrNotProven},
		{"reflected", func(p []byte) []byte { return p[:answerLen] }, ErrNotProven},
		{"zero", func([]byte) []byte { return make([]byte, answerLen) }, ErrNotProven},
		{"short", func(p []byte) []byte { return appendAnswer(nil, p, v.keys)[:answerLen-1] }, ErrRefused},
		{"later version", func(p []byte) []byte {
			b := append([]byte(answerMagic), proofVersion+1, 0, 0, 0)
			return append(b, mac(v.keys.agent, b, p)...)
		}, errors.ErrUnsupported},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			leaktest.Check(t)
			client, agent := net.Pipe()
			go func() {
				proof := make([]byte, proofLen)
				io.ReadFull(agent, proof)
				agent.Write(tt.answer(proof))
				agent.Close()
			}()
			if err := Prove(t.Context(), client, id); !errors.Is(err, tt.want) {
				t.Errorf("Prove = %v, want %v", err, tt.want)
			}
		})
	}
}

func TestVerifyTimesOut(t *testing.T) {
	id, v := testEnds(t)
	synctest.Test(t, func(t *testing.T) {
		client, agent := net.Pipe()
		start := time.Now()
		got := goVerify(v, agent)
		// A stranger that sends byte after byte gets no more time than one that sends none.
		go func() {
			for {
				time.Sleep(500 * time.Millisecond)
				if _, err := client.Write([]byte("B")); err != nil {
					return
				}
			}
		}()
		if g := <-got; !errors.Is(g.err, errSlow) {
			t.Errorf("Verify = %v, want errSlow", g.err)
		}
		if d := time.Since(start); d != verifyTimeout {
			t.Errorf("refused after %v, want %v", d, verifyTimeout)
		}

		// Nor does a client that does not read its answer block the verifier for longer.
		deaf, agent := net.Pipe()
		start = time.Now()
		got = goVerify(v, agent)
		deaf.Write(appendProof(nil, proofFields{role: RoleExpress, session: id.Session, timestamp: 1}, v.keys))
		if g := <-got; !errors.Is(g.err, errSlow) {
			t.Errorf("Verify = %v, want errSlow", g.err)
		}
		if d := time.Since(start); d != verifyTimeout {
			t.Errorf("refused after %v, want %v", d, verifyTimeout)
		}
	})
}

func TestProveTimesOut(t *testing.T) {
	id, _ := testEnds(t)
	synctest.Test(t, func(t *testing.T) {
		client, _ := net.Pipe()
		start := time.Now()
		if err := Prove(t.Context(), client, id); !errors.Is(err, ErrRefused) {
			t.Errorf("Prove = %v, want ErrRefused", err)
		}
		if d := time.Since(start); d != proveTimeout {
			t.Errorf("gave up after %v, want %v", d, proveTimeout)
		}
		client, _ = net.Pipe() // Prove above is done with the first
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := Prove(ctx, client, id); !errors.Is(err, context.Canceled) {
			t.Errorf("Prove = %v, want context.Canceled", err)
		}
	})
}

func TestStrangersCannotCrowdOut(t *testing.T) {
	id, v := testEnds(t)
	synctest.Test(t, func(t *testing.T) {
		var strangers []<-chan verdict
		for range maxWaiting + 3 {
			_, agent := net.Pipe()
			strangers = append(strangers, goVerify(v, agent))
			synctest.Wait()
			if n := len(v.waiting); n > maxWaiting {
				t.Fatalf("%d carriers wait, want at most %d", n, maxWaiting)
			}
		}
		client, agent := net.Pipe()
		got := goVerify(v, agent)
		if err := Prove(t.Context(), client, id); err != nil {
			t.Errorf("client among strangers: %v", err)
		}
		if g := <-got; g.err != nil {
			t.Errorf("Verify of the client = %v", g.err)
		}
		for i, ch := range strangers {
			want := errSlow
			if i < 4 { // three places taken by strangers, one by the client
				want = errCrowded
			}
			if g := <-ch; !errors.Is(g.err, want) {
				t.Errorf("stranger %d: %v, want %v", i, g.err, want)
			}
		}
		if n := len(v.waiting); n != 0 {
			t.Errorf("%d carriers still wait", n)
		}
	})
}

func TestBadKeys(t *testing.T) {
	private, _ := testKey(t, 1)
	if _, err := NewVerifier(private, [32]byte{}); err == nil {
		t.Error("NewVerifier took a public key that agrees on no secret")
	}
	client, agent := net.Pipe()
	defer agent.Close()
	if err := Prove(t.Context(), client, Identity{Private: private}); err == nil {
		t.Error("Prove took a public key that agrees on no secret")
	}
	if _, err := client.Write([]byte("x")); err != io.ErrClosedPipe {
		t.Errorf("write after Prove failed = %v, want a closed carrier", err)
	}
}

func FuzzParseProof(f *testing.F) {
	_, v := testEnds(f)
	good := appendProof(nil, proofFields{role: RoleExpress, session: [16]byte{1}, timestamp: 5, nonce: [16]byte{2}}, v.keys)
	f.Add(good[:proofMACAt], true)
	f.Add(good[:proofMACAt], false)
	f.Add(make([]byte, proofMACAt), true)
	later := bytes.Clone(good[:proofMACAt])
	later[4] = 2
	f.Add(later, true)
	f.Fuzz(func(t *testing.T, head []byte, sign bool) {
		proof := make([]byte, proofLen)
		copy(proof[:proofMACAt], head)
		if sign {
			copy(proof[proofMACAt:], mac(v.keys.client, proof[:proofMACAt]))
		}
		got, err := parseProof(proof, v.keys)
		if err != nil {
			return
		}
		if !sign {
			t.Fatal("proof without a MAC was accepted")
		}
		if string(proof[:4]) != proofMagic || proof[4] != proofVersion || got.role != Role(proof[5]) || !got.role.valid() ||
			got.timestamp != binary.BigEndian.Uint64(proof[proofTimestampAt:]) {
			t.Fatalf("accepted %x as %+v", proof, got)
		}
		if err := checkAnswer(appendAnswer(nil, proof, v.keys), proof, v.keys); err != nil {
			t.Fatalf("own answer: %v", err)
		}
	})
}
