package wg

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestPrivateKeyIsNeverPrinted(t *testing.T) {
	k := NewPrivateKey()
	if k == NewPrivateKey() || k.IsZero() {
		t.Fatal("keys are not random")
	}
	text, err := k.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{string(text), hex.EncodeToString(k[:]), strings.ToUpper(hex.EncodeToString(k[:])), fmt.Sprint([32]byte(k))}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U", "% x"} {
		fmt.Fprintf(&out, verb+"\n", k)
		fmt.Fprintf(&out, verb+"\n", &k)
		fmt.Fprintf(&out, verb+"\n", Config{Private: k})
	}
	fmt.Fprintln(&out, k.String(), fmt.Errorf("key %v", k))
	slog.New(slog.NewTextHandler(&out, nil)).Info("key", "key", k)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("key", "key", k)
	for _, s := range secrets {
		if strings.Contains(out.String(), s) {
			t.Errorf("private key was printed:\n%s", out.String())
		}
	}
	if !strings.Contains(out.String(), "(private)") {
		t.Errorf("no placeholder in:\n%s", out.String())
	}
}

func TestKeyText(t *testing.T) {
	k := NewPrivateKey()
	type file struct {
		Private PrivateKey
		Public  PublicKey
	}
	raw, err := json.Marshal(file{k, k.Public()})
	if err != nil {
		t.Fatal(err)
	}
	var got file
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if got.Private != k || got.Public != k.Public() {
		t.Error("keys do not survive their text form")
	}
	if p, err := ParsePublicKey(k.Public().String()); err != nil || p != k.Public() {
		t.Errorf("ParsePublicKey = %v, %v", p, err)
	}
	for _, s := range []string{
		"", "AAAA", strings.Repeat("A", 43) + "=", "not base64 at all, not base64 at all, no!=",
		k.Public().String() + "AAAA", k.Public().String()[:43], " " + k.Public().String(),
	} {
		if p, err := ParsePublicKey(s); err == nil {
			t.Errorf("ParsePublicKey(%q) = %v", s, p)
		}
		err := new(PrivateKey).UnmarshalText([]byte(s))
		if err == nil || s != "" && strings.Contains(err.Error(), s) {
			t.Errorf("private key %q: error %v", s, err)
		}
	}
}

func TestPublicIsX25519(t *testing.T) {
	// RFC 7748 §6.1, Bob's keys.
	private, err := hex.DecodeString("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
	if err != nil {
		t.Fatal(err)
	}
	const want = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
	public := PrivateKey(private).Public()
	if got := hex.EncodeToString(public[:]); got != want {
		t.Errorf("Public = %s, want %s", got, want)
	}
}
