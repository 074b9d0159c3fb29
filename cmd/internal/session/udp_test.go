package session

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/hook/hooktest"
	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/flow"
	"github.com/borrownet/borrownet/netstack/netstacktest"
)

// TestRefusedDatagramsFindALateServer: a program that has sent datagrams to a port of localhost before there was a server
// in its session reaches it when there is, though it never stops sending.
func TestRefusedDatagramsFindALateServer(t *testing.T) {
	l := newLab(t)
	p := newProgram(t, l.start())
	at := netip.MustParseAddrPort("127.0.0.1:18125")
	client, err := p.connect(at, unix.SOCK_DGRAM)
	if err != nil {
		t.Fatal(err)
	}
	send := func() error {
		_, err := client.WriteString("count:1")
		for errors.Is(err, syscall.ECONNREFUSED) { // that was about an earlier one
			_, err = client.WriteString("count:1")
		}
		return err
	}
	if err := send(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("without a server: %v, want ECONNREFUSED", err)
	}
	server := p.socket(at, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK)
	defer unix.Close(server)
	if err := unix.Bind(server, sockaddr(at)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	for limit := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if err := send(); err != nil {
			t.Fatal(err)
		}
		if n, _, err := unix.Recvfrom(server, buf, 0); err == nil {
			if string(buf[:n]) != "count:1" {
				t.Errorf("the server got %q", buf[:n])
			}
			return
		}
		if time.Now().After(limit) {
			t.Fatal("the server gets nothing")
		}
	}
}

// TestManyShortUDPFlows: who takes a new socket for each datagram, as tools do that are run in a loop, is served for as
// long as it likes, both ways.
func TestManyShortUDPFlows(t *testing.T) {
	l := newLab(t)
	s := l.start()
	p := newProgram(t, s)
	laptop, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer laptop.Close()
	go func() { // ends with laptop
		buf := make([]byte, 16)
		for {
			n, from, err := laptop.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = laptop.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	at := netip.MustParseAddrPort(laptop.LocalAddr().String())
	for i := range maxUDPFlows + 20 {
		fd := p.socket(at, unix.SOCK_DGRAM)
		own := netip.AddrPortFrom(at.Addr(), uint16(20000+i)) // the kernel would choose some twice
		err := errors.Join(unix.Bind(fd, sockaddr(own)), unix.Connect(fd, sockaddr(at)))
		if err == nil {
			_, err = unix.Write(fd, []byte("ping"))
		}
		buf := make([]byte, 16)
		if err == nil {
			err = hooktest.Again(func() error { _, err := unix.Read(fd, buf); return err })
		}
		unix.Close(fd)
		if err != nil || string(buf[:4]) != "ping" {
			t.Fatalf("flow %d gets %q, %v", i, buf[:4], err)
		}
	}
	table := s.locals.udp
	eventually(t, "flows that gave way to end", func() bool {
		table.mu.Lock()
		defer table.mu.Unlock()
		return table.open == len(table.flows) && table.open == maxUDPFlows
	})
}

// TestClientsOfAUDPPort: the last that spoke to a published port are known.
func TestClientsOfAUDPPort(t *testing.T) {
	o := &openUDP{clients: map[uint16]udpClient{}}
	begun := time.Now()
	for i := range maxUDPFlows + 1 {
		o.remember(udpClient{addr: netip.AddrPortFrom(netip.IPv6Loopback(), uint16(1000+i)), last: begun.Add(time.Duration(i))})
	}
	_, first := o.clients[1000]
	_, second := o.clients[1001]
	_, last := o.clients[1000+maxUDPFlows]
	if len(o.clients) != maxUDPFlows || first || !second || !last {
		t.Errorf("%d are known, the first %t, the second %t, the last %t", len(o.clients), first, second, last)
	}
}

// script is a datagram socket whose reads end as it says, one after the other, the last for ever.
type script struct {
	net.Conn
	reads []error // nil: a datagram
}

func (s *script) Read(b []byte) (int, error) {
	err := s.reads[0]
	if len(s.reads) > 1 {
		s.reads = s.reads[1:]
	}
	if err != nil {
		return 0, &net.OpError{Op: "read", Net: "udp", Err: os.NewSyscallError("recvfrom", err)}
	}
	return copy(b, "answer"), nil
}

func (s *script) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	n, err := s.Read(b)
	return n, netip.AddrPort{}, err
}

// TestAnswersAfterAnError: what an ICMP error says about one datagram is not the end of a flow.
func TestAnswersAfterAnError(t *testing.T) {
	f := flow.Flow{Proto: flow.UDP, Src: netip.MustParseAddrPort("192.0.2.10:4000"), Dst: netip.MustParseAddrPort("198.51.100.9:53")}
	for _, tt := range []struct {
		err  syscall.Errno
		told uint8 // code of the ICMP error; 0 = none
	}{
		{syscall.EHOSTUNREACH, 1}, {syscall.ECONNREFUSED, 3}, {syscall.EMSGSIZE, 0}, {syscall.EACCES, 13},
	} {
		t.Run(tt.err.Error(), func(t *testing.T) {
			stack := netstacktest.New(t, netstack.Config{Name: "client", Addrs: []netip.Addr{wire.ClientAddr}, Transparent: true})
			table := newUDPTable(stack, nil, nil)
			table.inbound(&script{reads: []error{tt.err, nil, net.ErrClosed}}, f, &clock{}, table.refuser(f, func() { t.Error("a young flow ends") }))
			if tt.told != 0 {
				if got := leaving(t, stack); got.Flow.Proto != flow.ICMP || got.ICMPCode != tt.told {
					t.Errorf("the program is told %+v", got)
				}
			}
			if got := leaving(t, stack); got.Flow != f.Reverse() {
				t.Errorf("got %+v, want the answer", got)
			}
		})
	}
}

// leaving is the next packet that leaves a stack.
func leaving(t *testing.T, s *netstack.Stack) flow.Packet {
	t.Helper()
	bufs, sizes := [][]byte{make([]byte, 1500)}, make([]int, 1)
	if _, err := s.ReadPackets(bufs, sizes, 0); err != nil {
		t.Fatal(err)
	}
	p, err := flow.Parse(bufs[0][:sizes[0]])
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestRelayedAnswersAfterAnError is the same where sockets are the laptop's own.
func TestRelayedAnswersAfterAnError(t *testing.T) {
	program, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	c, err := net.DialUDP("udp4", nil, program.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	(&exchange{}).replies(&script{reads: []error{syscall.EHOSTDOWN, nil, net.ErrClosed}}, c)
	program.SetReadDeadline(time.Now().Add(30 * time.Second))
	buf := make([]byte, 16)
	if n, err := program.Read(buf); err != nil || string(buf[:n]) != "answer" {
		t.Errorf("got %q, %v", buf[:n], err)
	}
}
