package kube

import (
	"net"
	"time"
)

// newDialer returns the dialer of every connection to the API server. A dead
// path must be noticed in seconds: behind it stand live flows.
func newDialer() *net.Dialer {
	return &net.Dialer{
		Timeout: 10 * time.Second,
		KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3,
		},
		Control: controlSocket,
	}
}
