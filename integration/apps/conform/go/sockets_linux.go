package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// soReusePort and tcpFastOpenConnect are missing in package syscall.
const (
	soReusePort        = 15
	tcpFastOpenConnect = 30
)

// option is a dialer's or listener's Control that sets an option to 1.
func option(level, name int) func(string, string, syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) (err error) {
		return errors.Join(c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), level, name, 1) }), err)
	}
}

// connectOnce connects with one retransmission, so that silence ends within seconds.
func connectOnce(addr string) error {
	d := net.Dialer{Control: option(syscall.IPPROTO_TCP, syscall.TCP_SYNCNT)}
	c, err := d.Dial("tcp", addr)
	if err == nil {
		c.Close()
	}
	return err
}

// descriptors opens more sockets than may be.
func descriptors() (string, error) {
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		return "", err
	}
	low := old
	low.Cur = 20
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		return "", err
	}
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old)
	for range low.Cur {
		c, err := net.ListenUDP("udp4", nil)
		if err != nil {
			return "", err
		}
		defer c.Close()
	}
	return "ok", nil
}

func sockets() {
	say("sockets/dup", duplicate)
	say("sockets/reuseport", func() (string, error) {
		config := net.ListenConfig{Control: option(syscall.SOL_SOCKET, soReusePort)}
		a, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		defer a.Close()
		b, err := config.Listen(context.Background(), "tcp", a.Addr().String())
		if err != nil {
			return "", err
		}
		return "ok", b.Close()
	})
	say("sockets/passed on", passedOn)
	say("sockets/half-close", func() (string, error) {
		c, err := dial(ledger + ":9")
		if err != nil {
			return "", err
		}
		return digest(c, "12345")
	})
	say("sockets/sendfile", func() (string, error) {
		c, err := dial(ledger + ":9")
		if err != nil {
			return "", err
		}
		defer c.Close()
		f, err := os.Open(os.Args[0])
		if err != nil {
			return "", err
		}
		defer f.Close()
		sent, err := io.Copy(c, io.LimitReader(f, 1000)) // by sendfile(2)
		if err != nil {
			return "", err
		}
		said, err := hear(c, c.CloseWrite())
		return fmt.Sprintf("%d sent, %.13s", sent, said), err
	})
	say("sockets/fast open", func() (string, error) {
		d := net.Dialer{Control: option(syscall.IPPROTO_TCP, tcpFastOpenConnect), Timeout: patience}
		c, err := d.Dial("tcp", ledger+":9")
		if err != nil {
			return "", err
		}
		return digest(c.(*net.TCPConn), "123")
	})
	say("sockets/linger", func() (string, error) {
		c, err := dial(ledger + ":7")
		if err != nil {
			return "", err
		}
		return "ok", errors.Join(c.SetLinger(0), c.Close())
	})
}

// digest sends text and its end, and returns how the answer begins.
func digest(c *net.TCPConn, text string) (string, error) {
	c.SetDeadline(time.Now().Add(patience))
	_, err := io.WriteString(c, text)
	said, err := hear(c, errors.Join(err, c.CloseWrite()))
	return fmt.Sprintf("%.10s", said), err
}

// duplicate accepts by a duplicate that was made before it listened.
func duplicate() (string, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer syscall.Close(fd)
	dup, err := syscall.Dup(fd)
	if err != nil {
		return "", err
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return "", err
	}
	if err := syscall.Listen(fd, 5); err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(dup), "duplicate")
	ln, err := net.FileListener(f)
	f.Close()
	if err != nil {
		return "", err
	}
	defer ln.Close()
	c, err := dial(ln.Addr().String())
	if err != nil {
		return "", err
	}
	return hear(c, greet(ln))
}

// passedOn sends a socket over a unix socket and uses what comes out.
func passedOn() (string, error) {
	c, err := dial(ledger + ":11")
	if err != nil {
		return "", err
	}
	f, err := c.File()
	c.Close()
	if err != nil {
		return "", err
	}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer syscall.Close(pair[0])
	defer syscall.Close(pair[1])
	err = syscall.Sendmsg(pair[0], []byte("x"), syscall.UnixRights(int(f.Fd())), nil, 0)
	f.Close()
	if err != nil {
		return "", err
	}
	room := make([]byte, 100)
	_, n, _, _, err := syscall.Recvmsg(pair[1], make([]byte, 1), room, 0)
	if err != nil {
		return "", err
	}
	messages, err := syscall.ParseSocketControlMessage(room[:n])
	if err != nil || len(messages) != 1 {
		return "", fmt.Errorf("%d control messages, %v", len(messages), err)
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil {
		return "", err
	}
	f = os.NewFile(uintptr(fds[0]), "passed on")
	defer f.Close()
	got, err := net.FileConn(f)
	if err != nil {
		return "", err
	}
	said, err := hear(got.(*net.TCPConn), nil)
	return host(said), err
}

// host is the address of an IPv4 address and port.
func host(addr string) string {
	h, _, _ := strings.Cut(addr, ":")
	return h
}

func sources() {
	say("source/interfaces", func() (string, error) {
		addrs, err := net.InterfaceAddrs()
		for _, a := range addrs {
			if strings.HasPrefix(a.String(), pod+"/") {
				return pod, err
			}
		}
		return "others", err
	})
	say("source/own", func() (string, error) {
		c, err := dial(ledger + ":7")
		if err != nil {
			return "", err
		}
		return host(c.LocalAddr().String()), c.Close()
	})
	say("source/seen", func() (string, error) {
		said, err := hear(dial(ledger + ":11"))
		return host(said), err
	})
}
