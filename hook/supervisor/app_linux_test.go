package supervisor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sort"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/borrownet/borrownet/hook/hooktest"
	"golang.org/x/sys/unix"
)

// appMain is a program to be supervised.
func appMain(args []string) int {
	apps := map[string]func([]string) error{
		"cookies":  appCookies,
		"send":     appSend,
		"errno":    appErrno,
		"emfile":   appEMFILE,
		"storm":    appStorm,
		"sandbox":  appSandbox,
		"connect":  appConnect,
		"services": appServices,
		"mayprobe": appProbe,
		"time":     appTime,
		"fd":       appFD,
		"job":      appJob,

		"interfaces":  appInterfaces,
		"listener":    appListener,
		"listenat":    appListenAt,
		"listentime":  appListenTime,
		"listenreuse": appListenReuse,
		"victim":      appVictim, "escape": appEscape,
		"workers":   appWorkers,
		"worker":    appWorker,
		"loopback6": appLoopback6,
		"listeners": appListeners,
	}
	if err := apps[args[0]](args[1:]); err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}

// appCookies prints in which namespace each kind of socket is made.
func appCookies([]string) error {
	for _, s := range []struct {
		name               string
		domain, typ, proto int
	}{
		{"tcp", unix.AF_INET, unix.SOCK_STREAM, 0},
		{"tcp6", unix.AF_INET6, unix.SOCK_STREAM, 0},
		{"udp", unix.AF_INET, unix.SOCK_DGRAM, 0},
		{"udp6", unix.AF_INET6, unix.SOCK_DGRAM, 0},
		{"raw", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP},
		{"ping", unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP},
		{"route", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE},
		{"unix", unix.AF_UNIX, unix.SOCK_STREAM, 0},
		{"uevent", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT},
	} {
		fd, err := unix.Socket(s.domain, s.typ|unix.SOCK_CLOEXEC, s.proto)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		fmt.Println(s.name, cookieOf(fd), flags&unix.FD_CLOEXEC)
		unix.Close(fd)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	fl, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	fmt.Println("nonblock", fl&unix.O_NONBLOCK != 0, flags&unix.FD_CLOEXEC)
	return nil
}

// appSend sends a datagram, after a pause if one is given.
func appSend(args []string) error {
	if len(args) > 1 {
		d, err := time.ParseDuration(args[1])
		if err != nil {
			return err
		}
		time.Sleep(d)
	}
	c, err := net.Dial("udp", net.JoinHostPort(far.String(), "4000"))
	if err != nil {
		return err
	}
	_, err = c.Write([]byte(args[0]))
	return errors.Join(err, c.Close())
}

// appErrno prints what refused calls say.
func appErrno([]string) error {
	_, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_UDP)
	fmt.Println("protocol:", errnoName(err))
	_, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 8, 0, 0)
	fmt.Println("io_uring:", unix.ErrnoName(e))
	_, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	fmt.Println("tcp:", errnoName(err))
	return nil
}

func errnoName(err error) string {
	var e syscall.Errno
	if !errors.As(err, &e) {
		return fmt.Sprint(err)
	}
	return unix.ErrnoName(e)
}

// appEMFILE makes sockets until there are too many.
func appEMFILE([]string) error {
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 32, Max: 32}); err != nil {
		return err
	}
	for i := range 100 {
		if _, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); err != nil {
			fmt.Println(errnoName(err), i > 4)
			return nil
		}
	}
	return errors.New("no limit")
}

// appStorm makes sockets on many threads and checks each: its number, its
// namespace, and that none is left over. The arguments are threads and calls of each.
func appStorm(args []string) error {
	threads, _ := strconv.Atoi(args[0])
	calls, _ := strconv.Atoi(args[1])
	probe, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	want := cookieOf(probe)
	first, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	unix.Close(first)
	before, err := openFDs()
	if err != nil {
		return err
	}
	alarms := make(chan os.Signal, 1)
	signal.Notify(alarms, unix.SIGALRM)
	every := unix.Timeval{Usec: 1000}
	if _, err := unix.Setitimer(unix.ItimerReal, unix.Itimerval{Interval: every, Value: every}); err != nil {
		return err
	}
	fmt.Println("ready")
	var wg sync.WaitGroup
	var mu sync.Mutex
	wrong := 0
	for range threads {
		wg.Go(func() {
			runtime.LockOSThread()
			for range calls {
				fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				if err != nil || fd <= 2 || cookieOf(fd) != want {
					mu.Lock()
					wrong++
					mu.Unlock()
				}
				if err == nil && fd > 2 {
					unix.Close(fd)
				}
			}
		})
	}
	wg.Wait()
	if _, err := unix.Setitimer(unix.ItimerReal, unix.Itimerval{}); err != nil {
		return err
	}
	after, err := openFDs()
	if err != nil {
		return err
	}
	// The number that is free first is the one after the first socket again.
	next, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	fmt.Println("wrong", wrong, "leaked", after-before, "next", next == first, "alarms", len(alarms) > 0)
	return err
}

func openFDs() (int, error) {
	ents, err := os.ReadDir("/proc/self/fd")
	return len(ents), err
}

// appSandbox prints the namespace cookie of a child in a namespace of its own.
func appSandbox([]string) error {
	cmd := exec.Command(hooktest.Self, "__app", "cookies")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	return cmd.Run()
}

// appConnect connects to unix sockets.
func appConnect(paths []string) error {
	for _, p := range paths {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: p})
		unix.Close(fd)
		if err != nil {
			fmt.Println(p, errnoName(err))
		} else {
			fmt.Println(p, "connected")
		}
	}
	return nil
}

// appInterfaces prints the addresses that are not loopback, and the source of a
// datagram.
func appInterfaces([]string) error {
	list, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, i := range list {
		addrs, err := i.Addrs()
		if err != nil {
			return err
		}
		for _, a := range addrs {
			if p := a.(*net.IPNet); !p.IP.IsLoopback() {
				fmt.Println(i.Name, p.IP)
			}
		}
	}
	c, err := net.Dial("udp", net.JoinHostPort(far.String(), "53"))
	if err != nil {
		return err
	}
	fmt.Println("from", c.LocalAddr().(*net.UDPAddr).IP)
	return c.Close()
}

func appProbe([]string) error { return Probe() }

// appTime prints the median cost of socket(2) and of a call that is not trapped.
func appTime(args []string) error {
	n, _ := strconv.Atoi(args[0])
	runtime.LockOSThread()
	socket := make([]time.Duration, n)
	for i := range socket {
		begin := time.Now()
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		socket[i] = time.Since(begin)
		if err != nil {
			return err
		}
		unix.Close(fd)
	}
	sort.Slice(socket, func(i, j int) bool { return socket[i] < socket[j] })
	// The least of several rounds: the difference in question is some 20 ns.
	const calls = 200_000
	getppid := time.Hour
	for range 10 {
		begin := time.Now()
		for range calls {
			unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
		}
		getppid = min(getppid, time.Since(begin)/calls)
	}
	fmt.Println(socket[n/2].Nanoseconds(), socket[n*99/100].Nanoseconds(), getppid.Nanoseconds())
	return nil
}

// appFD prints what an inherited descriptor holds.
func appFD(args []string) error {
	n, _ := strconv.Atoi(args[0])
	buf := make([]byte, 64)
	m, err := unix.Read(n, buf)
	if err != nil {
		return err
	}
	fmt.Println(string(buf[:m]))
	return nil
}

// appJob says when it runs and when it runs again after a stop. It starts no
// process: one that is stopped between vfork(2) and execve(2) keeps its parent
// from stopping.
func appJob([]string) error {
	resumed := make(chan os.Signal, 1)
	signal.Notify(resumed, unix.SIGCONT)
	fmt.Println("job runs")
	for range resumed {
		fmt.Println("job resumed")
	}
	return nil
}
