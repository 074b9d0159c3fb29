package capture

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"

	"golang.org/x/net/bpf"

	"github.com/borrownet/borrownet/netstack/flow"
)

const (
	// whole is more than any packet has.
	whole = 256 << 10
	// headers has room for those of IP and TCP with all their options.
	headers = 128
)

// What a filter can hold: jumps of classic BPF reach 255 instructions.
const (
	maxPorts = 16
	maxAddrs = 4 // of each family
)

// filter returns the program of classic BPF that lets the packets of some ports of spec on one interface pass: those to a
// server whole, those from it as spec says, and of ports that are watched those with which a connection begins. Packets
// begin with their IP header (packet(7), SOCK_DGRAM).
//
// Fragments behind the first have no ports and do not pass. TCP avoids them; where they occur, a piece of the flow is
// missing, which its receiver finds.
func filter(spec Spec, iface uint8, ports, watched []uint16) ([]bpf.RawInstruction, error) {
	var v4, v6 []netip.Addr
	for _, a := range spec.Addrs {
		if a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	if len(ports)+len(watched) > maxPorts || len(v4) > maxAddrs || len(v6) > maxAddrs {
		return nil, fmt.Errorf("filter for %d ports and %d addresses: at most %d and %d of each family", len(ports)+len(watched), len(spec.Addrs), maxPorts, maxAddrs)
	}
	if iface == Loopback {
		v6 = append(v6, netip.IPv6Loopback())
	}
	a := &assembler{ports: ports, watched: watched, answer: headers}
	if spec.Responses {
		a.answer = whole
	}
	a.load(0, 1)
	a.emit(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf0})
	a.equal(0x40, "v4", "")
	a.equal(0x60, "v6", "drop")
	a.label("v6")
	a.jump("section6")
	a.label("drop")
	a.ret(0)
	a.label("v4")
	a.section4(v4, iface == Loopback)
	a.label("section6")
	a.section6(v6)
	return a.assemble()
}

// assembler builds a program whose jumps name labels; "" is the next instruction.
type assembler struct {
	ports   []uint16
	watched []uint16
	answer  uint32 // bytes of a server's packets

	prog   []bpf.Instruction
	yes    map[int]string // labels that instructions of prog jump to
	no     map[int]string
	labels map[string]int
}

func (a *assembler) emit(i bpf.Instruction) { a.prog = append(a.prog, i) }

func (a *assembler) load(off, size int) { a.emit(bpf.LoadAbsolute{Off: uint32(off), Size: size}) }

func (a *assembler) ret(n uint32) { a.emit(bpf.RetConstant{Val: n}) }

func (a *assembler) label(name string) {
	if a.labels == nil {
		a.labels = make(map[string]int)
	}
	a.labels[name] = len(a.prog)
}

// branch emits a conditional jump.
func (a *assembler) branch(cond bpf.JumpTest, val uint32, yes, no string) {
	if a.yes == nil {
		a.yes, a.no = make(map[int]string), make(map[int]string)
	}
	a.yes[len(a.prog)], a.no[len(a.prog)] = yes, no
	a.emit(bpf.JumpIf{Cond: cond, Val: val})
}

func (a *assembler) equal(val uint32, yes, no string) { a.branch(bpf.JumpEqual, val, yes, no) }

// jump goes further than a branch can.
func (a *assembler) jump(to string) {
	if a.yes == nil {
		a.yes, a.no = make(map[int]string), make(map[int]string)
	}
	a.yes[len(a.prog)] = to
	a.emit(bpf.Jump{})
}

// verdicts emits what the branches of a section end in.
func (a *assembler) verdicts(section string) {
	a.label("request" + section)
	a.ret(whole)
	a.label("answer" + section)
	a.ret(a.answer)
	a.label("drop" + section)
	a.ret(0)
}

// anyPort compares what is loaded with each port.
func (a *assembler) anyPort(ports []uint16, yes string) {
	for _, p := range ports {
		a.equal(uint32(p), yes, "")
	}
}

// begins tells by the TCP flags that are loaded who asks for a connection.
func (a *assembler) begins(yes, no string) {
	a.emit(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: uint32(flow.SYN | flow.ACK | flow.RST)})
	a.equal(uint32(flow.SYN), yes, no)
}

// section4 judges an IPv4 packet (RFC 791 §3.1).
func (a *assembler) section4(own []netip.Addr, loopback bool) {
	a.load(9, 1)
	a.equal(protocolTCP, "", "drop4")
	a.load(6, 2)
	a.branch(bpf.JumpBitsSet, 0x1fff, "drop4", "")
	a.emit(bpf.LoadMemShift{Off: 0})
	side := func(at int, port uint32, yes, watch, no string) {
		a.load(at, 4)
		found := "port" + yes
		for _, ip := range own {
			b := ip.As4()
			a.equal(binary.BigEndian.Uint32(b[:]), found, "")
		}
		if loopback {
			a.emit(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xff000000})
			a.equal(127<<24, found, "")
		}
		a.jump(no)
		a.label(found)
		a.emit(bpf.LoadIndirect{Off: port, Size: 2})
		a.anyPort(a.ports, yes)
		if watch != "" {
			a.anyPort(a.watched, watch)
		}
		a.jump(no)
	}
	side(16, 2, "request4", "begins4", "from4")
	a.label("from4")
	side(12, 0, "answer4", "", "drop4")
	a.label("begins4")
	a.emit(bpf.LoadIndirect{Off: 13, Size: 1})
	a.begins("request4", "drop4")
	a.verdicts("4")
}

// section6 judges an IPv6 packet (RFC 8200 §3) without extension headers, which TCP flows do not have.
func (a *assembler) section6(own []netip.Addr) {
	a.load(6, 1)
	a.equal(protocolTCP, "", "drop6")
	side := func(at, port int, yes, watch, no string) {
		found := "port" + yes
		for i, ip := range own {
			b, next := ip.As16(), fmt.Sprint("not", i, yes)
			for w := range 4 {
				a.load(at+4*w, 4)
				a.equal(binary.BigEndian.Uint32(b[4*w:]), "", next)
			}
			a.jump(found)
			a.label(next)
		}
		a.jump(no)
		a.label(found)
		a.load(port, 2)
		a.anyPort(a.ports, yes)
		if watch != "" {
			a.anyPort(a.watched, watch)
		}
		a.jump(no)
	}
	side(24, 42, "request6", "begins6", "from6")
	a.label("from6")
	side(8, 40, "answer6", "", "drop6")
	a.label("begins6")
	a.load(53, 1)
	a.begins("request6", "drop6")
	a.verdicts("6")
}

// assemble resolves the labels. All jumps go forward.
func (a *assembler) assemble() ([]bpf.RawInstruction, error) {
	for i, ins := range a.prog {
		skip := func(name string) (int, error) {
			if name == "" {
				return 0, nil
			}
			at, ok := a.labels[name]
			if !ok || at <= i {
				return 0, fmt.Errorf("filter: no label %q behind instruction %d", name, i)
			}
			return at - i - 1, nil
		}
		yes, err := skip(a.yes[i])
		if err != nil {
			return nil, err
		}
		no, err := skip(a.no[i])
		if err != nil {
			return nil, err
		}
		switch j := ins.(type) {
		case bpf.Jump:
			a.prog[i] = bpf.Jump{Skip: uint32(yes)}
		case bpf.JumpIf:
			if yes > math.MaxUint8 || no > math.MaxUint8 {
				return nil, fmt.Errorf("filter: instruction %d jumps too far", i)
			}
			j.SkipTrue, j.SkipFalse = uint8(yes), uint8(no)
			a.prog[i] = j
		}
	}
	return bpf.Assemble(a.prog)
}
