package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/borrownet/borrownet/netstack/flow"
)

// errnoOf returns the errno that a kernel socket gives where gVisor gives err.
// ErrClosedForReceive is io.EOF.
func errnoOf(err tcpip.Error) error {
	switch err.(type) {
	case nil:
		return nil
	case *tcpip.ErrClosedForReceive:
		return io.EOF
	case *tcpip.ErrClosedForSend:
		return syscall.EPIPE
	case *tcpip.ErrConnectionRefused:
		return syscall.ECONNREFUSED
	case *tcpip.ErrConnectionReset:
		return syscall.ECONNRESET
	case *tcpip.ErrConnectionAborted, *tcpip.ErrAborted:
		return syscall.ECONNABORTED
	case *tcpip.ErrTimeout:
		return syscall.ETIMEDOUT
	case *tcpip.ErrHostUnreachable, *tcpip.ErrNoNet:
		return syscall.EHOSTUNREACH
	case *tcpip.ErrHostDown:
		return syscall.EHOSTDOWN
	case *tcpip.ErrNetworkUnreachable:
		return syscall.ENETUNREACH
	case *tcpip.ErrBadLocalAddress, *tcpip.ErrNoPortAvailable:
		return syscall.EADDRNOTAVAIL
	case *tcpip.ErrPortInUse:
		return syscall.EADDRINUSE
	case *tcpip.ErrNoBufferSpace:
		return syscall.ENOBUFS
	case *tcpip.ErrMessageTooLong:
		return syscall.EMSGSIZE
	}
	return rareErrnoOf(err)
}

// rareErrnoOf is errnoOf for what a correct caller seldom sees.
func rareErrnoOf(err tcpip.Error) error {
	switch err.(type) {
	case *tcpip.ErrNotConnected:
		return syscall.ENOTCONN
	case *tcpip.ErrAlreadyConnected:
		return syscall.EISCONN
	case *tcpip.ErrAlreadyConnecting:
		return syscall.EALREADY
	case *tcpip.ErrConnectStarted:
		return syscall.EINPROGRESS
	case *tcpip.ErrWouldBlock:
		return syscall.EAGAIN
	case *tcpip.ErrDestinationRequired:
		return syscall.EDESTADDRREQ
	case *tcpip.ErrAddressFamilyNotSupported:
		return syscall.EAFNOSUPPORT
	case *tcpip.ErrUnknownProtocol:
		return syscall.EPROTONOSUPPORT
	case *tcpip.ErrUnknownProtocolOption:
		return syscall.ENOPROTOOPT
	case *tcpip.ErrNotSupported:
		return syscall.EOPNOTSUPP
	case *tcpip.ErrNotPermitted:
		return syscall.EPERM
	case *tcpip.ErrBroadcastDisabled:
		return syscall.EACCES
	case *tcpip.ErrBadAddress, *tcpip.ErrBadBuffer:
		return syscall.EFAULT
	}
	return syscall.EINVAL
}

// opError returns err as the net package reports it, nil for nil, and io.EOF
// as it is.
func opError(op, network string, local, remote net.Addr, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &net.OpError{Op: op, Net: network, Source: local, Addr: remote, Err: err}
}

// A refusal is how a flow's sender is told that its flow is not carried.
type refusal uint8

const (
	refuse     refusal = iota // RST, or port unreachable
	netGone                   // network unreachable
	hostGone                  // host unreachable
	prohibited                // administratively prohibited
	silence                   // nothing: the sender's own timeout tells it
)

// refusalFor returns how to say err, the error of the dial that was made on
// behalf of the flow's sender.
func refusalFor(err error) refusal {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return refuse
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.ENETDOWN):
		return netGone
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EHOSTDOWN):
		return hostGone
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return prohibited
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return silence
	}
	return refuse
}

// icmpv4Code returns the destination unreachable code for r. What Linux makes
// of it: port ECONNREFUSED, net ENETUNREACH, host and prohibited EHOSTUNREACH
// (ICMP has no code for EACCES).
func (r refusal) icmpv4Code() header.ICMPv4Code {
	switch r {
	case netGone:
		return header.ICMPv4NetUnreachable
	case hostGone:
		return header.ICMPv4HostUnreachable
	case prohibited:
		return header.ICMPv4AdminProhibited
	}
	return header.ICMPv4PortUnreachable
}

// icmpv6Code returns the destination unreachable code for r. What Linux makes
// of it: port ECONNREFUSED, net ENETUNREACH, host EHOSTUNREACH, prohibited
// EACCES.
func (r refusal) icmpv6Code() header.ICMPv6Code {
	switch r {
	case netGone:
		return header.ICMPv6NetworkUnreachable
	case hostGone:
		return header.ICMPv6AddressUnreachable
	case prohibited:
		return header.ICMPv6Prohibited
	}
	return header.ICMPv6PortUnreachable
}

// errnoOfICMPv6 returns what Linux makes of the destination unreachable
// messages that gVisor ignores, nil for all else.
func errnoOfICMPv6(p flow.Packet) error {
	if p.Flow.Proto != flow.ICMPv6 || p.ICMPType != uint8(header.ICMPv6DstUnreachable) {
		return nil
	}
	switch header.ICMPv6Code(p.ICMPCode) {
	case header.ICMPv6Prohibited, header.ICMPv6Policy, header.ICMPv6RejectRoute:
		return syscall.EACCES
	case header.ICMPv6BeyondScope, header.ICMPv6AddressUnreachable:
		return syscall.EHOSTUNREACH
	}
	return nil
}

// errnoOfICMP returns what Linux makes of a destination unreachable message
// (ICMP: icmp_err_convert, ICMPv6: icmpv6_err_convert), nil for all else.
func errnoOfICMP(p flow.Packet) error {
	switch p.Flow.Proto {
	case flow.ICMPv6:
		if p.ICMPType != uint8(header.ICMPv6DstUnreachable) {
			return nil
		}
		switch header.ICMPv6Code(p.ICMPCode) {
		case header.ICMPv6PortUnreachable:
			return syscall.ECONNREFUSED
		case header.ICMPv6NetworkUnreachable:
			return syscall.ENETUNREACH
		}
		return errnoOfICMPv6(p)
	case flow.ICMP:
		if p.ICMPType != uint8(header.ICMPv4DstUnreachable) {
			return nil
		}
		switch header.ICMPv4Code(p.ICMPCode) {
		case header.ICMPv4PortUnreachable:
			return syscall.ECONNREFUSED
		case header.ICMPv4NetUnreachable:
			return syscall.ENETUNREACH
		case header.ICMPv4FragmentationNeeded:
			return nil // the stack's own business
		}
		return syscall.EHOSTUNREACH
	}
	return nil
}
