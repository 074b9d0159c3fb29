package supervisor

// The filter of the relay rung, where programs have sockets of the laptop's own
// namespace. Whatever could send to somewhere is either watched or refused:
//
//	socket(AF_INET | AF_INET6, any, any)         notify
//	socket of a family that stays on the machine allow
//	socket of any other family                   EAFNOSUPPORT: AF_PACKET, AF_SMC and
//	                                             their like have the laptop's network
//	connect                                      notify
//	bind(any, any, length of an IP address)      notify: see relayTable.settle
//	listen, getpeername                          notify
//	sendto, recvfrom with an address             notify
//	sendmsg, sendmmsg with MSG_FASTOPEN          EOPNOTSUPP: it connects
//	sendmsg, sendmmsg, recvmsg, recvmmsg         notify, natively
//	io_uring_setup                               EPERM
//	x32 system calls                             ENOSYS
//	everything else                              allow
//
// The 32-bit convention has another struct msghdr: there the message calls are
// left alone, which loses addresses but leaks nothing, since datagram sockets
// are bound to the loopback device.

const (
	afAlg       = 38
	afBluetooth = 31
	afCAN       = 29
	afVsock     = 40

	// The same on every architecture that has a machine.
	errnoAFNOSUPPORT = 97
	errnoOPNOTSUPP   = 95

	msgFastopen = 0x20000000
	msgErrqueue = 0x2000
)

// relayFilter builds the program of the relay rung for m.
func relayFilter(m machine) []instruction {
	var a assembler
	a.load(offArch)
	a.jeq(m.native.arch, "native")
	a.jeq(m.compat.arch, "compat")
	a.ret(actAllow)
	for _, c := range []struct {
		label    string
		abi      abi
		messages string // where recvmsg and sendmsg without MSG_FASTOPEN end
	}{{"native", m.native, "notify"}, {"compat", m.compat, "allow"}} {
		a.label(c.label)
		a.load(offNr)
		if c.abi.x32 {
			a.jump(bpfJSET, x32Bit, "nosys")
		}
		for _, w := range []struct {
			nr     int32
			target string
		}{
			{c.abi.socket, "socket"}, {c.abi.connect, "connect"}, {c.abi.bind, "bind"},
			{c.abi.listen, "notify"}, {c.abi.getpeername, "notify"},
			{c.abi.sendto, "address"}, {c.abi.recvfrom, "address"},
			{c.abi.sendmsg, c.label + "-sendmsg"}, {c.abi.sendmmsg, c.label + "-sendmmsg"},
			{c.abi.recvmsg, c.messages}, {c.abi.recvmmsg, c.messages},
			{c.abi.ioUring, "perm"},
		} {
			a.jeq(uint32(w.nr), w.target)
		}
		if c.abi.socketcall != 0 {
			a.jeq(uint32(c.abi.socketcall), "socketcall")
		}
		a.ret(actAllow)
		a.label(c.label + "-sendmsg")
		a.load(offArgs + 2*8)
		a.jump(bpfJSET, msgFastopen, "opnotsupp")
		a.end(c.messages)
		a.label(c.label + "-sendmmsg")
		a.load(offArgs + 3*8)
		a.jump(bpfJSET, msgFastopen, "opnotsupp")
		a.end(c.messages)
	}
	a.label("socket")
	a.load(offArgs)
	a.jeq(afInet, "notify")
	a.jeq(afInet6, "notify")
	for _, family := range []uint32{afUnix, afNetlink, afAlg, afBluetooth, afCAN, afVsock} {
		a.jeq(family, "allow")
	}
	a.ret(actErrno | errnoAFNOSUPPORT)
	a.label("connect")
	a.load(offArgs + 2*8)
	a.jump(bpfJGT, sizeofSockaddrStorage, "allow") // EINVAL
	a.ret(actNotify)
	a.label("bind")
	a.load(offArgs + 2*8)
	a.jeq(sizeofSockaddrInet4, "notify")
	a.jeq(sizeofSockaddrInet6, "notify")
	a.jeq(sizeofSockaddrStorage, "notify")
	a.ret(actAllow)
	a.label("address")
	a.jumpNonzero(4, "notify")
	a.ret(actAllow)
	a.label("socketcall")
	a.load(offArgs)
	for _, call := range []uint32{
		callSocket, callBind, callConnect, callListen, callGetpeername, callSendto, callRecvfrom, callSendmsg, callSendmmsg,
	} {
		a.jeq(call, "notify")
	}
	a.label("allow")
	a.ret(actAllow)
	a.label("notify")
	a.ret(actNotify)
	a.label("opnotsupp")
	a.ret(actErrno | errnoOPNOTSUPP)
	a.label("perm")
	a.ret(actErrno | errnoPERM)
	a.label("nosys")
	a.ret(actErrno | errnoNOSYS)
	return a.program()
}

// end returns what the label's instruction would.
func (a *assembler) end(label string) {
	if label == "notify" {
		a.ret(actNotify)
		return
	}
	a.ret(actAllow)
}
