package demo

import "net/netip"

// What the world is called by. Context is the name that selects it where
// kubectl would name a context.
const (
	Context   = "demo"
	Namespace = "shop"
	Node      = "demo"
)

// Ports of the Service ledger. Everything else there is closed.
const (
	EchoPort   = 7  // TCP and UDP: says what it hears
	SinkPort   = 9  // TCP: reads to the end, then says how much it was and its SHA-256
	WhoPort    = 11 // TCP and UDP: says who asked
	SourcePort = 19 // TCP: reads a number and says that many bytes
)

// The addresses are of ranges for documentation (RFC 5737, RFC 3849): no
// network has them, so nothing can be mistaken for the world or be hidden by it.
var (
	apiAddr     = netip.MustParseAddr("192.0.2.10")
	apiAddr6    = netip.MustParseAddr("2001:db8:0:1::10")
	ordersPod   = netip.MustParseAddr("192.0.2.21")
	ordersAddr  = netip.MustParseAddr("198.51.100.21")
	ledgerPod   = netip.MustParseAddr("192.0.2.22")
	ledgerPod6  = netip.MustParseAddr("2001:db8:0:1::22")
	ledgerAddr  = netip.MustParseAddr("198.51.100.22")
	ledgerAddr6 = netip.MustParseAddr("2001:db8:0:2::22")
	dnsAddr     = netip.MustParseAddr("198.51.100.53")

	// Nobody answers at a black hole; a router says that gone is unreachable.
	blackHole  = netip.MustParseAddr("203.0.113.1")
	blackHole6 = netip.MustParseAddr("2001:db8:0:3::1")
	gone       = netip.MustParseAddr("203.0.113.2")
	gone6      = netip.MustParseAddr("2001:db8:0:3::2")
)

// resolvConf is what a kubelet writes into a pod of the namespace.
const resolvConf = `nameserver 198.51.100.53
search shop.svc.cluster.local svc.cluster.local cluster.local
options ndots:5
`

// records are what the cluster's DNS server knows. orders has IPv4 only, as
// most Services; ledger has both.
func records() []string {
	const negative = " SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"
	return []string{
		". 5 IN" + negative,
		"cluster.local. 5 IN" + negative,
		"orders.shop.svc.cluster.local. 5 IN A " + ordersAddr.String(),
		"ledger.shop.svc.cluster.local. 5 IN A " + ledgerAddr.String(),
		"ledger.shop.svc.cluster.local. 5 IN AAAA " + ledgerAddr6.String(),
		"_echo._tcp.ledger.shop.svc.cluster.local. 5 IN SRV 0 100 7 ledger.shop.svc.cluster.local.",
		"books.shop.svc.cluster.local. 5 IN CNAME ledger.shop.svc.cluster.local.",
		"blackhole.shop.svc.cluster.local. 5 IN A " + blackHole.String(),
		"blackhole.shop.svc.cluster.local. 5 IN AAAA " + blackHole6.String(),
		"unreachable.shop.svc.cluster.local. 5 IN A " + gone.String(),
		"unreachable.shop.svc.cluster.local. 5 IN AAAA " + gone6.String(),
	}
}
