package router

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/netstack/flow"
)

const (
	syn    = flow.SYN
	synAck = flow.SYN | flow.ACK
	ack    = flow.ACK
)

func newTestRouter() *Router {
	return New(Config{
		Session:     []netip.Addr{netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8::10")},
		Client:      netip.MustParseAddr("192.0.0.2"),
		Agent:       netip.MustParseAddr("192.0.0.1"),
		Remote:      netip.MustParseAddr("192.0.0.4"),
		Resolver:    netip.MustParseAddr("192.0.0.5"),
		Nameservers: []netip.Addr{netip.MustParseAddr("203.0.113.53"), netip.MustParseAddr("2001:db8:53::53")},
		Local:       []netip.Prefix{netip.MustParsePrefix("203.0.113.192/26"), netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.0.0.0/29")},
	})
}

// step is a packet from one side and what becomes of it.
type step struct {
	from side
	pkt  []byte
	want Verdict
	drop string // why, if want is Drop
}

func (s step) run(r *Router) Verdict {
	switch s.from {
	case fromSession:
		return r.FromSession(s.pkt)
	case fromStack:
		return r.FromStack(s.pkt)
	case fromContainer:
		return r.FromContainer(s.pkt)
	}
	return r.FromTunnel(s.pkt)
}

func sess(pkt []byte, want Verdict) step      { return step{fromSession, pkt, want, ""} }
func stk(pkt []byte, want Verdict) step       { return step{fromStack, pkt, want, ""} }
func tun(pkt []byte, want Verdict) step       { return step{fromTunnel, pkt, want, ""} }
func sessDrop(pkt []byte, reason string) step { return step{fromSession, pkt, Drop, reason} }
func stkDrop(pkt []byte, reason string) step  { return step{fromStack, pkt, Drop, reason} }
func cont(pkt []byte, want Verdict) step      { return step{fromContainer, pkt, want, ""} }
func contDrop(pkt []byte, reason string) step { return step{fromContainer, pkt, Drop, reason} }
func tunDrop(pkt []byte, reason string) step  { return step{fromTunnel, pkt, Drop, reason} }
func truncated(pkt []byte) []byte             { return pkt[:len(pkt)-1] }
func other(src, dst string, proto byte) []byte {
	return ipPacket(flow.Proto(proto), addr(src), addr(dst), make([]byte, 20))
}
func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

const (
	app    = "192.0.2.10:61001"
	app6   = "[2001:db8::10]:61001"
	svc    = "198.51.100.7:443"
	svc6   = "[2001:db8:7::7]:443"
	client = "192.0.0.2:20000"
	agent  = "192.0.0.1:80"
	lo     = "127.0.0.1:61001"
	remote = "192.0.0.4:9901"     // the pod's loopback
	office = "203.0.113.200:5432" // local by policy

	inside   = "192.0.2.10:40000" // a program in a container
	resolver = "192.0.0.5:53"     // the containers'
)

var verdictTests = []struct {
	name  string
	steps []step
}{
	{"tcp-out-and-back", []step{
		sess(tcpPacket(app, svc, syn), ToTunnel),
		tun(tcpPacket(svc, app, synAck), ToSession),
		sess(tcpPacket(app, svc, ack), ToTunnel),
		tun(tcpPacket(svc, app, ack), ToSession),
		tun(tcpPacket(svc, app, flow.RST|ack), ToSession),
	}},
	{"tcp-refused", []step{
		sess(tcpPacket(app, svc, syn), ToTunnel),
		tun(tcpPacket(svc, app, flow.RST|ack), ToSession),
	}},
	{"pods-loopback", []step{
		stk(tcpPacket(client, remote, syn), ToTunnel),
		tun(tcpPacket(remote, client, synAck), ToStack),
		sessDrop(tcpPacket(app, remote, syn), "control"),
		tunDrop(tcpPacket(remote, app, synAck), "control"),
		tunDrop(tcpPacket("192.0.0.4:81", client, synAck), "unsolicited"),
	}},
	{"container-out-and-back", []step{
		cont(tcpPacket(inside, svc, syn), ToTunnel),
		tun(tcpPacket(svc, inside, synAck), ToContainer),
		cont(tcpPacket(inside, svc, ack), ToTunnel),
		sess(tcpPacket(app, svc, syn), ToTunnel), // the session's go on being its own
		tun(tcpPacket(svc, app, synAck), ToSession),
		cont(udpPacket("[2001:db8::10]:40000", svc6), ToTunnel),
		tun(udpPacket(svc6, "[2001:db8::10]:40000"), ToContainer),
		cont(icmpPacket("192.0.2.10", "198.51.100.7", 8, 7), ToTunnel),
		tun(icmpPacket("198.51.100.7", "192.0.2.10", 0, 7), ToContainer),
	}},
	{"container-and-session-share-no-flow", []step{
		sess(udpPacket(app, svc), ToTunnel),
		contDrop(udpPacket(app, svc), "conflict"),
		tun(udpPacket(svc, app), ToSession),
		cont(udpPacket(inside, svc), ToTunnel),
		sessDrop(udpPacket(inside, svc), "conflict"),
		tun(udpPacket(svc, inside), ToContainer),
	}},
	{"container-names", []step{
		cont(udpPacket(inside, resolver), ToStack),
		stk(udpPacket(resolver, inside), ToContainer),
		cont(tcpPacket(inside, resolver, syn), ToStack),
		stk(tcpPacket(resolver, inside, synAck), ToContainer),
		contDrop(udpPacket(inside, "192.0.0.5:54"), "control"),
		sessDrop(udpPacket(app, resolver), "control"),        // for containers only
		cont(udpPacket(inside, "203.0.113.53:53"), ToTunnel), // the laptop's nameserver means nothing there
		tunDrop(udpPacket(resolver, inside), "control"),
	}},
	{"container-local-by-policy", []step{
		cont(tcpPacket(inside, office, syn), ToStack),
		stk(tcpPacket(office, inside, synAck), ToContainer),
		cont(tcpPacket(inside, office, ack), ToStack),
		stk(icmpPacket("203.0.113.200", "192.0.2.10", 3, 3, udpPacket(inside, office)...), ToSession), // of no open flow
		cont(udpPacket(inside, office), ToStack),
		stk(icmpPacket("203.0.113.200", "192.0.2.10", 3, 3, udpPacket(inside, office)...), ToContainer),
		tunDrop(tcpPacket(office, inside, synAck), "unsolicited"),
	}},
	{"container-icmp-errors", []step{
		cont(udpPacket(inside, svc), ToTunnel),
		tun(icmpPacket("198.51.100.7", "192.0.2.10", 3, 3, udpPacket(inside, svc)...), ToContainer),
		stk(icmpPacket("198.51.100.7", "192.0.2.10", 3, 0, udpPacket(inside, svc)...), ToContainer),
		cont(icmpPacket("192.0.2.10", "198.51.100.7", 3, 3, udpPacket(svc, inside)...), ToTunnel),
		contDrop(icmpPacket("192.0.2.10", "198.51.100.8", 3, 3, udpPacket("198.51.100.8:443", inside)...), "icmp"),
	}},
	{"container-keeps-to-itself", []step{
		contDrop(tcpPacket("127.0.0.1:5000", "127.0.0.1:8080", syn), "loopback"),
		contDrop(tcpPacket(inside, "127.0.0.1:8080", syn), "loopback"),
		contDrop(tcpPacket("172.18.0.2:4000", svc, syn), "source"), // of the container's own network
		contDrop(tcpPacket(inside, agent, syn), "control"),
		contDrop(tcpPacket(inside, remote, syn), "control"),
		contDrop(udpPacket(inside, "224.0.0.251:5353"), "scope"),
		contDrop(other("192.0.2.10", "198.51.100.7", 47), "protocol"),
		tunDrop(tcpPacket(svc, inside, syn), "syn"),
		tunDrop(udpPacket(svc, inside), "unsolicited"),
	}},
	{"local-by-policy", []step{
		sess(tcpPacket(app, office, syn), ToStack),
		stk(tcpPacket(office, app, synAck), ToSession),
		sess(tcpPacket(app, office, ack), ToStack),
		sess(udpPacket(app, office, 10), ToStack),
		stk(udpPacket(office, app, 10), ToSession),
		tunDrop(tcpPacket(office, app, synAck), "unsolicited"),
		sessDrop(tcpPacket(app, agent, syn), "control"),               // not even if the policy says so
		sessDrop(tcpPacket(app, "192.0.2.10:80", syn), "destination"), // nor the session's own address
	}},
	{"tcp-in-the-middle-table-lost", []step{
		tunDrop(tcpPacket(svc, app, ack), "unsolicited"),
		sess(tcpPacket(app, svc, ack), ToTunnel),
		tun(tcpPacket(svc, app, ack), ToSession),
	}},
	{"tcp-over-ipv6", []step{
		sess(tcpPacket(app6, svc6, syn), ToTunnel),
		tun(tcpPacket(svc6, app6, synAck), ToSession),
		tunDrop(tcpPacket(svc6, app6, syn), "syn"),
	}},
	{"udp-out-and-back", []step{
		sess(udpPacket(app, svc), ToTunnel),
		tun(udpPacket(svc, app), ToSession),
		tunDrop(udpPacket("198.51.100.7:444", app), "unsolicited"),
		tunDrop(udpPacket(svc, "192.0.2.10:61002"), "unsolicited"),
		tunDrop(tcpPacket(svc, app, ack), "unsolicited"),
	}},
	{"udp-over-ipv6", []step{
		sess(udpPacket(app6, svc6), ToTunnel),
		tun(udpPacket(svc6, app6), ToSession),
	}},
	{"echo-out-and-back", []step{
		sess(icmpPacket("192.0.2.10", "198.51.100.7", 8, 7), ToTunnel),
		tun(icmpPacket("198.51.100.7", "192.0.2.10", 0, 7), ToSession),
		tunDrop(icmpPacket("198.51.100.7", "192.0.2.10", 0, 8), "unsolicited"),
		tunDrop(icmpPacket("198.51.100.8", "192.0.2.10", 0, 7), "unsolicited"),
		tunDrop(icmpPacket("198.51.100.7", "192.0.2.10", 8, 7), "icmp"),
		sess(icmpPacket("2001:db8::10", "2001:db8:7::7", 128, 7), ToTunnel),
		tun(icmpPacket("2001:db8:7::7", "2001:db8::10", 129, 7), ToSession),
		tunDrop(icmpPacket("2001:db8:7::7", "2001:db8::10", 128, 7), "icmp"),
	}},
	{"icmp-errors", []step{
		tunDrop(icmpPacket("198.51.100.7", "192.0.2.10", 3, 0, udpPacket(app, svc)...), "unsolicited"),
		sess(udpPacket(app, svc), ToTunnel),
		tun(icmpPacket("198.51.100.7", "192.0.2.10", 3, 0, udpPacket(app, svc)...), ToSession),
		tun(icmpPacket("203.0.113.1", "192.0.2.10", 11, 0, udpPacket(app, svc)...), ToSession),
		tun(icmpPacket("192.0.0.1", "192.0.2.10", 3, 0, udpPacket(app, svc)...), ToSession),
		tunDrop(icmpPacket("198.51.100.7", "192.0.0.2", 3, 0, udpPacket(app, svc)...), "icmp"),
		tunDrop(icmpPacket("198.51.100.7", "192.0.2.10", 3, 0, udpPacket(svc, app)...), "icmp"),
		tunDrop(icmpPacket("198.51.100.7", "192.0.2.10", 5, 0, udpPacket(app, svc)...), "icmp"), // redirect
		tunDrop(icmpPacket("198.51.100.7", "192.0.2.10", 3, 0, tcpPacket(app, svc, syn)...), "unsolicited"),
		tunDrop(icmpPacket("198.51.100.7", "192.0.2.10", 3, 0), "icmp"),
		sess(tcpPacket(app6, svc6, syn), ToTunnel),
		tun(icmpPacket("2001:db8:7::1", "2001:db8::10", 2, 0, tcpPacket(app6, svc6, syn)...), ToSession), // too big
		tunDrop(icmpPacket("2001:db8:7::1", "2001:db8::10", 134, 0), "icmp"),                             // router advertisement
	}},
	{"icmp-error-of-a-program", []step{
		sessDrop(icmpPacket("192.0.2.10", "198.51.100.7", 3, 0, udpPacket(svc, app)...), "icmp"),
		sess(udpPacket(app, svc), ToTunnel),
		sess(icmpPacket("192.0.2.10", "198.51.100.7", 3, 0, udpPacket(svc, app)...), ToTunnel),
		sessDrop(icmpPacket("192.0.2.10", "198.51.100.8", 3, 0, udpPacket(svc, app)...), "icmp"),
		sessDrop(icmpPacket("192.0.2.10", "198.51.100.7", 13, 0), "icmp"),
		sessDrop(icmpPacket("192.0.2.10", "198.51.100.7", 0, 7), "icmp"),
	}},
	{"loopback", []step{
		sess(tcpPacket(lo, "127.0.0.1:5432", syn), ToStack),
		stk(tcpPacket("127.0.0.1:5432", lo, synAck), ToSession),
		stk(tcpPacket("127.0.0.1:5000", "127.0.0.1:8080", syn), ToSession), // the netstack dials in
		sess(udpPacket("127.0.0.1:4000", "127.0.0.53:53"), ToStack),
		stk(udpPacket("127.0.0.53:53", "127.0.0.1:4000"), ToSession),
		sess(icmpPacket("127.0.0.1", "127.0.0.1", 8, 1), ToStack),
		sessDrop(tcpPacket(lo, svc, syn), "source"),
		sessDrop(tcpPacket(app, "127.0.0.1:5432", syn), "loopback"),
		sessDrop(tcpPacket("[::1]:4000", "[::1]:5432", syn), "source"),
		sessDrop(tcpPacket(app6, "[::1]:5432", syn), "loopback"),
		stkDrop(tcpPacket(client, lo, syn), "loopback"),
		stkDrop(tcpPacket(svc, lo, syn), "loopback"),
	}},
	{"nameservers-of-the-laptop", []step{
		sess(udpPacket(app, "203.0.113.53:53"), ToStack),
		stk(udpPacket("203.0.113.53:53", app), ToSession),
		sess(tcpPacket(app, "203.0.113.53:53", syn), ToStack),
		stk(tcpPacket("203.0.113.53:53", app, synAck), ToSession),
		sess(udpPacket(app6, "[2001:db8:53::53]:53"), ToStack),
		stk(udpPacket("[2001:db8:53::53]:53", app6), ToSession),
		sess(icmpPacket("192.0.2.10", "203.0.113.53", 3, 0, udpPacket("203.0.113.53:53", app)...), ToStack),
		tunDrop(udpPacket("203.0.113.53:53", app), "unsolicited"),
		sess(tcpPacket(app, "203.0.113.53:853", syn), ToTunnel),
		sess(icmpPacket("192.0.2.10", "203.0.113.53", 8, 1), ToTunnel),
		sess(udpPacket(app, "198.51.100.53:53"), ToTunnel), // dig @x
	}},
	{"session-sources", []step{
		sessDrop(tcpPacket("192.0.2.11:61001", svc, syn), "source"),
		sessDrop(udpPacket("[2001:db8::11]:61001", svc6), "source"),
		sessDrop(udpPacket("0.0.0.0:68", "255.255.255.255:67"), "source"),
		sessDrop(udpPacket(client, svc), "source"),
		sessDrop(udpPacket("192.0.2.11:1", "203.0.113.53:53"), "source"),
		sessDrop(tcpPacket(client, agent, syn), "source"),
	}},
	{"session-destinations", []step{
		sessDrop(tcpPacket(app, agent, syn), "control"),
		sessDrop(tcpPacket(app, client, syn), "control"),
		sessDrop(udpPacket(app, "192.0.0.7:1"), "control"),
		sess(udpPacket(app, "192.0.0.8:1"), ToTunnel),
		sessDrop(udpPacket(app, "224.0.0.251:5353"), "scope"),
		sessDrop(udpPacket(app, "255.255.255.255:67"), "scope"),
		sessDrop(udpPacket(app, "0.0.0.0:1"), "scope"),
		sessDrop(udpPacket(app6, "[ff02::fb]:5353"), "scope"),
		sessDrop(udpPacket(app6, "[fe80::1]:1"), "scope"),
		sessDrop(udpPacket(app6, "[::]:1"), "scope"),
		sessDrop(udpPacket(app6, "[::ffff:127.0.0.1]:1"), "loopback"),
		sessDrop(udpPacket(app6, "[::ffff:192.0.0.1]:80"), "scope"),
		sessDrop(tcpPacket(app, "192.0.2.10:80", syn), "destination"),
		sess(tcpPacket(app, "169.254.169.254:80", syn), ToTunnel), // the agent denies it, with an errno
		sess(tcpPacket(app, "240.240.0.1:80", syn), ToTunnel),     // Istio's automatic addresses
		sessDrop(other("192.0.2.10", "198.51.100.7", 132), "protocol"),
		sessDrop(other("192.0.2.10", "198.51.100.7", 58), "protocol"),
		sessDrop(other("2001:db8::10", "2001:db8:7::7", 1), "protocol"),
	}},
	{"the-client-netstacks-own-flows", []step{
		stk(tcpPacket(client, agent, syn), ToTunnel),
		tun(tcpPacket(agent, client, synAck), ToStack),
		stk(udpPacket(client, "198.51.100.53:53"), ToTunnel),
		tun(udpPacket("198.51.100.53:53", client), ToStack),
		stk(tcpPacket(client, "192.0.2.10:8080", syn), ToTunnel), // forward to the pod itself
		tun(tcpPacket("192.0.2.10:8080", client, synAck), ToStack),
		stk(udpPacket("[2001:db8::10]:20000", "[2001:db8:53::1]:53"), ToTunnel),
		tun(udpPacket("[2001:db8:53::1]:53", "[2001:db8::10]:20000"), ToStack),
		sessDrop(udpPacket("[2001:db8::10]:20000", "[2001:db8:53::1]:53"), "conflict"),
		stkDrop(udpPacket("192.0.2.10:1", agent), "control"),
		stkDrop(udpPacket(client, "192.0.0.3:1"), "control"),
		stkDrop(udpPacket(client, "224.0.0.1:1"), "scope"),
		stkDrop(udpPacket(svc, "198.51.100.9:1"), "source"),
		stkDrop(icmpPacket("192.0.0.2", "198.51.100.9", 0, 1), "icmp"),
		stk(icmpPacket("192.0.0.2", "198.51.100.53", 3, 0, udpPacket("198.51.100.53:53", client)...), ToTunnel),
		stkDrop(other("192.0.0.2", "198.51.100.7", 132), "protocol"),
	}},
	{"the-client-netstack-opens-towards-the-session", []step{
		stk(tcpPacket(svc, app, syn), ToSession),
		sess(tcpPacket(app, svc, synAck), ToStack),
		tunDrop(tcpPacket(svc, app, ack), "unsolicited"),
		tunDrop(icmpPacket("198.51.100.7", "192.0.2.10", 3, 0, tcpPacket(app, svc, ack)...), "unsolicited"),
		stk(tcpPacket("127.0.0.1:5000", "192.0.2.10:8080", syn), ToSession),
		sess(tcpPacket("192.0.2.10:8080", "127.0.0.1:5000", synAck), ToStack),
		stk(icmpPacket("198.51.100.7", "192.0.2.10", 8, 9), ToSession),
		sess(icmpPacket("192.0.2.10", "198.51.100.7", 0, 9), ToStack),
		stk(udpPacket(svc, app), ToSession),
		sess(icmpPacket("192.0.2.10", "198.51.100.7", 3, 0, udpPacket(svc, app)...), ToStack),
		stkDrop(udpPacket(agent, app), "source"),
		stkDrop(udpPacket("192.0.2.10:1", app), "source"),
		stkDrop(icmpPacket("198.51.100.7", "192.0.2.10", 13, 9), "icmp"),
		stkDrop(other("198.51.100.7", "192.0.2.10", 132), "protocol"),
	}},
	{"the-client-netstack-on-a-flow-of-the-session", []step{
		sess(tcpPacket(app, svc, syn), ToTunnel),
		stkDrop(tcpPacket(svc, app, synAck), "conflict"),
	}},
	{"hostile-addresses", []step{
		sess(udpPacket(app, svc), ToTunnel),
		tunDrop(tcpPacket(svc, app, syn), "syn"),
		tunDrop(tcpPacket(svc, app, syn|flow.FIN), "syn"),
		tunDrop(udpPacket("127.0.0.1:53", app), "loopback"),
		tunDrop(udpPacket(svc, "127.0.0.1:5432"), "loopback"),
		tunDrop(tcpPacket("127.0.0.1:1", "127.0.0.1:5432", ack), "loopback"),
		tunDrop(udpPacket("[::1]:1", app6), "loopback"),
		tunDrop(udpPacket(svc6, "[::1]:1"), "loopback"),
		tunDrop(udpPacket("[::ffff:127.0.0.1]:1", app6), "loopback"),
		tunDrop(udpPacket("[::ffff:198.51.100.7]:443", app6), "scope"),
		tunDrop(udpPacket("192.0.2.10:443", app), "source"),
		tunDrop(udpPacket("192.0.0.2:443", app), "source"),
		tunDrop(udpPacket("192.0.0.2:443", client), "source"),
		tunDrop(udpPacket(agent, app), "control"),
		tunDrop(udpPacket("192.0.0.3:80", app), "control"),
		tunDrop(udpPacket(svc, "203.0.113.53:53"), "destination"),
		tunDrop(udpPacket(svc, "198.51.100.9:1"), "destination"),
		tunDrop(udpPacket(svc, "255.255.255.255:1"), "destination"),
		tunDrop(udpPacket(svc, "224.0.0.251:5353"), "destination"),
		tunDrop(udpPacket("0.0.0.0:1", app), "scope"),
		tunDrop(udpPacket("224.0.0.1:1", app), "scope"),
		tunDrop(udpPacket("[fe80::1]:1", app6), "scope"),
		tunDrop(udpPacket("[ff02::1]:1", app6), "scope"),
		tunDrop(tcpPacket(agent, client, ack), "unsolicited"),
		tunDrop(other("198.51.100.7", "192.0.2.10", 4), "protocol"),
		tunDrop(other("198.51.100.7", "192.0.2.10", 132), "protocol"),
		tunDrop(other("2001:db8:7::7", "2001:db8::10", 132), "protocol"),
	}},
	{"hostile-shapes", []step{
		tunDrop(nil, "malformed"),
		tunDrop([]byte{0x45}, "malformed"),
		tunDrop([]byte{0x95, 0, 0, 0}, "malformed"),
		sess(udpPacket(app, svc, 1), ToTunnel),
		tunDrop(truncated(udpPacket(svc, app, 1)), "malformed"),
		tun(udpPacket(svc, app, 1), ToSession),
		tunDrop(withOptions(udpPacket(svc, app, 1)), "options"),
		sess(udpPacket(app6, svc6), ToTunnel),
		tunDrop(withHopByHop(udpPacket(svc6, app6)), "options"),
		sess(withOptions(udpPacket(app, svc)), ToTunnel),
		sess(withHopByHop(udpPacket(app6, svc6)), ToTunnel),
	}},
	{"fragments", []step{
		tunDrop(fragment(udpPacket(svc, app, make([]byte, 16)...), 1, 24, false), "fragment"),
		sess(fragment(udpPacket(app, svc, make([]byte, 16)...), 2, 0, true), ToTunnel),
		sess(fragment(udpPacket(app, svc, make([]byte, 16)...), 2, 24, false), ToTunnel),
		sessDrop(fragment(udpPacket(app, svc, make([]byte, 16)...), 3, 24, false), "fragment"),
		tun(fragment(udpPacket(svc, app, make([]byte, 16)...), 1, 0, true), ToSession),
		tun(fragment(udpPacket(svc, app, make([]byte, 16)...), 1, 24, true), ToSession),
		tunDrop(fragment(udpPacket(svc, app, make([]byte, 16)...), 1, 16, false), "fragment"), // over the first
		tunDrop(fragment(udpPacket("198.51.100.8:443", app, make([]byte, 16)...), 1, 24, false), "fragment"),
		tunDrop(fragment(tcpPacket(svc, app, ack), 1, 24, false), "fragment"),
		tunDrop(withOptions(fragment(udpPacket(svc, app, make([]byte, 16)...), 1, 24, false)), "options"),
		tunDrop(fragment(udpPacket("198.51.100.8:443", app, make([]byte, 16)...), 9, 0, true), "unsolicited"),
		tunDrop(fragment(udpPacket("198.51.100.8:443", app, make([]byte, 16)...), 9, 24, false), "fragment"),
		sess(fragment(udpPacket(app, "203.0.113.53:53", make([]byte, 16)...), 4, 0, true), ToStack),
		sess(fragment(udpPacket(app, "203.0.113.53:53", make([]byte, 16)...), 4, 24, false), ToStack),
		stk(fragment(udpPacket("203.0.113.53:53", app, make([]byte, 16)...), 4, 0, true), ToSession),
		stk(fragment(udpPacket("203.0.113.53:53", app, make([]byte, 16)...), 4, 24, false), ToSession),
	}},
	{"ipv6-fragments", []step{
		sess(fragment6(udpPacket(app6, svc6, make([]byte, 16)...), 70000, 0, true), ToTunnel),
		sess(fragment6(udpPacket(app6, svc6, make([]byte, 16)...), 70000, 24, false), ToTunnel),
		tun(fragment6(udpPacket(svc6, app6, make([]byte, 16)...), 70001, 0, true), ToSession),
		tun(fragment6(udpPacket(svc6, app6, make([]byte, 16)...), 70001, 24, false), ToSession),
		tunDrop(fragment6(udpPacket(svc6, app6, make([]byte, 16)...), 70001, 8, false), "fragment"),
		tunDrop(fragment6(udpPacket(svc6, app6, make([]byte, 16)...), 70002, 24, false), "fragment"),
		tunDrop(fragment6(withHopByHop(udpPacket(svc6, app6)), 70003, 0, true), "options"),
	}},
}

// withHopByHop puts a hop-by-hop header with padding into an IPv6 packet.
func withHopByHop(pkt []byte) []byte {
	out := append(append(append([]byte(nil), pkt[:40]...), pkt[6], 0, 1, 4, 0, 0, 0, 0), pkt[40:]...)
	out[5] += 8
	out[6] = 0
	return out
}

func TestVerdicts(t *testing.T) {
	for _, tt := range verdictTests {
		t.Run(tt.name, func(t *testing.T) {
			r := newTestRouter()
			drops := make(map[string]uint64)
			var want [ToContainer + 1]uint64
			for i, s := range tt.steps {
				if got := s.run(r); got != s.want {
					t.Errorf("step %d from %s: got %v, want %v; drops %v", i, s.from, got, s.want, r.Stats().Drops)
				}
				want[s.want]++
				if s.want == Drop {
					drops[s.from.String()+"/"+s.drop]++
				}
			}
			stats := r.Stats()
			if diff := cmp.Diff(drops, stats.Drops); diff != "" {
				t.Errorf("drops (-want +got):\n%s", diff)
			}
			got := [...]uint64{want[Drop], stats.ToTunnel, stats.ToStack, stats.ToSession, stats.ToContainer}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("verdicts (-want +got):\n%s", diff)
			}
		})
	}
}

// TestTerminate gives TCP flows of programs to the netstack, and nothing else.
func TestTerminate(t *testing.T) {
	r := New(Config{
		Session: []netip.Addr{addr("192.0.2.10")}, Client: addr("192.0.0.2"), Agent: addr("192.0.0.1"), Terminate: true,
	})
	const far = "198.51.100.7:80"
	for i, s := range []step{
		sess(tcpPacket(app, far, syn), ToStack),
		stk(tcpPacket(far, app, synAck), ToSession),
		sess(tcpPacket(app, far, ack), ToStack),
		stk(tcpPacket("192.0.0.2:7000", far, syn), ToTunnel),
		tun(tcpPacket(far, "192.0.0.2:7000", synAck), ToStack),
		tunDrop(tcpPacket(far, app, ack), "unsolicited"),
		sess(udpPacket(app, far), ToTunnel),
		sessDrop(tcpPacket(app, "192.0.0.1:80", syn), "control address"),
	} {
		if got := s.run(r); got != s.want {
			t.Errorf("step %d: %v, want %v", i, got, s.want)
		}
	}
}

func TestVerdictString(t *testing.T) {
	for v, want := range map[Verdict]string{Drop: "drop", ToTunnel: "tunnel", ToStack: "stack", ToSession: "session", 9: "invalid"} {
		if got := v.String(); got != want {
			t.Errorf("Verdict(%d): got %q, want %q", v, got, want)
		}
	}
}
