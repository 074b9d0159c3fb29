package netns

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// controlFD is where Start puts the control socket.
const controlFD = 3

// Main is the helper process: it builds the namespace it was started in, hands
// the packet device over and makes sockets until the control socket closes or a
// signal ends it. It returns the process's exit code.
func Main(args []string) int {
	if err := serve(); err != nil {
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
	defer svc.close()
	err = sendControl(ctl, r, fd)
	// The daemon's copy must be the last one: the device goes with the daemon.
	unix.Close(fd)
	if err != nil {
		return err
	}
	ctl.SetDeadline(time.Time{})

	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	gone := make(chan struct{})
	go func() { // ends with the control socket
		defer close(gone)
		var b [1]byte
		for {
			if n, err := ctl.Read(b[:]); err != nil || n == 0 {
				return
			}
		}
	}()
	go svc.run() // ends at svc.close
	select {
	case <-gone:
	case <-end:
	}
	return nil
}

// build makes the device and configures the namespace.
func build(s setup) (int, ready, error) {
	if err := checkAddrs(s.Addrs); err != nil {
		return -1, ready{}, stageError(stageAddress, err)
	}
	fd, r, err := openDevice(s.MTU)
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
