package netstack_test

import (
	"errors"
	"io"
	"syscall"
	"testing"

	"github.com/borrownet/borrownet/netstack"
	"github.com/borrownet/borrownet/netstack/flow"
	"github.com/borrownet/borrownet/netstack/netstacktest"
)

// TestAbort ends the conns of one address and leaves the others.
func TestAbort(t *testing.T) {
	c, s := netstacktest.Pair(t, clientConfig, serverConfig)
	ln, err := s.ListenTCP(port(server4, 80))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go io.Copy(conn, conn)
		}
	}()
	from4, err := c.DialTCP(testContext(t), port(client4, 0), port(server4, 80))
	if err != nil {
		t.Fatal(err)
	}
	defer from4.Close()
	failed := make(chan error, 1)
	go func() {
		_, err := from4.Read(make([]byte, 1))
		failed <- err
	}()
	c.Abort(server4) // nobody's
	if _, err := from4.Write([]byte("x")); err != nil {
		t.Fatalf("a conn of another address was aborted: %v", err)
	}
	if err := <-failed; err != nil {
		t.Fatalf("read: %v", err)
	}
	c.Abort(client4)
	if _, err := from4.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNABORTED) {
		t.Errorf("read of an aborted conn: %v", err)
	}
}

// TestRefuseDials: neither who is dialling nor who comes later waits for an answer.
func TestRefuseDials(t *testing.T) {
	c := netstacktest.New(t, clientConfig) // whose packets nobody carries
	dial := func() error {
		_, err := c.DialTCP(testContext(t), port(client4, 0), port(server4, 80))
		return err
	}
	waiting := make(chan error, 1)
	go func() { waiting <- dial() }()
	if _, err := c.ReadPackets([][]byte{make([]byte, 1500)}, make([]int, 1), 0); err != nil { // the SYN
		t.Fatal(err)
	}
	c.RefuseDials(client6, syscall.EHOSTUNREACH) // nobody's
	c.RefuseDials(client4, syscall.ECONNREFUSED)
	if err := <-waiting; !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("who is dialling gets %v, want ECONNREFUSED", err)
	}
	if err := dial(); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("who comes later gets %v, want ECONNREFUSED", err)
	}
}

// TestChallenge: the packet is whole, and goes to the source of the flow.
func TestChallenge(t *testing.T) {
	for _, f := range []flow.Flow{
		{Proto: flow.TCP, Src: port(client4, 4000), Dst: port(server4, 80)},
		{Proto: flow.TCP, Src: port(client6, 4000), Dst: port(server6, 80)},
	} {
		p, err := flow.Parse(netstack.Challenge(f))
		if err != nil || p.Flow != (flow.Flow{Proto: flow.TCP, Src: f.Dst, Dst: f.Src}) || p.TCPFlags != flow.SYN|flow.ACK || len(p.Payload) != 0 {
			t.Errorf("%v: got %+v, %v", f, p, err)
		}
	}
}
