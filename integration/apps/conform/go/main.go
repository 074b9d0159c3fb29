// Command go does what Go programs do with sockets, one line of output for each thing:
// "ROW/CHECK: RESULT". integration/matrix_test.go has the results that are wanted.
//
// Arguments: the port of a TCP and of a UDP server of the laptop, and a port below 1024
// of its own. It is built without cgo, and with cgo, whose resolver is libc's.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Of the demo's world.
const (
	pod    = "192.0.2.10"
	orders = "orders.shop.svc.cluster.local"
	ledger = "198.51.100.22"
	silent = "203.0.113.1"
	gone   = "203.0.113.2"
)

// patience ends what does not end by itself.
const patience = 30 * time.Second

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: go TCP-PORT UDP-PORT LOW-PORT")
		os.Exit(2)
	}
	tcp, udp, low := os.Args[1], os.Args[2], os.Args[3]
	silence := make(chan error, 1)
	go func() { silence <- connectOnce(silent + ":80") }()
	say("tcp/50", parallel)
	say("tcp/http", get)
	names()
	datagrams(udp)
	for check, host := range map[string]string{"127.0.0.1": "127.0.0.1", "localhost": "localhost", "::1": "::1", "mapped": "::ffff:127.0.0.1"} {
		say("local/"+check, func() (string, error) { return hear(dial(host + ":" + tcp)) })
	}
	listeners(low)
	sockets()
	sources()
	failures(silence)
}

// say prints what f returns, an errno by its name.
func say(check string, f func() (string, error)) {
	result, err := f()
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		result = errnoName(errno)
	case err != nil:
		result = err.Error()
	}
	fmt.Printf("%s: %s\n", check, result)
}

func errnoName(e syscall.Errno) string {
	for name, known := range map[string]syscall.Errno{
		"ECONNREFUSED": syscall.ECONNREFUSED, "EHOSTUNREACH": syscall.EHOSTUNREACH, "ETIMEDOUT": syscall.ETIMEDOUT,
		"EADDRINUSE": syscall.EADDRINUSE, "EMFILE": syscall.EMFILE,
	} {
		if e == known {
			return name
		}
	}
	return e.Error()
}

// dial connects, with a deadline for all that follows. A bare IPv6 address may stand
// before the last colon.
func dial(addr string) (*net.TCPConn, error) {
	at := strings.LastIndexByte(addr, ':')
	c, err := net.DialTimeout("tcp", net.JoinHostPort(addr[:at], addr[at+1:]), patience)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), c.SetDeadline(time.Now().Add(patience))
}

// hear returns all that c has to say, and closes it.
func hear(c *net.TCPConn, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer c.Close()
	said, err := io.ReadAll(c)
	return strings.TrimSpace(string(said)), err
}

// parallel has fifty connections to a name at a time, each with an echo of its own.
func parallel() (string, error) {
	const many = 50
	echoes := make(chan error, many)
	for i := range many {
		go func() {
			c, err := dial("ledger:7")
			if err == nil {
				_, err = fmt.Fprintf(c, "number %d", i)
			}
			if err == nil {
				err = c.CloseWrite()
			}
			said, err := hear(c, err)
			if err == nil && said != fmt.Sprintf("number %d", i) {
				err = fmt.Errorf("%d is answered with %q", i, said)
			}
			echoes <- err
		}()
	}
	good := 0
	var errs error
	for range many {
		if err := <-echoes; err != nil {
			errs = err // any of them tells enough
			continue
		}
		good++
	}
	return fmt.Sprintf("%d of %d", good, many), errs
}

func get() (string, error) {
	client := http.Client{Timeout: patience}
	resp, err := client.Get("http://orders/path")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var seen struct{ Path string }
	err = json.NewDecoder(resp.Body).Decode(&seen)
	return seen.Path, err
}

// names asks by the resolver that the program is built with, which GODEBUG tells from
// outside, and by the pure one over TCP.
func names() {
	kind := "go"
	if strings.Contains(os.Getenv("GODEBUG"), "netdns=cgo") {
		kind = "libc"
	}
	lookup := func(r *net.Resolver, name string) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		addrs, err := r.LookupHost(ctx, name)
		return strings.Join(addrs, " "), err
	}
	say("names/"+kind, func() (string, error) { return lookup(net.DefaultResolver, "orders") })
	tcp := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, addr string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}}
	say("names/tcp", func() (string, error) { return lookup(tcp, orders) })
}

func datagrams(laptop string) {
	exchange := func(c net.PacketConn, text, addr string) (string, error) {
		to, err := net.ResolveUDPAddr("udp", addr)
		if err != nil {
			return "", err
		}
		if _, err := c.WriteTo([]byte(text), to); err != nil {
			return "", err
		}
		buf := make([]byte, 100)
		n, from, err := c.ReadFrom(buf)
		if err == nil && from.String() != addr {
			err = fmt.Errorf("%s answers for %s", from, addr)
		}
		return string(buf[:n]), err
	}
	say("udp/connected", func() (string, error) {
		c, err := net.Dial("udp4", "ledger:7")
		if err != nil {
			return "", err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(c, "hi"); err != nil {
			return "", err
		}
		buf := make([]byte, 100)
		n, err := c.Read(buf)
		return string(buf[:n]), err
	})
	say("udp/both", func() (string, error) {
		c, err := net.ListenPacket("udp4", "")
		if err != nil {
			return "", err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		far, err := exchange(c, "far", ledger+":7")
		if err != nil {
			return "", err
		}
		near, err := exchange(c, "near", "127.0.0.1:"+laptop)
		return far + ", " + near, err
	})
}

func failures(silence <-chan error) {
	say("errors/in use", func() (string, error) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		defer ln.Close()
		_, err = net.Listen("tcp", ln.Addr().String())
		return "ok", err
	})
	for check, addr := range map[string]string{"refused": ledger + ":81", "refused here": "127.0.0.1:1", "unreachable": gone + ":80"} {
		say("errors/"+check, func() (string, error) { return "ok", connectOnce(addr) })
	}
	say("errors/descriptors", descriptors)
	say("errors/timed out", func() (string, error) { return "ok", <-silence })
}

// listeners says where it listens, and greets who connects.
func listeners(low string) {
	for _, l := range []struct{ check, network, addr string }{
		{"127.0.0.1", "tcp4", "127.0.0.1:0"}, {"0.0.0.0", "tcp4", "0.0.0.0:0"}, {"::", "tcp", ":0"}, {"v6only", "tcp6", "[::]:0"},
	} {
		say("listen/"+l.check, func() (string, error) {
			ln, err := net.Listen(l.network, l.addr)
			if err != nil {
				return "", err
			}
			defer ln.Close()
			fmt.Printf("listen/%s: at %d\n", l.check, ln.Addr().(*net.TCPAddr).Port)
			return "greeted", greet(ln)
		})
	}
	for check, port := range map[string]string{"pod": "0", "low": low} {
		say("listen/"+check, func() (string, error) {
			ln, err := net.Listen("tcp", net.JoinHostPort(pod, port))
			if err != nil {
				return "", err
			}
			defer ln.Close()
			c, err := dial(pod + ":" + strconv.Itoa(ln.Addr().(*net.TCPAddr).Port))
			if err != nil {
				return "", err
			}
			return hear(c, greet(ln))
		})
	}
}

// greet greets one.
func greet(ln net.Listener) error {
	if err := ln.(*net.TCPListener).SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	c, err := ln.Accept()
	if err != nil {
		return err
	}
	_, err = io.WriteString(c, "hello")
	return errors.Join(err, c.Close())
}
