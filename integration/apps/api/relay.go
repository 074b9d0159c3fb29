package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
)

// relay takes connections to ports of the pod's loopback and joins each with one to the
// same port of host, until its input ends: what a program in the pod has to do, at the
// least, for somebody who comes by kubectl port-forward.
func relay(host string, ports []string) error {
	broke := make(chan error, len(ports)+1)
	for _, port := range ports {
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
		if err != nil {
			return fmt.Errorf("relay: %w", err)
		}
		// It ends with the process.
		go func() { broke <- join(listener, net.JoinHostPort(host, port)) }()
	}
	fmt.Println("relaying")
	go func() { // ends with the input
		_, err := io.Copy(io.Discard, os.Stdin)
		broke <- err
	}()
	return <-broke
}

// join relays the connections of a listener to an address until one fails.
func join(listener net.Listener, to string) error {
	for {
		near, err := listener.Accept()
		if err != nil {
			return err
		}
		far, err := net.Dial("tcp", to)
		if err != nil {
			near.Close()
			return err
		}
		for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
			go func() { // ends with either connection
				_, err := io.Copy(way[1], way[0])
				err = errors.Join(err, way[1].(*net.TCPConn).CloseWrite())
				if err != nil {
					near.Close()
					far.Close()
				}
			}()
		}
	}
}
