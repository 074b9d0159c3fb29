// Command hostile is an agent that attacks its client: it answers just enough
// for a session to stand and then sends packets that no honest agent sends.
// The end-to-end tests run it in place of the real agent and look for what got
// through.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/borrownet/borrownet/agent"
	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/link"
	"github.com/borrownet/borrownet/netstack/wg"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run() error {
	clientKey := flag.String("client-key", "", "the client's WireGuard public key, base64")
	flag.Duration("idle-ttl", 0, "ignored")
	flag.Duration("hard-ttl", 0, "ignored")
	flag.Parse()
	key, err := wg.ParsePublicKey(*clientKey)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	ln, err := agent.Listen()
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { ln.Close() })
	private := wg.NewPrivateKey()
	err = json.NewEncoder(os.Stdout).Encode(wire.Hello{
		Borrownet: "agent", Protocol: wire.Protocol, Version: "hostile",
		PublicKey: private.Public().String(), Port: uint16(ln.Addr().(*net.TCPAddr).Port),
	})
	if err != nil {
		return err
	}
	verifier, err := link.NewVerifier(private, key)
	if err != nil {
		return err
	}
	for {
		conn, err := ln.Accept()
		if err != nil {
			return nil
		}
		go func() {
			_, role, err := verifier.Verify(ctx, conn)
			if err != nil || role != link.RoleExpress {
				conn.Close() // one lane is enough for the attacks
				return
			}
			if err := attack(ctx, conn, private, key); err != nil {
				fmt.Fprintln(os.Stderr, "error:", err)
			}
		}()
	}
}

// attack serves one carrier until ctx ends.
func attack(ctx context.Context, conn net.Conn, private wg.PrivateKey, client wg.PublicKey) error {
	pod, err := agent.Kernel{}.Addrs()
	if err != nil {
		return err
	}
	stack, err := netstack.New(netstack.Config{Name: "hostile", MTU: wire.MTU, Addrs: []netip.Addr{wire.AgentAddr}})
	if err != nil {
		return err
	}
	if err := serveInfo(stack, pod); err != nil {
		return err
	}
	l := link.New(link.Config{})
	l.Attach(conn)
	device, err := wg.New(wg.Config{
		Private: private, Peer: client, MTU: wire.MTU, Link: l,
		Packets: newSpoiled(stack, attacks(pod)),
	})
	if err != nil {
		return err
	}
	defer device.Close()
	return l.Run(ctx)
}

// serveInfo answers the client's first question, so that the session stands.
func serveInfo(stack *netstack.Stack, pod []netip.Addr) error {
	ln, err := stack.ListenTCP(netip.AddrPortFrom(wire.AgentAddr, wire.ControlPort))
	if err != nil {
		return err
	}
	answer := func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(wire.Info{
			Protocol: wire.Protocol, Version: "hostile", Hostname: "hostile", Addrs: pod,
			Resolv: "nameserver 192.0.2.53\n", Expires: time.Now().Add(time.Hour),
		})
	}
	go http.Serve(ln, http.HandlerFunc(answer))
	return nil
}

// spoiled is a stack's packets with attacks among them.
type spoiled struct {
	stack   *netstack.Stack
	packets chan []byte // unbuffered, never closed
	once    sync.Once
	done    chan struct{} // closed by Close
}

// attackEvery is the pause between two attacks.
const attackEvery = 200 * time.Microsecond

func newSpoiled(stack *netstack.Stack, attacks [][]byte) *spoiled {
	s := &spoiled{stack: stack, packets: make(chan []byte), done: make(chan struct{})}
	go s.pump(attacks)
	go s.honest()
	return s
}

func (s *spoiled) pump(attacks [][]byte) {
	tick := time.NewTicker(attackEvery)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-tick.C:
		case <-s.done:
			return
		}
		s.send(attacks[i%len(attacks)])
	}
}

func (s *spoiled) honest() {
	bufs, sizes := [][]byte{make([]byte, wire.MTU)}, []int{0}
	for {
		if _, err := s.stack.ReadPackets(bufs, sizes, 0); err != nil {
			return
		}
		s.send(slices.Clone(bufs[0][:sizes[0]]))
	}
}

func (s *spoiled) send(pkt []byte) {
	select {
	case s.packets <- pkt:
	case <-s.done:
	}
}

func (s *spoiled) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	select {
	case pkt := <-s.packets:
		sizes[0] = copy(bufs[0][offset:], pkt)
		return 1, nil
	case <-s.done:
		return 0, net.ErrClosed
	}
}

func (s *spoiled) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		s.stack.Deliver(b[offset:])
	}
	return len(bufs), nil
}

func (s *spoiled) BatchSize() int { return 1 }

func (s *spoiled) Close() error {
	s.once.Do(func() { close(s.done) })
	return s.stack.Close()
}

// attacks are the packets that must never reach a program or the laptop. Their
// ports are those that the tests listen on.
func attacks(pod []netip.Addr) [][]byte {
	var (
		stranger = netip.MustParseAddr("198.51.100.66")
		local    = netip.MustParseAddr("127.0.0.1")
		all      [][]byte
	)
	for _, ip := range pod {
		if ip.Is6() {
			continue
		}
		for _, src := range []netip.Addr{stranger, local, ip, wire.AgentAddr, netip.MustParseAddr("0.0.0.0")} {
			for _, dst := range []netip.Addr{ip, local, wire.ClientAddr, netip.MustParseAddr("255.255.255.255")} {
				for _, port := range []uint16{tcpPort, 53, 80} {
					all = append(all, tcp4(src, dst, port, 0x02), tcp4(src, dst, port, 0x12))
				}
				all = append(all, udp4(src, dst, udpPort), echo4(src, dst))
			}
		}
	}
	for _, addr := range strings.Split(os.Getenv("HOSTILE_TARGETS"), ",") {
		if ip, err := netip.ParseAddr(addr); err == nil {
			all = append(all, tcp4(stranger, ip, tcpPort, 0x02), udp4(stranger, ip, udpPort))
		}
	}
	truncated := tcp4(stranger, local, tcpPort, 0x02)[:22]
	return append(all, truncated, []byte{0x45}, []byte{0x60, 0, 0}, make([]byte, 64), []byte(strings.Repeat("\xff", 1500)))
}

// The ports that the tests listen on inside the session and on the laptop.
const (
	tcpPort = 18080
	udpPort = 18081
)
