package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// GuestSocket is where a container sees the session's socket.
	GuestSocket = "/borrownet.sock"
	// GuestReady is the argument by which GuestMain only says, by its exit code,
	// whether the network is the session's: for health checks.
	GuestReady = "ready"

	// guestPatience bounds the wait for a session that is being set up.
	guestPatience = 20 * time.Second
)

// readyName is an abstract unix address: those belong to the network namespace,
// and a container's root need not be writable for it.
const readyName = "@borrownet-guest-ready"

// GuestMain is the first process of a container that owns a network namespace:
// it makes a packet device there, hands it to the session at GuestSocket, and
// stays until that ends or a signal tells it to. It returns the exit code.
func GuestMain(args []string) int {
	if slices.Equal(args, []string{GuestReady}) {
		return isReady()
	}
	if err := beGuest(GuestSocket); err != nil {
		fmt.Fprintln(os.Stderr, "borrownet:", err)
		return 1
	}
	return 0
}

func isReady() int {
	c, err := net.Dial("unix", readyName)
	if err != nil {
		return 1
	}
	c.Close()
	return 0
}

func beGuest(path string) error {
	ctl, err := dialSession(path)
	if err != nil {
		return fmt.Errorf("reach the session (is it up? borrownet ls): %w", err)
	}
	defer ctl.Close()
	ctl.SetDeadline(time.Now().Add(startTimeout))
	var s setup
	if fd, err := recvControl(ctl, &s); err != nil {
		return fmt.Errorf("reach the session (is it up? borrownet ls): %w", err)
	} else if fd >= 0 {
		unix.Close(fd)
	}
	fd, r, err := buildGuest(s)
	if err != nil {
		return errors.Join(err, refuse(ctl, err))
	}
	err = sendControl(ctl, r, fd)
	// The daemon's copy must be the last one: the device goes with the daemon.
	unix.Close(fd)
	if err != nil {
		return err
	}
	var why admission
	if _, err := recvControl(ctl, &why); err != nil {
		return err
	}
	if why.Refused != "" {
		return errors.New(why.Refused)
	}
	ctl.SetDeadline(time.Time{})
	ready, err := net.Listen("unix", readyName)
	if err != nil {
		return fmt.Errorf("say that the network is ready: %w", err)
	}
	defer ready.Close()
	go answerReady(ready) // ends with the listener

	stay(ctl)
	abortOwn(s.Addrs)
	removeDevice()
	return nil
}

// dialSession waits for the session's socket for a while.
func dialSession(path string) (*net.UnixConn, error) {
	limit := time.Now().Add(guestPatience)
	for {
		c, err := net.Dial("unixpacket", path)
		if err == nil {
			return c.(*net.UnixConn), nil
		}
		if !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.ENOENT) || time.Now().After(limit) {
			return nil, err
		}
		time.Sleep(50 * time.Millisecond) // nothing announces it
	}
}

// answerReady accepts whoever asks: that is the answer.
func answerReady(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		c.Close()
	}
}

// stay waits until the session ends or this process shall.
func stay(ctl *net.UnixConn) {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(end)
	gone := make(chan struct{})
	go func() { // ends with the control socket
		defer close(gone)
		_ = obey(ctl, nil)
	}()
	select {
	case <-gone:
	case <-end:
	}
}

// abortOwn ends the sockets that programs have of the session, so that who waits
// on one hears of its end. The others are of the container's own networks.
func abortOwn(addrs []netip.Addr) {
	diag, err := openDiag()
	if err != nil {
		return // CONFIG_INET_DIAG is not everywhere: their timers end them
	}
	defer unix.Close(diag)
	_ = abort(diag, func(a netip.Addr) bool { return slices.Contains(addrs, a) })
}

// removeDevice makes everything unreachable that is not in the container's own
// networks. A TUN goes with the daemon's descriptor too, a veth pair would stay.
func removeDevice() {
	if dev, err := netlink.LinkByName(guestDevice); err == nil {
		_ = netlink.LinkDel(dev) // it has just gone
	}
}

// buildGuest makes the device and its routes.
func buildGuest(s setup) (int, ready, error) {
	if err := checkAddrs(s.Addrs); err != nil {
		return -1, ready{}, stageError(stageAddress, err)
	}
	fd, r, err := openDevice(guestDevice, s.MTU)
	if err != nil {
		return -1, ready{}, stageError(stageDevice, err)
	}
	r.Nets, r.Warnings, err = configureGuest(s)
	if err == nil && r.Kind == kindVeth {
		err = awaitRunning(outerName)
	}
	if err != nil {
		unix.Close(fd)
		return -1, ready{}, stageError(stageAddress, err)
	}
	return fd, r, nil
}
