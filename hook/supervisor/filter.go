package supervisor

// The seccomp filter, as classic BPF over struct seccomp_data (seccomp(2)):
//
//	socket(AF_INET | AF_INET6, any, any)        notify
//	socket(AF_NETLINK, any, NETLINK_ROUTE)      notify
//	connect(any, any, not that of IPv4)         notify: the supervisor reads the address
//	listen                                      notify
//	io_uring_setup                              EPERM, unless allowed: it makes sockets by itself
//	x32 system calls                            ENOSYS
//	everything else                             allow
//
// for the native and the 32-bit calling convention. Where a connect goes cannot be
// seen here, but the length of an IPv4 address can, and those need no supervisor.

// instruction is struct sock_filter.
type instruction struct {
	Code   uint16
	Jt, Jf uint8
	K      uint32
}

// Opcodes used (linux/bpf_common.h).
const (
	bpfLoad = 0x20 // BPF_LD | BPF_W | BPF_ABS
	bpfJEQ  = 0x15 // BPF_JMP | BPF_JEQ | BPF_K
	bpfJGT  = 0x25 // BPF_JMP | BPF_JGT | BPF_K
	bpfJSET = 0x45 // BPF_JMP | BPF_JSET | BPF_K
	bpfRet  = 0x06 // BPF_RET | BPF_K
)

// Offsets in struct seccomp_data. The system calls watched take 32-bit arguments,
// so the low half of each word is the argument: both architectures are little-endian.
const (
	offNr   = 0
	offArch = 4
	offArgs = 16
)

// Actions (linux/seccomp.h).
const (
	actAllow  = 0x7fff0000
	actNotify = 0x7fc00000
	actErrno  = 0x00050000
)

// Argument values, the same on every architecture.
const (
	afUnix       = 1
	afInet       = 2
	afInet6      = 10
	afNetlink    = 16
	netlinkRoute = 0

	sizeofSockaddrInet4 = 16
	sizeofSockaddrInet6 = 28
	sizeofSockaddrUnix  = 110
	// sizeofSockaddrStorage is the longest that connect(2) takes.
	sizeofSockaddrStorage = 128

	errnoPERM  = 1
	errnoNOSYS = 38

	x32Bit = 0x40000000

	// socketcall(2), first argument.
	callSocket      = 1
	callBind        = 2
	callConnect     = 3
	callListen      = 4
	callGetpeername = 7
	callSendto      = 11
	callRecvfrom    = 12
	callSendmsg     = 16
	callSendmmsg    = 20
)

// abi is one calling convention: its audit number and the system calls watched,
// by either rung.
type abi struct {
	arch       uint32
	socket     int32
	connect    int32
	listen     int32
	ioUring    int32
	socketcall int32 // 0 = none
	x32        bool  // shares arch with a convention to refuse

	// The relay rung watches these too.
	bind, getpeername                       int32
	sendto, sendmsg, sendmmsg               int32
	recvfrom, recvmsg, recvmmsg, recvmmsg64 int32 // recvmmsg64: of 32-bit conventions, 0 = none
}

// machine is what one kernel architecture can run.
type machine struct {
	native, compat abi
}

// machines by GOARCH.
func machines() map[string]machine {
	return map[string]machine{
		"amd64": {
			native: abi{
				arch: 0xc000003e, socket: 41, connect: 42, ioUring: 425, x32: true,
				bind: 49, listen: 50, getpeername: 52, sendto: 44, sendmsg: 46, sendmmsg: 307, recvfrom: 45, recvmsg: 47, recvmmsg: 299,
			},
			compat: abi{ // i386
				arch: 0x40000003, socket: 359, connect: 362, ioUring: 425, socketcall: 102,
				bind: 361, listen: 363, getpeername: 368, sendto: 369, sendmsg: 370, sendmmsg: 345, recvfrom: 371, recvmsg: 372, recvmmsg: 337, recvmmsg64: 417,
			},
		},
		"arm64": {
			native: abi{
				arch: 0xc00000b7, socket: 198, connect: 203, ioUring: 425,
				bind: 200, listen: 201, getpeername: 205, sendto: 206, sendmsg: 211, sendmmsg: 269, recvfrom: 207, recvmsg: 212, recvmmsg: 243,
			},
			compat: abi{ // arm EABI
				arch: 0x40000028, socket: 281, connect: 283, ioUring: 425,
				bind: 282, listen: 284, getpeername: 287, sendto: 290, sendmsg: 296, sendmmsg: 374, recvfrom: 292, recvmsg: 297, recvmmsg: 365, recvmmsg64: 417,
			},
		},
	}
}

// of returns the convention with the audit number arch.
func (m machine) of(arch uint32) (abi, bool) {
	switch arch {
	case m.native.arch:
		return m.native, true
	case m.compat.arch:
		return m.compat, true
	}
	return abi{}, false
}

// latitude is what the filter leaves to a program that it usually does not.
type latitude struct {
	ioURing bool // io_uring_setup: sockets made through it are not the session's
}

// filter builds the program for m.
func filter(m machine, may latitude) []instruction {
	var a assembler
	a.load(offArch)
	a.jeq(m.native.arch, "native")
	a.jeq(m.compat.arch, "compat")
	a.ret(actAllow)
	for _, c := range []struct {
		label string
		abi   abi
	}{{"native", m.native}, {"compat", m.compat}} {
		a.label(c.label)
		a.load(offNr)
		if c.abi.x32 {
			a.jump(bpfJSET, x32Bit, "nosys")
		}
		a.jeq(uint32(c.abi.socket), "socket")
		a.jeq(uint32(c.abi.connect), "connect")
		a.jeq(uint32(c.abi.listen), "notify")
		if !may.ioURing {
			a.jeq(uint32(c.abi.ioUring), "perm")
		}
		if c.abi.socketcall != 0 {
			a.jeq(uint32(c.abi.socketcall), "socketcall")
		}
		a.ret(actAllow)
	}
	a.label("socket")
	a.load(offArgs)
	a.jeq(afInet, "notify")
	a.jeq(afInet6, "notify")
	a.jeq(afNetlink, "netlink")
	a.ret(actAllow)
	a.label("netlink")
	a.load(offArgs + 2*8)
	a.jeq(netlinkRoute, "notify")
	a.ret(actAllow)
	a.label("connect")
	a.load(offArgs + 2*8)
	a.jeq(sizeofSockaddrInet4, "allow")
	a.jump(bpfJGT, sizeofSockaddrStorage, "allow")
	a.ret(actNotify)
	a.label("socketcall")
	a.load(offArgs)
	a.jeq(callSocket, "notify")
	a.jeq(callConnect, "notify")
	a.jeq(callListen, "notify")
	a.label("allow")
	a.ret(actAllow)
	a.label("notify")
	a.ret(actNotify)
	a.label("perm")
	a.ret(actErrno | errnoPERM)
	a.label("nosys")
	a.ret(actErrno | errnoNOSYS)
	return a.program()
}

// assembler resolves forward jumps.
type assembler struct {
	code   []instruction
	labels map[string]int
	jumps  map[int]string // instruction to target of its true branch
}

func (a *assembler) load(off uint32) { a.code = append(a.code, instruction{Code: bpfLoad, K: off}) }

func (a *assembler) ret(action uint32) { a.code = append(a.code, instruction{Code: bpfRet, K: action}) }

func (a *assembler) jeq(k uint32, target string) { a.jump(bpfJEQ, k, target) }

// jumpNonzero jumps to target if the 64-bit argument is not zero: a pointer.
func (a *assembler) jumpNonzero(arg int, target string) {
	const all = 0xffffffff
	a.load(offArgs + 8*uint32(arg))
	a.jump(bpfJSET, all, target)
	a.load(offArgs + 8*uint32(arg) + 4)
	a.jump(bpfJSET, all, target)
}

// jump goes to target if the accumulator compares to k, else on.
func (a *assembler) jump(op uint16, k uint32, target string) {
	if a.jumps == nil {
		a.jumps = make(map[int]string)
	}
	a.jumps[len(a.code)] = target
	a.code = append(a.code, instruction{Code: op, K: k})
}

func (a *assembler) label(name string) {
	if a.labels == nil {
		a.labels = make(map[string]int)
	}
	a.labels[name] = len(a.code)
}

// program fills in the jump offsets. The filter is far shorter than the 255
// instructions that one can cover.
func (a *assembler) program() []instruction {
	for at, target := range a.jumps {
		a.code[at].Jt = uint8(a.labels[target] - at - 1)
	}
	return a.code
}
