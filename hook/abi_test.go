package hook

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/hook/hooktest"
	"github.com/borrownet/borrownet/hook/netns"
)

// probeSource prints what abi.h says: constants by name, structures as bytes.
const probeSource = `
#include <stdio.h>
#include <string.h>
#include "abi.h"
static void dump(const char *name, const void *p, size_t n)
{
	printf("%s ", name);
	for (size_t i = 0; i < n; i++)
		printf("%02x", ((const unsigned char *)p)[i]);
	printf("\n");
}
int main(void)
{
	struct bn_request r = { BN_VERSION, BN_SEND, 1234, 10, 8080, "0123456789abcde" };
	struct bn_answer a = { BN_LOCAL, 111, 4321, 2, 53, { 192, 0, 2, 1 } };
	r.addr[15] = 'f';
	printf("version %d\nenv %s\nmax %d\nports %d\n", BN_VERSION, BN_ENV, BN_MAX_MESSAGE, BN_FIRST_AUTO_PORT);
	printf("ops %d %d %d %d %d\nverdicts %d %d %d\n", BN_RESOLVE, BN_CONNECT, BN_SEND, BN_PEER, BN_LISTEN, BN_DONE, BN_FAIL, BN_LOCAL);
	dump("request", &r, sizeof r);
	dump("answer", &a, sizeof a);
	return 0;
}
`

// TestABI compares abi.h, as a compiler reads it, with abi.go.
func TestABI(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		hooktest.Unavailable(t, "cc", err)
	}
	probe := filepath.Join(t.TempDir(), "probe")
	build := exec.Command(cc, "-std=c11", "-I.", "-o", probe, "-x", "c", "-")
	build.Stdin = strings.NewReader(probeSource)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command(probe).Output()
	if err != nil {
		t.Fatal(err)
	}
	request := Request{Op: OpSend, Size: 1234, Addr: netip.AddrPortFrom(netip.AddrFrom16([16]byte([]byte("0123456789abcdef"))), 8080)}
	answer := Answer{Verdict: VerdictLocal, Errno: 111, Size: 4321, Addr: netip.MustParseAddrPort("192.0.2.1:53")}
	want := fmt.Sprintf("version %d\nenv %s\nmax %d\nports %d\nops %d %d %d %d %d\nverdicts %d %d %d\n",
		abiVersion, EnvVar, MaxMessage, netns.FirstAutoPort, OpResolve, OpConnect, OpSend, OpPeer, OpListen, VerdictDone, VerdictFail, VerdictLocal)
	got, structures, _ := bytes.Cut(out, []byte("request "))
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("constants (-abi.go +abi.h)\n%s", diff)
	}
	var rawRequest, rawAnswer []byte
	if _, err := fmt.Sscanf(string(structures), "%x\nanswer %x\n", &rawRequest, &rawAnswer); err != nil {
		t.Fatal(err)
	}
	parsed, err := ParseRequest(rawRequest)
	if err != nil || parsed != request {
		t.Errorf("request: abi.h %+v, %v, abi.go %+v", parsed, err, request)
	}
	if mine := request.Append(nil); !bytes.Equal(mine, rawRequest) {
		t.Errorf("request: abi.h %s, abi.go %s", hex.EncodeToString(rawRequest), hex.EncodeToString(mine))
	}
	back, err := ParseAnswer(append(rawAnswer[:AnswerSize:AnswerSize], make([]byte, answer.Size)...))
	if err != nil || back != answer {
		t.Errorf("answer: abi.h %+v, %v, abi.go %+v", back, err, answer)
	}
	if mine := answer.Append(nil); !bytes.Equal(mine, rawAnswer) || len(mine) != AnswerSize {
		t.Errorf("answer: abi.h %s, abi.go %s", hex.EncodeToString(rawAnswer), hex.EncodeToString(mine))
	}
}

func TestParseRequestRefuses(t *testing.T) {
	good := make([]byte, RequestSize)
	good[0], good[4] = abiVersion, byte(OpResolve)
	if _, err := ParseRequest(good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(b []byte) []byte{
		"version":   func(b []byte) []byte { b[0]++; return b },
		"operation": func(b []byte) []byte { b[4] = 99; return b },
		"size":      func(b []byte) []byte { b[10] = 1; return b },
		"family":    func(b []byte) []byte { b[12] = 77; return b },
		"short":     func(b []byte) []byte { return b[:RequestSize-1] },
	} {
		if r, err := ParseRequest(spoil(bytes.Clone(good))); err == nil {
			t.Errorf("%s: accepted %+v", name, r)
		}
	}
}

func TestPreloadValue(t *testing.T) {
	for _, tt := range []struct{ broker, helper, want string }{
		{"/run/b", "/run/h", "1:n:/run/b:/run/h"},
		{"/run/b", "", "1:r:/run/b:"},
		{"/run:/b", "", ""},
	} {
		got, err := PreloadValue(tt.broker, tt.helper)
		if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%s, %s: got %q, %v", tt.broker, tt.helper, got, err)
		}
	}
}

func TestWithLibrary(t *testing.T) {
	const lib = "/run/lib-1/libborrownet.so"
	tests := []struct{ name, before, with, without string }{
		{"none", "A=1", "A=1 LD_PRELOAD=" + lib + " " + EnvVar + "=v", "A=1"},
		{"others", "LD_PRELOAD=/x.so A=1", "A=1 LD_PRELOAD=" + lib + ":/x.so " + EnvVar + "=v", "A=1 LD_PRELOAD=/x.so"},
		{"again", "LD_PRELOAD=/old/libborrownet.so:/x.so " + EnvVar + "=old", "LD_PRELOAD=" + lib + ":/x.so " + EnvVar + "=v", "LD_PRELOAD=/x.so"},
		{"empty", "LD_PRELOAD=", "LD_PRELOAD=" + lib + " " + EnvVar + "=v", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			with := WithLibrary(strings.Fields(tt.before), lib, "v")
			if got := strings.Join(with, " "); got != tt.with {
				t.Errorf("with: got %s, want %s", got, tt.with)
			}
			if got := strings.Join(WithoutLibrary(with), " "); got != tt.without {
				t.Errorf("without: got %s, want %s", got, tt.without)
			}
		})
	}
}
