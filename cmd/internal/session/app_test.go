package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/hook/hooktest"
)

// appMain is a program to be relayed.
func appMain(args []string) int {
	apps := map[string]func([]string) error{
		"get": appGet, "errno": appErrno, "datagrams": appDatagrams, "many": appMany, "bulk": appBulk, "listen": appListen,
		"freeport": appFreePort, "greet": appGreet, "talk": appTalk, "read": appRead, "shout": appShout, "lost": appLost, "churn": appChurn, "cost": appCost,
		"crowd": appCrowd,
	}
	if err := apps[args[0]](args[1:]); err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}

func appGet(args []string) error {
	resp, err := http.Get(args[0])
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(os.Stdout, resp.Body)
	return err
}

func errnoName(err error) string {
	var e syscall.Errno
	if errors.As(err, &e) {
		return unix.ErrnoName(e)
	}
	return fmt.Sprint(err)
}

// connectOnce is a socket(2) and a connect(2); with limit it does not block and
// waits so long for the outcome.
func connectOnce(dst netip.AddrPort, limit time.Duration) string {
	flags := unix.SOCK_STREAM | unix.SOCK_CLOEXEC
	if limit > 0 {
		flags |= unix.SOCK_NONBLOCK
	}
	fd, err := unix.Socket(domain(dst), flags, 0)
	if err != nil {
		return "socket " + errnoName(err)
	}
	defer unix.Close(fd)
	begin := time.Now()
	err = unix.Connect(fd, sockaddr(dst))
	if stood := time.Since(begin); limit > 0 && stood > 10*time.Second { // one that waits for silence does for good
		return fmt.Sprintf("stood still for %v", stood)
	}
	if err == unix.EINPROGRESS {
		n, perr := 0, error(unix.EINTR)
		for perr == unix.EINTR { // a signal of Go's runtime
			n, perr = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(limit.Milliseconds()))
		}
		if n == 0 || perr != nil {
			return "not connected"
		}
		v, gerr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err = gerr; v != 0 {
			err = syscall.Errno(v)
		}
	}
	if err != nil && err != syscall.Errno(0) {
		return errnoName(err)
	}
	peer, err := unix.Getpeername(fd)
	if err != nil {
		return "peer " + errnoName(err)
	}
	return "ok peer " + addrOf(peer).String()
}

func addrOf(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

func appErrno([]string) error {
	refused := netip.AddrPortFrom(orders.Addr(), 81)
	for _, tt := range []struct {
		name  string
		dst   netip.AddrPort
		limit time.Duration
	}{
		{"orders", orders, 0},
		{"refused", refused, 0},
		{"unreachable", nowhere, 0},
		{"no-ipv6-route", netip.MustParseAddrPort("[2001:db8:2::1]:80"), 0},
		{"control", netip.MustParseAddrPort("192.0.0.1:80"), 0},
		{"multicast", netip.MustParseAddrPort("224.0.0.1:80"), 0},
		{"late", late, 0},
		{"late-refused", closed, 0},
		{"late-unreachable", gone, 0},
		{"nonblocking orders", orders, 30 * time.Second},
		{"nonblocking refused", refused, 30 * time.Second},
		{"nonblocking late", late, 30 * time.Second},
		{"nonblocking late-refused", closed, 30 * time.Second},
		{"nonblocking late-unreachable", gone, 30 * time.Second},
		{"nonblocking silent", silent, 300 * time.Millisecond},
	} {
		fmt.Printf("%s: %s\n", tt.name, connectOnce(tt.dst, tt.limit))
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, sockaddr(orders)); err != nil {
		return err
	}
	fmt.Println("again:", errnoName(unix.Connect(fd, sockaddr(orders))))
	_, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP)
	fmt.Println("raw:", errnoName(err))
	_, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP)
	fmt.Println("ping:", errnoName(err))
	_, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0)
	fmt.Println("packet:", errnoName(err))
	_, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP)
	fmt.Println("sctp:", errnoName(err))
	if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); err != nil {
		return err
	}
	fmt.Println("fastopen:", errnoName(unix.Sendto(fd, []byte("x"), unix.MSG_FASTOPEN, sockaddr(orders))))
	_, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 8, 0, 0)
	fmt.Println("io_uring:", errnoName(e))
	return nil
}

func appDatagrams([]string) error {
	peers := []struct {
		text string
		addr netip.AddrPort
	}{{"one", echoing}, {"two", other}}
	buf := make([]byte, 100)
	limit := unix.Timeval{Sec: 30}
	if err := reconnect(); err != nil {
		return err
	}
	for _, how := range []string{"connected", "sendto", "sendmsg", "ipv6-socket"} {
		family := unix.AF_INET
		if how == "ipv6-socket" {
			family = unix.AF_INET6
		}
		fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
			return err
		}
		for _, p := range peers {
			to := sockaddr(p.addr)
			if family == unix.AF_INET6 {
				to = &unix.SockaddrInet6{Port: int(p.addr.Port()), Addr: p.addr.Addr().As16()}
			}
			switch how {
			case "connected":
				if err = unix.Connect(fd, to); err == nil {
					_, err = unix.Write(fd, []byte(p.text))
				}
			case "sendmsg":
				_, err = unix.SendmsgN(fd, []byte(p.text), nil, to, 0)
			default:
				err = unix.Sendto(fd, []byte(p.text), 0, to)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", how, err)
			}
			var n int
			var from unix.Sockaddr
			err = hooktest.Again(func() (err error) {
				if how == "sendmsg" {
					n, _, _, from, err = unix.Recvmsg(fd, buf, nil, 0)
				} else {
					n, from, err = unix.Recvfrom(fd, buf, 0)
				}
				return err
			})
			if err != nil {
				return fmt.Errorf("%s: receive: %w", how, err)
			}
			fmt.Printf("%s: %s from %s\n", how, buf[:n], addrOf(from))
		}
		unix.Close(fd)
	}
	return localAndName()
}

// reconnect does as getaddrinfo(3): it tries addresses with one socket, which
// loses its port in between.
func reconnect() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	limit := unix.Timeval{Sec: 30}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return err
	}
	for range 2 {
		if err := unix.Connect(fd, sockaddr(echoing)); err != nil {
			return fmt.Errorf("reconnect: %w", err)
		}
		if _, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&make([]byte, 16)[0])), 16); e != 0 {
			return fmt.Errorf("disconnect: %w", e)
		}
	}
	if err := unix.Connect(fd, sockaddr(echoing)); err != nil {
		return fmt.Errorf("reconnect: %w", err)
	}
	if _, err := unix.Write(fd, []byte("x")); err != nil {
		return err
	}
	if err := hooktest.Again(func() error { _, err := unix.Read(fd, make([]byte, 10)); return err }); err != nil {
		return fmt.Errorf("after reconnecting: %w", err)
	}
	return nil
}

// localAndName talks UDP with itself and asks for a name.
func localAndName() error {
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer u.Close()
	c, err := net.Dial("udp", u.LocalAddr().String())
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "hello"); err != nil {
		return err
	}
	buf := make([]byte, 100)
	n, from, err := u.ReadFrom(buf)
	if err != nil {
		return err
	}
	fmt.Printf("local: %s from %s\n", buf[:n], from.(*net.UDPAddr).IP)
	names, err := (&net.Resolver{PreferGo: true}).LookupHost(context.Background(), "web")
	if err != nil {
		return err
	}
	fmt.Println("name:", names[0])
	return nil
}

// appMany opens connections at the same time and uses each.
func appMany(args []string) error {
	count := 0
	fmt.Sscan(args[0], &count)
	var (
		wg sync.WaitGroup
		mu sync.Mutex
		ok int
	)
	for i := range count {
		wg.Go(func() {
			c, err := net.Dial("tcp", orders.String())
			if err != nil {
				fmt.Println(err)
				return
			}
			defer c.Close()
			text := fmt.Sprintf("connection %d", i)
			buf := make([]byte, len(text))
			if _, err := io.WriteString(c, text); err == nil {
				_, err = io.ReadFull(c, buf)
				if err == nil && string(buf) == text {
					mu.Lock()
					ok++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	fmt.Printf("%d of %d\n", ok, count)
	return nil
}

// appBulk sends a megabyte, ends its direction and counts what comes back.
func appBulk([]string) error {
	c, err := net.Dial("tcp", orders.String())
	if err != nil {
		return err
	}
	defer c.Close()
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(make([]byte, 1<<20))
		sent <- errors.Join(err, c.(*net.TCPConn).CloseWrite())
	}()
	n, err := io.Copy(io.Discard, c)
	if err := errors.Join(err, <-sent); err != nil {
		return err
	}
	fmt.Println(n, "bytes back")
	return nil
}

// appListen greets who connects until its standard input ends.
func appListen([]string) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "hello")
			c.Close()
		}
	}()
	io.Copy(io.Discard, os.Stdin)
	return ln.Close()
}

// appFreePort looks for a free port as many test suites do, in C's order: bind,
// getsockname, close, bind again.
func appFreePort([]string) error {
	for range 20 {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			return err
		}
		at, err := unix.Getsockname(fd)
		if err != nil {
			return err
		}
		unix.Close(fd)
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err := unix.Bind(fd, at); err != nil {
			return fmt.Errorf("bind again: %w", err)
		}
		if err := unix.Listen(fd, 1); err != nil {
			return err
		}
		unix.Close(fd)
	}
	fmt.Println("bound again")
	return nil
}

func appRead(args []string) error {
	c, err := net.DialTimeout("tcp", args[0], 30*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = io.Copy(os.Stdout, c)
	return err
}

// appShout sends datagrams in every way there is.
func appShout(args []string) error {
	dst := netip.MustParseAddrPort(args[0])
	fd, err := unix.Socket(domain(dst), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Sendto(fd, []byte("sendto"), 0, sockaddr(dst)); err != nil {
		return err
	}
	if _, err := unix.SendmsgN(fd, []byte("sendmsg"), nil, sockaddr(dst), 0); err != nil {
		return err
	}
	if err := unix.Connect(fd, sockaddr(dst)); err != nil {
		return err
	}
	if _, err := unix.Write(fd, []byte("write")); err != nil {
		return err
	}
	fmt.Println("sent")
	return nil
}

// appLost prints what calls say in a session that has ended.
func appLost([]string) error {
	c, err := net.Dial("tcp", orders.String())
	if err != nil {
		return err
	}
	defer c.Close()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	fmt.Println("connected")
	io.Copy(io.Discard, os.Stdin)
	_, err = c.Read(make([]byte, 1))
	fmt.Println("open", errnoName(err), "new", connectOnce(orders, 0),
		"datagram", errnoName(unix.Sendto(fd, []byte("x"), 0, sockaddr(echoing))))
	return nil
}

// appChurn uses and closes sockets of every kind, and stays.
func appChurn([]string) error {
	for i := range 60 {
		for _, network := range []string{"tcp", "udp"} {
			dst := orders
			if network == "udp" {
				dst = echoing
			}
			c, err := net.Dial(network, dst.String())
			if err != nil {
				return fmt.Errorf("%s %d: %w", network, i, err)
			}
			if i%2 == 0 {
				io.WriteString(c, "x")
			}
			c.Close()
		}
		if fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM, 0); err == nil {
			unix.Close(fd)
		}
		connectOnce(netip.AddrPortFrom(orders.Addr(), 81), 0)
	}
	// More than may be tracked at a time: room is made from what is closed.
	for i := range 5000 {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("socket %d: %w", i, err)
		}
		if i%3 == 0 {
			if err := unix.Connect(fd, sockaddr(echoing)); err != nil {
				return fmt.Errorf("connect %d: %w", i, err)
			}
		}
		unix.Close(fd)
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	return nil
}

// appCost prints the median times of socket(2), connect(2), and of sendmsg(2) and
// recvmsg(2) between two unix sockets.
func appCost(addrs []string) error {
	const n = 200
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	var messages []time.Duration
	buf := make([]byte, 1)
	for range n {
		begin := time.Now()
		_, serr := unix.SendmsgN(pair[0], []byte("x"), nil, nil, 0)
		_, _, _, _, rerr := unix.Recvmsg(pair[1], buf, nil, 0)
		messages = append(messages, time.Since(begin))
		if err := errors.Join(serr, rerr); err != nil {
			return err
		}
	}
	slices.Sort(messages)
	fmt.Println("sendmsg and recvmsg", messages[n/2])
	for _, addr := range addrs {
		dst := netip.MustParseAddrPort(addr)
		var sockets, connects []time.Duration
		for range n {
			begin := time.Now()
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			made := time.Now()
			if err != nil {
				return err
			}
			err = unix.Connect(fd, sockaddr(dst))
			connects = append(connects, time.Since(made))
			sockets = append(sockets, made.Sub(begin))
			unix.Close(fd)
			if err != nil {
				return err
			}
		}
		slices.Sort(sockets)
		slices.Sort(connects)
		fmt.Printf("socket %v connect to %s %v\n", sockets[n/2], dst.Addr(), connects[n/2])
	}
	return nil
}
