package agent

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
)

// meshPorts are listened on, or treated specially, by Istio's and Linkerd's
// proxies in the same network namespace.
var meshPorts = []uint16{
	15000, 15001, 15002, 15004, 15006, 15008, 15009, 15020, 15021, 15053, 15090,
	4140, 4143, 4190, 4191,
}

// The agent listens above the ports that Linux gives to connections unless told
// otherwise (ip_local_port_range, 32768 to 60999): there it is in the way of no
// connection of the application, and hardly of a port that it will listen on.
const (
	firstPort = 61000
	lastPort  = 65535
	// listenAttempts bounds the search for a port that is free.
	listenAttempts = 32
)

// ListenDirect returns a UDP socket on addr, on a port as Listen's.
func ListenDirect(addr netip.Addr) (net.PacketConn, error) {
	listen := func(port int) (net.PacketConn, error) {
		return net.ListenPacket("udp", netip.AddrPortFrom(addr, uint16(port)).String())
	}
	for range listenAttempts {
		if conn, err := listen(firstPort + rand.IntN(lastPort-firstPort+1)); err == nil {
			return conn, nil
		}
	}
	return listen(0) // mesh proxies claim ports of TCP
}

// Listen returns a listener on a free loopback port that no mesh proxy claims.
// Only port-forward and the pod's own containers reach it.
func Listen() (net.Listener, error) {
	for range listenAttempts {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		if ln, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return ln, nil
		}
	}
	for range listenAttempts {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		if !slices.Contains(meshPorts, uint16(ln.Addr().(*net.TCPAddr).Port)) {
			return ln, nil
		}
		ln.Close()
	}
	return nil, fmt.Errorf("no loopback port outside the mesh's reserved ones in %d attempts", listenAttempts)
}
