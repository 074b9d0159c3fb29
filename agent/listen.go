package agent

import (
	"fmt"
	"net"
	"slices"
)

// meshPorts are listened on, or treated specially, by Istio's and Linkerd's
// proxies in the same network namespace.
var meshPorts = []int{
	15000, 15001, 15002, 15004, 15006, 15008, 15009, 15020, 15021, 15053, 15090,
	4140, 4143, 4190, 4191,
}

// listenAttempts bounds the search for a port that no mesh claims.
const listenAttempts = 32

// Listen returns a listener on a free loopback port that no mesh proxy claims.
// Only port-forward and the pod's own containers reach it.
func Listen() (net.Listener, error) {
	for range listenAttempts {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		if !slices.Contains(meshPorts, ln.Addr().(*net.TCPAddr).Port) {
			return ln, nil
		}
		ln.Close()
	}
	return nil, fmt.Errorf("no loopback port outside the mesh's reserved ones in %d attempts", listenAttempts)
}
