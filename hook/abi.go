package hook

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
)

// This file says in Go what abi.h says in C. abi_test.go compares the two.

const (
	abiVersion = 1
	// EnvVar tells the library about the session.
	EnvVar = "BORROWNET_PRELOAD"
	// MaxMessage bounds the bytes that follow a request or an answer.
	MaxMessage = 65535
)

// Op is what the library asks the broker for.
type Op uint32

// The operations, bn_op in abi.h.
const (
	OpResolve Op = 1
	OpConnect Op = 2
	OpSend    Op = 3
	OpPeer    Op = 4
	OpListen  Op = 5
)

// Verdict is what the library is to do.
type Verdict uint32

// The verdicts, bn_verdict in abi.h.
const (
	VerdictDone  Verdict = 0
	VerdictFail  Verdict = 1
	VerdictLocal Verdict = 2
)

// Families of an address, as Linux numbers them.
const (
	familyInet  = 2
	familyInet6 = 10
)

// Sizes of bn_request and bn_answer.
const (
	RequestSize = 32
	AnswerSize  = 32
)

// Request is bn_request.
type Request struct {
	Op   Op
	Size uint32         // bytes that follow
	Addr netip.AddrPort // IPv4 is never mapped
}

// Answer is bn_answer.
type Answer struct {
	Verdict Verdict
	Errno   uint32
	Size    uint32
	Addr    netip.AddrPort
}

// ParseRequest reads a request.
func ParseRequest(b []byte) (Request, error) {
	le := binary.NativeEndian
	if len(b) != RequestSize || le.Uint32(b) != abiVersion {
		return Request{}, errors.New("request of another version")
	}
	r := Request{Op: Op(le.Uint32(b[4:])), Size: le.Uint32(b[8:])}
	if r.Op < OpResolve || r.Op > OpListen {
		return Request{}, fmt.Errorf("operation %d", r.Op)
	}
	if r.Size > MaxMessage {
		return Request{}, fmt.Errorf("request of %d bytes", r.Size)
	}
	var err error
	r.Addr, err = parseAddr(b[12:])
	return r, err
}

// Append appends the request's bytes to b.
func (r Request) Append(b []byte) []byte {
	ne := binary.NativeEndian
	b = ne.AppendUint32(b, abiVersion)
	b = ne.AppendUint32(b, uint32(r.Op))
	b = ne.AppendUint32(b, r.Size)
	return appendAddr(b, r.Addr)
}

// ParseAnswer reads an answer with the bytes that follow it.
func ParseAnswer(b []byte) (Answer, error) {
	if len(b) < AnswerSize {
		return Answer{}, errors.New("no answer")
	}
	ne := binary.NativeEndian
	a := Answer{Verdict: Verdict(ne.Uint32(b)), Errno: ne.Uint32(b[4:]), Size: ne.Uint32(b[8:])}
	if int(a.Size) != len(b)-AnswerSize {
		return Answer{}, fmt.Errorf("answer of %d bytes, %d are said to follow", len(b), a.Size)
	}
	var err error
	a.Addr, err = parseAddr(b[12:])
	return a, err
}

// Append appends the answer's bytes to b.
func (a Answer) Append(b []byte) []byte {
	le := binary.NativeEndian
	b = le.AppendUint32(b, uint32(a.Verdict))
	b = le.AppendUint32(b, a.Errno)
	b = le.AppendUint32(b, a.Size)
	return appendAddr(b, a.Addr)
}

// parseAddr reads family, port and addr.
func parseAddr(b []byte) (netip.AddrPort, error) {
	port := binary.NativeEndian.Uint16(b[2:])
	switch family := binary.NativeEndian.Uint16(b); family {
	case 0:
		return netip.AddrPort{}, nil
	case familyInet:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port), nil
	case familyInet6:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[4:20])).Unmap(), port), nil
	default:
		return netip.AddrPort{}, fmt.Errorf("family %d", family)
	}
}

func appendAddr(b []byte, a netip.AddrPort) []byte {
	family := uint16(0)
	var addr [16]byte
	switch {
	case !a.IsValid():
	case a.Addr().Is4():
		family = familyInet
		copy(addr[:], a.Addr().AsSlice())
	default:
		family = familyInet6
		addr = a.Addr().As16()
	}
	b = binary.NativeEndian.AppendUint16(b, family)
	b = binary.NativeEndian.AppendUint16(b, a.Port())
	return append(b, addr[:]...)
}

// PreloadValue is the value of EnvVar for a session: the paths of its broker's and
// its helper's socket, the latter empty where the session has no namespace.
func PreloadValue(broker, helper string) (string, error) {
	for _, socket := range []string{broker, helper} {
		if strings.Contains(socket, ":") {
			return "", fmt.Errorf("%s: the preload library takes no path with a colon in it", socket)
		}
	}
	mode := "n"
	if helper == "" {
		mode = "r"
	}
	return fmt.Sprintf("%d:%s:%s:%s", abiVersion, mode, broker, helper), nil
}

// BrokerOf returns the path of the broker's socket in a value of EnvVar.
func BrokerOf(value string) (string, error) {
	words := strings.Split(value, ":")
	if len(words) != 4 || words[0] != fmt.Sprint(abiVersion) {
		return "", fmt.Errorf("%s=%q is of another version", EnvVar, value)
	}
	return words[2], nil
}

const preloadVar = "LD_PRELOAD"

// Lookup returns the value of a variable in env, "" if it is not there.
func Lookup(env []string, name string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// WithLibrary returns env with the library in it, told about the session by
// value. What was preloaded before still is.
func WithLibrary(env []string, library, value string) []string {
	list := library
	out := make([]string, 0, len(env)+2)
	for _, kv := range WithoutLibrary(env) {
		if old, ok := strings.CutPrefix(kv, preloadVar+"="); ok {
			if old != "" {
				list = library + ":" + old
			}
			continue
		}
		out = append(out, kv)
	}
	return append(out, preloadVar+"="+list, EnvVar+"="+value)
}

// WithoutLibrary undoes WithLibrary.
func WithoutLibrary(env []string) []string {
	out := make([]string, 0, len(env))
	for _, kv := range env {
		if strings.HasPrefix(kv, EnvVar+"=") {
			continue
		}
		if list, ok := strings.CutPrefix(kv, preloadVar+"="); ok {
			if list = Unlisted(list); list == "" {
				continue
			}
			kv = preloadVar + "=" + list
		}
		out = append(out, kv)
	}
	return out
}

// Unlisted returns a value of LD_PRELOAD without the library, of whatever build.
func Unlisted(list string) string {
	words := strings.FieldsFunc(list, func(r rune) bool { return r == ':' || r == ' ' })
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return path.Base(w) == libraryName }), ":")
}
