package supervisor

import (
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/bpf"
)

// call is struct seccomp_data.
type call struct {
	arch uint32
	nr   uint32
	args [6]uint64
}

// words is the call as the interpreter of x/net/bpf reads it: that one loads
// big-endian words, the kernel those of the machine.
func (c call) words() []byte {
	b := make([]byte, 64)
	binary.BigEndian.PutUint32(b[0:], c.nr)
	binary.BigEndian.PutUint32(b[4:], c.arch)
	for i, a := range c.args {
		binary.BigEndian.PutUint32(b[16+8*i:], uint32(a))
		binary.BigEndian.PutUint32(b[20+8*i:], uint32(a>>32))
	}
	return b
}

func interpreter(t *testing.T, prog []instruction) *bpf.VM {
	t.Helper()
	raw := make([]bpf.RawInstruction, len(prog))
	for i, in := range prog {
		raw[i] = bpf.RawInstruction{Op: in.Code, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	ins, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("not every instruction is known")
	}
	vm, err := bpf.NewVM(ins)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func TestFilterVerdicts(t *testing.T) {
	const (
		allow  = actAllow
		notify = actNotify
		perm   = actErrno | 1
		nosys  = actErrno | 38

		stream, dgram, raw = 1, 2, 3
		cloexec            = 0o2000000
	)
	type verdict struct {
		name string
		call call
		want int
	}
	for arch, m := range machines() {
		var tests []verdict
		for name, a := range map[string]abi{"native": m.native, "compat": m.compat} {
			nr := func(n int32, args ...uint64) call {
				c := call{arch: a.arch, nr: uint32(n)}
				copy(c.args[:], args)
				return c
			}
			tests = append(tests,
				verdict{name + "-inet-stream", nr(a.socket, 2, stream), notify},
				verdict{name + "-inet-dgram-flags", nr(a.socket, 2, dgram|cloexec), notify},
				verdict{name + "-inet6-stream", nr(a.socket, 10, stream), notify},
				verdict{name + "-inet-raw", nr(a.socket, 2, raw, 1), notify},
				verdict{name + "-inet-mptcp", nr(a.socket, 2, stream, 262), notify},
				verdict{name + "-inet-sctp", nr(a.socket, 2, 5, 132), notify},
				verdict{name + "-high-bits", nr(a.socket, 1<<32|2, stream), notify},
				verdict{name + "-unix", nr(a.socket, 1, stream), allow},
				verdict{name + "-packet", nr(a.socket, 17, raw), allow},
				verdict{name + "-vsock", nr(a.socket, 40, stream), allow},
				verdict{name + "-netlink-route", nr(a.socket, 16, raw, 0), notify},
				verdict{name + "-netlink-audit", nr(a.socket, 16, raw, 9), allow},
				verdict{name + "-connect-inet", nr(a.connect, 3, 0x7fff0000, 16), allow},
				verdict{name + "-connect-inet6", nr(a.connect, 3, 0x7fff0000, 28), notify},
				verdict{name + "-connect-inet6-without-scope", nr(a.connect, 3, 0x7fff0000, 24), notify},
				verdict{name + "-connect-storage", nr(a.connect, 3, 0x7fff0000, 128), notify},
				verdict{name + "-connect-too-long", nr(a.connect, 3, 0x7fff0000, 129), allow},
				verdict{name + "-listen", nr(a.listen, 3, 128), notify},
				verdict{name + "-bind", nr(a.bind, 3, 0x7fff0000, 16), allow},
				verdict{name + "-accept", nr(a.listen+1, 3), allow},
				verdict{name + "-connect-unix", nr(a.connect, 3, 0x7fff0000, 110), notify},
				verdict{name + "-connect-unix-short", nr(a.connect, 3, 0x7fff0000, 22), notify},
				verdict{name + "-connect-huge", nr(a.connect, 3, 0x7fff0000, 1<<31), allow},
				verdict{name + "-io-uring-setup", nr(a.ioUring, 8), perm},
				verdict{name + "-read", nr(0), allow},
			)
			if a.x32 {
				tests = append(tests,
					verdict{name + "-x32-socket", nr(x32Bit|a.socket, 2, stream), nosys},
					verdict{name + "-x32-any", nr(x32Bit), nosys})
			}
			if a.socketcall != 0 {
				tests = append(tests,
					verdict{name + "-socketcall-socket", nr(a.socketcall, 1), notify},
					verdict{name + "-socketcall-bind", nr(a.socketcall, 2), allow},
					verdict{name + "-socketcall-connect", nr(a.socketcall, 3), notify},
					verdict{name + "-socketcall-listen", nr(a.socketcall, 4), notify},
					verdict{name + "-socketcall-accept", nr(a.socketcall, 5), allow},
					verdict{name + "-socketcall-sendto", nr(a.socketcall, 11), allow})
			}
		}
		// The native number means something else in the other convention.
		tests = append(tests,
			verdict{"native-number-in-compat", call{arch: m.compat.arch, nr: uint32(m.native.socket), args: [6]uint64{2, 1}}, allow},
			verdict{"unknown-arch", call{arch: 1, nr: uint32(m.native.socket), args: [6]uint64{2, 1}}, allow})
		vm := interpreter(t, filter(m, latitude{}))
		for _, tt := range tests {
			t.Run(arch+"/"+tt.name, func(t *testing.T) {
				got, err := vm.Run(tt.call.words())
				if err != nil {
					t.Fatal(err)
				}
				if got != tt.want {
					t.Errorf("action %#x, want %#x", got, tt.want)
				}
			})
		}
	}
}

// TestFilterAllowsIOURing changes that one verdict only.
func TestFilterAllowsIOURing(t *testing.T) {
	for arch, m := range machines() {
		strict, lax := interpreter(t, filter(m, latitude{})), interpreter(t, filter(m, latitude{ioURing: true}))
		for _, a := range []abi{m.native, m.compat} {
			for nr := range uint32(512) {
				c := call{arch: a.arch, nr: nr, args: [6]uint64{2, 1}}.words()
				want, err1 := strict.Run(c)
				got, err2 := lax.Run(c)
				if err1 != nil || err2 != nil {
					t.Fatal(err1, err2)
				}
				if nr == uint32(a.ioUring) {
					want = actAllow
				}
				if got != want {
					t.Errorf("%s: call %d of %#x: action %#x, want %#x", arch, nr, a.arch, got, want)
				}
			}
		}
	}
}

func TestRelayFilterVerdicts(t *testing.T) {
	const (
		allow     = actAllow
		notify    = actNotify
		perm      = actErrno | 1
		nosys     = actErrno | 38
		opnotsupp = actErrno | 95
		nofamily  = actErrno | 97

		pointer  = 0x7fff00000000 // its low half is zero
		fastopen = 0x20000000
	)
	type verdict struct {
		name string
		call call
		want int
	}
	for arch, m := range machines() {
		var tests []verdict
		for name, a := range map[string]abi{"native": m.native, "compat": m.compat} {
			nr := func(n int32, args ...uint64) call {
				c := call{arch: a.arch, nr: uint32(n)}
				copy(c.args[:], args)
				return c
			}
			messages := notify
			if name == "compat" {
				messages = allow
			}
			tests = append(tests,
				verdict{name + "-inet", nr(a.socket, 2, 1), notify},
				verdict{name + "-inet6", nr(a.socket, 10, 2), notify},
				verdict{name + "-unix", nr(a.socket, 1, 1), allow},
				verdict{name + "-netlink", nr(a.socket, 16, 3, 0), allow},
				verdict{name + "-vsock", nr(a.socket, 40, 1), allow},
				verdict{name + "-packet", nr(a.socket, 17, 3), nofamily},
				verdict{name + "-smc", nr(a.socket, 43, 1), nofamily},
				verdict{name + "-rds", nr(a.socket, 21, 5), nofamily},
				verdict{name + "-unknown-family", nr(a.socket, 99, 1), nofamily},
				verdict{name + "-connect-inet", nr(a.connect, 3, pointer, 16), notify},
				verdict{name + "-connect-inet6", nr(a.connect, 3, pointer, 28), notify},
				verdict{name + "-connect-odd", nr(a.connect, 3, pointer, 17), notify},
				verdict{name + "-connect-storage", nr(a.connect, 3, pointer, 128), notify},
				verdict{name + "-connect-too-long", nr(a.connect, 3, pointer, 129), allow},
				verdict{name + "-bind-inet", nr(a.bind, 3, pointer, 16), notify},
				verdict{name + "-bind-inet6", nr(a.bind, 3, pointer, 28), notify},
				verdict{name + "-bind-unix", nr(a.bind, 3, pointer, 110), allow},
				verdict{name + "-listen", nr(a.listen, 3, 128), notify},
				verdict{name + "-getpeername", nr(a.getpeername, 3, pointer, pointer), notify},
				verdict{name + "-send", nr(a.sendto, 3, pointer, 10, 0, 0, 0), allow},
				verdict{name + "-recv", nr(a.recvfrom, 3, pointer, 10, 0, 0, 0), allow},
				verdict{name + "-recvfrom", nr(a.recvfrom, 3, pointer, 10, 0, 16, 16), notify},
				verdict{name + "-sendto", nr(a.sendto, 3, pointer, 10, 0, 16, 16), notify},
				verdict{name + "-sendto-high-half", nr(a.sendto, 3, pointer, 10, 0, pointer, 16), notify},
				verdict{name + "-sendmsg", nr(a.sendmsg, 3, pointer, 0x4000), messages},
				verdict{name + "-sendmsg-fastopen", nr(a.sendmsg, 3, pointer, fastopen), opnotsupp},
				verdict{name + "-sendmmsg", nr(a.sendmmsg, 3, pointer, 2, 0x4000), messages},
				verdict{name + "-sendmmsg-fastopen", nr(a.sendmmsg, 3, pointer, 2, fastopen|0x40), opnotsupp},
				verdict{name + "-recvmsg", nr(a.recvmsg, 3, pointer, 0), messages},
				verdict{name + "-recvmmsg", nr(a.recvmmsg, 3, pointer, 2, 0), messages},
				verdict{name + "-io-uring-setup", nr(a.ioUring, 8), perm},
				verdict{name + "-read", nr(0), allow},
			)
			if a.x32 {
				tests = append(tests, verdict{name + "-x32", nr(x32Bit|a.connect, 3, pointer, 16), nosys})
			}
			if a.socketcall != 0 {
				for sub, want := range map[uint64]int{
					1: notify, 2: notify, 3: notify, 4: notify, 5: allow, 7: notify, 9: allow, 10: allow, 11: notify, 12: notify,
					14: allow, 16: notify, 17: allow, 18: allow, 19: allow, 20: notify,
				} {
					tests = append(tests, verdict{fmt.Sprintf("%s-socketcall-%d", name, sub), nr(a.socketcall, sub, pointer), want})
				}
			}
		}
		vm := interpreter(t, relayFilter(m))
		for _, tt := range tests {
			t.Run(arch+"/"+tt.name, func(t *testing.T) {
				got, err := vm.Run(tt.call.words())
				if err != nil {
					t.Fatal(err)
				}
				if got != tt.want {
					t.Errorf("action %#x, want %#x", got, tt.want)
				}
			})
		}
	}
}

var update = flag.Bool("update", false, "write golden files")

// TestFilterBytes pins the program that goes to the kernel, as the bytes of
// struct sock_filter, one instruction a line.
func TestFilterBytes(t *testing.T) {
	for arch, m := range machines() {
		goldenFilter(t, arch, filter(m, latitude{}))
		goldenFilter(t, "relay_"+arch, relayFilter(m))
	}
}

func goldenFilter(t *testing.T, name string, prog []instruction) {
	t.Run(name, func(t *testing.T) {
		var got strings.Builder
		for _, in := range prog {
			var b []byte
			b = binary.LittleEndian.AppendUint16(b, in.Code)
			b = append(b, in.Jt, in.Jf)
			b = binary.LittleEndian.AppendUint32(b, in.K)
			fmt.Fprintf(&got, "%x\n", b)
		}
		golden := filepath.Join("testdata", "filter_"+name+".golden")
		if *update {
			if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got.String()); diff != "" {
			t.Errorf("program (-want +got):\n%s", diff)
		}
	})
}
