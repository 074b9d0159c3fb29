package netstack

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/borrownet/borrownet/netstack/fairqueue"
	"github.com/borrownet/borrownet/netstack/flow"
)

const (
	// defaultMTU fits a 64 KiB buffer of gVisor with all headers, and
	// WireGuard's padding.
	defaultMTU = 65440
	// minMTU is what IPv6 asks of a link (RFC 8200 §5).
	minMTU = 1280
	// maxMTU is the most an IPv4 length field can say.
	maxMTU = 65535
)

// Config describes a Stack.
type Config struct {
	// Name is for logs.
	Name string
	// MTU is the largest IP packet that leaves the stack; 0 means 65440.
	MTU int
	// Addrs are the stack's own addresses.
	Addrs []netip.Addr
	// Transparent accepts packets to any destination and lets conns use any
	// source.
	Transparent bool
	// Loopback accepts packets from and to 127/8 and ::1 from the link.
	Loopback bool
	// IPv6 enables IPv6 even if no address in Addrs is one.
	IPv6 bool
	// Patient is for a link on which each packet is dear: an acknowledgement that is alone waits, for
	// fairqueue.AckDelay at most, for something to travel with.
	Patient bool
	// Buffers is a budget, in bytes, for what TCP conns buffer in each direction:
	// together they buffer a few times as much at most, but each may a little. 0
	// bounds each conn for itself.
	Buffers int
	// Yields reports whether a flow of a conn, named by its outbound direction,
	// may wait for all others: its conn writes only while nothing else is queued.
	// nil means that none may.
	Yields func(flow.Flow) bool
	// Logger is where the stack logs to; nil discards.
	Logger *slog.Logger
}

// A Stack is one IP host. Its methods may be called concurrently.
type Stack struct {
	log  *slog.Logger
	own  []netip.Addr // sorted
	ipv6 bool
	any  bool // transparent: every address is as good as its own
	gv   *stack.Stack
	link *link
	done chan struct{} // closed by Close

	onTCP     atomic.Pointer[forwarder]
	onUDP     atomic.Pointer[func(flow.Flow, []byte)]
	onEcho    atomic.Pointer[func(Echo)]
	counts    counters
	dials     pendingDials
	sockets   udpSockets
	receivers udpReceivers
	shares    *shares
	open      openConns

	mu         sync.Mutex
	closed     bool
	handshakes sync.WaitGroup // Accepts in progress; Add with mu held and not closed
}

// New makes a stack. gVisor starts GOMAXPROCS goroutines for TCP in it, which
// run until Close.
func New(cfg Config) (*Stack, error) {
	if cfg.MTU == 0 {
		cfg.MTU = defaultMTU
	}
	if cfg.MTU < minMTU || cfg.MTU > maxMTU {
		return nil, fmt.Errorf("make stack %s: MTU %d is not between %d and %d", cfg.Name, cfg.MTU, minMTU, maxMTU)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Stack{
		log:  cfg.Logger,
		ipv6: cfg.IPv6,
		any:  cfg.Transparent,
		link: newLink(cfg.MTU),
		done: make(chan struct{}),
	}
	s.link.patient = cfg.Patient
	s.link.yields = cfg.Yields
	for _, a := range cfg.Addrs {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() {
			return nil, fmt.Errorf("make stack %s: %v is no address of a host", cfg.Name, a)
		}
		a = a.Unmap().WithZone("")
		s.own = append(s.own, a)
		s.ipv6 = s.ipv6 || a.Is6()
	}
	slices.SortFunc(s.own, netip.Addr.Compare)
	s.own = slices.Compact(s.own)

	s.gv = newGVisor(cfg, s.ipv6)
	s.shares = newShares(s.gv, cfg.Buffers)
	if err := s.configure(cfg); err != nil {
		s.gv.Destroy()
		return nil, fmt.Errorf("make stack %s: %w", cfg.Name, err)
	}
	return s, nil
}

func newGVisor(cfg Config, v6 bool) *stack.Stack {
	opts := stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{
			ipv4.NewProtocolWithOptions(ipv4.Options{AllowExternalLoopbackTraffic: cfg.Loopback}),
		},
		TransportProtocols: []stack.TransportProtocolFactory{
			tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4,
		},
	}
	if v6 {
		// The zero options: no router solicitations, no duplicate address
		// detection, no link-local address. The link has two ends and no noise.
		opts.NetworkProtocols = append(opts.NetworkProtocols,
			ipv6.NewProtocolWithOptions(ipv6.Options{AllowExternalLoopbackTraffic: cfg.Loopback}))
		opts.TransportProtocols = append(opts.TransportProtocols, icmp.NewProtocol6)
	}
	return stack.New(opts)
}

// configure sets up s.gv, which is new.
func (s *Stack) configure(cfg Config) error {
	if err := setStreamProfile(s.gv); err != nil {
		return err
	}
	if err := s.shares.configure(); err != nil {
		return fmt.Errorf("set sizes of TCP buffers: %w", err)
	}
	s.gv.SetTransportProtocolHandler(tcp.ProtocolNumber, s.handleTCP)
	s.gv.SetTransportProtocolHandler(udp.ProtocolNumber, s.handleUDP)
	s.gv.SetTransportProtocolHandler(icmp.ProtocolNumber4, s.handleEcho4)
	routes := []tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nicID}}
	if s.ipv6 {
		s.gv.SetTransportProtocolHandler(icmp.ProtocolNumber6, s.handleEcho6)
		routes = append(routes, tcpip.Route{Destination: header.IPv6EmptySubnet, NIC: nicID})
	}
	if err := s.gv.CreateNICWithOptions(nicID, s.link, stack.NICOptions{Name: cfg.Name}); err != nil {
		return errnoOf(err)
	}
	s.gv.SetRouteTable(routes)
	for _, a := range s.own {
		addr := tcpip.ProtocolAddress{Protocol: protocolOf(a), AddressWithPrefix: addressWithPrefix(a)}
		if err := s.gv.AddProtocolAddress(nicID, addr, stack.AddressProperties{}); err != nil {
			return fmt.Errorf("add address %v: %w", a, errnoOf(err))
		}
	}
	if cfg.Transparent {
		if err := errors.Join(
			errnoOf(s.gv.SetPromiscuousMode(nicID, true)),
			errnoOf(s.gv.SetSpoofing(nicID, true)),
		); err != nil {
			return fmt.Errorf("make transparent: %w", err)
		}
	}
	return nil
}

// setStreamProfile sets TCP up for a link that neither loses nor reorders:
// every retransmission would be one too many, so loss is not looked for (no
// RACK), and timers outlast a stall of the carrier. A carrier that is gone for
// three minutes must not end a flow: 40 retries of at most 10 s do not.
func setStreamProfile(gv *stack.Stack) error {
	var (
		recovery   = tcpip.TCPRecovery(0)
		sack       = tcpip.TCPSACKEnabled(true)
		congestion = tcpip.CongestionControlOption("cubic")
		minRTO     = tcpip.TCPMinRTOOption(time.Second)
		maxRTO     = tcpip.TCPMaxRTOOption(10 * time.Second)
		retries    = tcpip.TCPMaxRetriesOption(40)
		timeWait   = tcpip.TCPTimeWaitTimeoutOption(5 * time.Second)
	)
	for _, opt := range []tcpip.SettableTransportProtocolOption{
		&recovery, &sack, &congestion, &minRTO, &maxRTO, &retries, &timeWait,
	} {
		if err := gv.SetTransportProtocolOption(tcp.ProtocolNumber, opt); err != nil {
			return fmt.Errorf("set TCP option %T: %w", opt, errnoOf(err))
		}
	}
	return nil
}

// closeTimeout is how long Close waits for gVisor.
const closeTimeout = 900 * time.Millisecond

// Close ends the stack: its conns are reset, pending and later calls fail with
// net.ErrClosed. All goroutines of the stack have ended when Close returns,
// within a second; only handlers of ForwardTCP are their owners' business, and
// goroutines of gVisor's timers that fire at that moment end by themselves.
func (s *Stack) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return net.ErrClosed
	}
	s.closed = true
	s.mu.Unlock()

	// Senders that wait in the link hold the locks of their endpoints, so the
	// link goes first.
	close(s.done)
	s.link.close()
	s.gv.Close()

	ended := make(chan struct{})
	go s.waitEnd(ended)
	timeout := time.NewTimer(closeTimeout)
	defer timeout.Stop()
	select {
	case <-ended:
	case <-timeout.C:
		s.log.Warn("stack did not end in time", "dur", closeTimeout)
	}
	return nil
}

// waitEnd closes ended when nothing of the stack runs any more, however long that takes.
func (s *Stack) waitEnd(ended chan<- struct{}) {
	quiet := make(chan struct{})
	go func() { // ends with the stack
		s.handshakes.Wait()
		s.gv.Wait()
		close(quiet)
	}()
	// An Accept may register its endpoint after gVisor's Close has looked.
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Minute) {
		select {
		case <-quiet:
			close(ended)
			return
		case <-time.After(pause):
			s.gv.Close()
		}
	}
}

// join adds a goroutine or a call to wg unless s is closed.
func (s *Stack) join(wg *sync.WaitGroup) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		wg.Add(1)
	}
	return !s.closed
}

func (s *Stack) isClosed() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// owns reports whether a is one of the stack's own addresses.
func (s *Stack) owns(a netip.Addr) bool {
	_, found := slices.BinarySearchFunc(s.own, a, netip.Addr.Compare)
	return found
}

// Deliver gives the stack one IP packet from the link. It copies pkt and never
// blocks. Packets of one flow must be delivered by one goroutine at a time.
func (s *Stack) Deliver(pkt []byte) {
	if s.isClosed() {
		return
	}
	s.counts.packetsIn.Add(1)
	s.counts.bytesIn.Add(uint64(len(pkt)))
	if len(pkt) < header.IPv4MinimumSize {
		s.counts.malformed.Add(1)
		return
	}
	var proto tcpip.NetworkProtocolNumber
	switch v := pkt[0] >> 4; {
	case v == 4:
		proto = header.IPv4ProtocolNumber
	case v == 6 && s.ipv6 && len(pkt) >= header.IPv6MinimumSize:
		proto = header.IPv6ProtocolNumber
	default:
		s.counts.malformed.Add(1)
		return
	}
	if s.receivers.take(pkt) {
		s.counts.udpIn.Add(1)
		return
	}
	pb := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: bufferOf(pkt)})
	if p, ok := parseICMP(pkt); ok {
		s.dials.heed(p)
		s.sockets.heed(p)
		s.receivers.heed(p)
	}
	s.link.deliver(proto, pb)
	pb.DecRef()
}

// headSize is room for the headers of nearly every packet.
const headSize = 128

// bufferOf copies pkt, its headers apart from the rest: gVisor shares packets, and copies the part with a header when it looks
// at one that is shared.
func bufferOf(pkt []byte) buffer.Buffer {
	b := buffer.MakeWithData(pkt[:min(len(pkt), headSize)])
	if len(pkt) > headSize {
		b.Append(buffer.NewViewWithData(pkt[headSize:]))
	}
	return b
}

// parseICMP parses pkt if it is ICMP.
func parseICMP(pkt []byte) (flow.Packet, bool) {
	if pkt[0]>>4 == 4 {
		if pkt[9] != uint8(flow.ICMP) {
			return flow.Packet{}, false
		}
	} else if pkt[6] == uint8(flow.TCP) || pkt[6] == uint8(flow.UDP) {
		return flow.Packet{}, false
	}
	p, err := flow.Parse(pkt)
	return p, err == nil && (p.Flow.Proto == flow.ICMP || p.Flow.Proto == flow.ICMPv6)
}

// ReadPackets waits for packets that leave the stack and copies up to
// len(bufs) of them to bufs[i][offset:], their lengths to sizes[i]. It returns
// how many, and net.ErrClosed after Close. A packet that does not fit its
// buffer is lost and has size 0, and the error is io.ErrShortBuffer. Packets
// keep their order if one goroutine reads.
func (s *Stack) ReadPackets(bufs [][]byte, sizes []int, offset int) (int, error) {
	return s.ReadLane(fairqueue.Express, bufs, sizes, offset)
}

// ReadLane is ReadPackets for the packets of one lane. There are none in
// [fairqueue.Bulk] without [Stack.Split].
func (s *Stack) ReadLane(lane fairqueue.Lane, bufs [][]byte, sizes []int, offset int) (int, error) {
	return s.link.readPackets(lane, bufs, sizes, offset)
}

// Split says whether flows that send much leave by [fairqueue.Bulk], see
// [fairqueue.Queue.Split]. Who reads must say what has arrived.
func (s *Stack) Split(on bool) { s.link.split(on) }

// Strand takes all flows out of [fairqueue.Bulk], see [fairqueue.Queue.Strand].
func (s *Stack) Strand() { s.link.strand() }

// Arrived says that the first n packets that were ever read from a lane have
// arrived at the other end, see [fairqueue.Queue.Arrived].
func (s *Stack) Arrived(lane fairqueue.Lane, n uint64) { s.link.arrived(lane, n) }
