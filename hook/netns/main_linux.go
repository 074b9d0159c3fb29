package netns

import (
	"encoding/json"
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

// controlFD is where Start puts the control socket.
const controlFD = 3

// goodbye is what Helper.Close says before it closes the control socket. Without
// it the daemon was killed.
const goodbye = 'b'

// ExitAbandoned is Main's exit code when the daemon is gone without a goodbye.
const ExitAbandoned = 3

var errAbandoned = errors.New("the daemon was killed")

// Main is the helper process: it builds the namespace it was started in, hands
// the packet device over and makes sockets until the control socket closes or a
// signal ends it. It returns the process's exit code.
func Main(args []string) int {
	switch err := serve(); {
	case errors.Is(err, errAbandoned):
		return ExitAbandoned
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func serve() error {
	unix.CloseOnExec(controlFD)
	ctl, err := unixConn(controlFD, "control")
	if err != nil {
		return fmt.Errorf("not started by borrownet: %w", err)
	}
	defer ctl.Close()
	ctl.SetDeadline(time.Now().Add(startTimeout))
	var s setup
	if fd, err := recvControl(ctl, &s); err != nil {
		return err
	} else if fd >= 0 {
		unix.Close(fd)
	}
	fd, r, err := build(s)
	if err != nil {
		return refuse(ctl, err)
	}
	svc, err := listen(s.Socket)
	if err != nil {
		unix.Close(fd)
		return refuse(ctl, stageError(stageSocket, err))
	}
	err = sendControl(ctl, r, fd)
	// The daemon's copy must be the last one: the device goes with the daemon.
	unix.Close(fd)
	if err != nil {
		svc.close()
		return err
	}
	ctl.SetDeadline(time.Time{})

	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	gone := make(chan error, 1)
	go func() { gone <- obey(ctl, readdress) }() // ends with the control socket
	go svc.run()                                 // ends at svc.close
	select {
	case err = <-gone:
	case <-end:
		err = nil
	}
	// Programs may keep their sockets, and with them this namespace, but nobody will
	// ever answer there again. What begins when the device is down has no route, so
	// nothing is missed that is to be aborted.
	svc.close()
	if dev, derr := netlink.LinkByName(deviceName); derr == nil { // else it has gone with the daemon
		_ = netlink.LinkSetDown(dev)
	}
	if diag, derr := openDiag(); derr == nil {
		_ = abortAll(diag) // what the kernel cannot abort ends with its timers
		unix.Close(diag)
	}
	return err
}

// obey waits until the control socket closes. What the daemon asks meanwhile is done by
// readdress; nil does nothing.
func obey(ctl *net.UnixConn, readdress func([]netip.Addr) ([]string, error)) error {
	end := errAbandoned
	b := make([]byte, maxControl)
	for {
		n, err := ctl.Read(b)
		if err != nil || n == 0 {
			return end
		}
		switch {
		case b[0] == goodbye:
			end = nil
			continue
		case readdress == nil:
			continue
		}
		var (
			s setup
			r ready
		)
		if err = json.Unmarshal(b[:n], &s); err == nil {
			r.Warnings, err = readdress(s.Addrs)
		}
		if err != nil {
			r.Failure = stageError(stageAddress, err)
		}
		if err := sendControl(ctl, r, -1); err != nil {
			return end
		}
	}
}

// build makes the device and configures the namespace.
func build(s setup) (int, ready, error) {
	if err := checkAddrs(s.Addrs); err != nil {
		return -1, ready{}, stageError(stageAddress, err)
	}
	fd, r, err := openDevice(deviceName, s.MTU)
	if err != nil {
		return -1, ready{}, stageError(stageDevice, err)
	}
	warnings, err := configure(s)
	if err == nil && r.Kind == kindVeth {
		err = awaitRunning(outerName)
	}
	if err != nil {
		unix.Close(fd)
		return -1, ready{}, stageError(stageAddress, err)
	}
	r.Warnings = slices.Clone(warnings)
	return fd, r, nil
}

// refuse tells the daemon why there is no namespace. The daemon prints it, so
// the process itself ends quietly.
func refuse(ctl *net.UnixConn, err error) error {
	var f *failure
	if !errors.As(err, &f) {
		f = stageError(stageAddress, err)
	}
	return sendControl(ctl, ready{Failure: f}, -1)
}
