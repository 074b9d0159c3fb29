package netns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	defaultMTU = 65440
	minMTU     = 1280 // RFC 8200 §5
	maxMTU     = 65535

	startTimeout = 10 * time.Second // a loaded machine needs far less
	exitTimeout  = 3 * time.Second  // for a helper that was told to go
)

// Config says what the session namespace looks like. The zero value of a field
// means its default.
type Config struct {
	// Exe is the argument vector that ends in Main, for example
	// [self, "__netns"]. It is required.
	Exe []string
	// Socket is the path of the unix socket on which the helper makes sockets
	// for programs. Its directory must exist. It is required.
	Socket string
	// Addrs are the session's own addresses, at most one per family. At least
	// one is required.
	Addrs []netip.Addr
	// MTU of the packet device, default 65440.
	MTU int
	// Logger may be nil: nothing is logged.
	Logger *slog.Logger
}

func (c *Config) validate() error {
	switch {
	case len(c.Exe) == 0:
		return errors.New("netns: no helper executable")
	case c.Socket == "":
		return errors.New("netns: no socket path")
	case c.MTU != 0 && (c.MTU < minMTU || c.MTU > maxMTU):
		return fmt.Errorf("netns: MTU %d out of range %d to %d", c.MTU, minMTU, maxMTU)
	}
	if err := checkPath(c.Socket); err != nil {
		return err
	}
	return checkAddrs(c.Addrs)
}

// checkAddrs accepts one address per family that can be a pod's.
func checkAddrs(addrs []netip.Addr) error {
	if len(addrs) == 0 {
		return errors.New("netns: no session address")
	}
	var v4, v6 int
	for _, a := range addrs {
		switch {
		case !a.IsValid(), a.Zone() != "", a.Is4In6(), a.IsUnspecified(), a.IsLoopback(), a.IsMulticast():
			return fmt.Errorf("netns: %v cannot be a session address", a)
		case a.Is4():
			v4++
		default:
			v6++
		}
	}
	if v4 > 1 || v6 > 1 {
		return fmt.Errorf("netns: more than one session address of a family: %v", addrs)
	}
	return nil
}

// Helper is the daemon's end of a session namespace. Its methods may be called
// concurrently.
type Helper struct {
	packets
	logger *slog.Logger
	socket string
	cmd    *exec.Cmd
	ctl    *net.UnixConn
	done   chan struct{} // closed when the process was reaped
	diag   int           // for abortAll in the place of a helper that was killed; -1 = none; wait closes it
	orders sync.Mutex    // one at a time on ctl

	mu      sync.Mutex
	closing bool  // guarded by mu: the end is wanted
	err     error // guarded by mu, valid once done is closed
}

// Start spawns the helper and waits until the namespace is ready. ctx bounds the
// start only; the helper lives until Close or until this process ends. The error
// is an *UnsupportedError where the machine does not allow such a namespace.
func Start(ctx context.Context, cfg Config) (*Helper, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.MTU == 0 {
		cfg.MTU = defaultMTU
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()

	h, err := spawn(cfg)
	if err != nil {
		return nil, explain(os.DirFS("/"), cfg.Exe[0], stageSpawn, err)
	}
	if err := h.handshake(ctx, cfg); err != nil {
		h.Close()
		var f *failure
		if errors.As(err, &f) {
			return nil, explain(os.DirFS("/"), cfg.Exe[0], f.Stage, err)
		}
		return nil, err
	}
	h.logger.Info("session namespace ready", "pid", h.Pid(), "device", h.Kind(), "addrs", cfg.Addrs)
	return h, nil
}

// spawn starts the helper process in its new namespaces.
func spawn(cfg Config) (*Helper, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "control")
	defer theirs.Close()
	ctl, err := unixConn(pair[0], "control")
	if err != nil {
		return nil, err
	}
	h := &Helper{logger: cfg.Logger, socket: cfg.Socket, ctl: ctl, done: make(chan struct{}), diag: -1}
	last := &tail{}
	h.cmd = exec.Command(cfg.Exe[0], cfg.Exe[1:]...)
	h.cmd.Dir = "/"
	h.cmd.Stderr = last
	h.cmd.ExtraFiles = []*os.File{theirs}
	h.cmd.SysProcAttr = &syscall.SysProcAttr{
		// A session of its own: the terminal's Ctrl-C is not for the helper.
		Setsid:      true,
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	if err := h.cmd.Start(); err != nil {
		ctl.Close()
		return nil, fmt.Errorf("start helper: %w", err)
	}
	go h.wait(last) // ends with the process
	return h, nil
}

// handshake tells the helper what to build and takes the packet device.
func (h *Helper) handshake(ctx context.Context, cfg Config) error {
	stop := context.AfterFunc(ctx, func() { h.ctl.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := sendControl(h.ctl, setup{Socket: cfg.Socket, Addrs: cfg.Addrs, MTU: cfg.MTU}, -1); err != nil {
		return h.startError(ctx, err)
	}
	var r ready
	fd, err := recvControl(h.ctl, &r)
	if err != nil {
		return h.startError(ctx, err)
	}
	if r.Failure != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return fmt.Errorf("set up session namespace: %w", r.Failure)
	}
	if fd < 0 {
		return fmt.Errorf("set up session namespace: helper sent no packet device")
	}
	for _, w := range r.Warnings {
		h.logger.Warn("session namespace is not complete", "err", w)
	}
	if err := h.packets.open(fd, r); err != nil {
		return err
	}
	return h.keepDiag()
}

// keepDiag asks the helper for a sock_diag socket.
func (h *Helper) keepDiag() error {
	c, err := Dial(h.socket)
	if err != nil {
		return err
	}
	defer c.Close()
	diag, err := c.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		h.logger.Info("sockets of programs cannot be aborted", "err", err) // CONFIG_INET_DIAG is not everywhere
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.diag = diag
	return nil
}

// startError is err, or the reason why the helper did not get further.
func (h *Helper) startError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("start helper: %w", ctx.Err())
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		return fmt.Errorf("start helper: %w", err)
	}
	select {
	case <-h.done:
	case <-time.After(exitTimeout):
	}
	if herr := h.Err(); herr != nil {
		return fmt.Errorf("start helper: %w", herr)
	}
	return fmt.Errorf("start helper: %w", err)
}

// wait reaps the helper.
func (h *Helper) wait(last *tail) {
	err := h.cmd.Wait()
	if err == nil {
		err = errors.New("helper ended")
	}
	if s := last.String(); s != "" {
		err = fmt.Errorf("%w: %s", err, s)
	}
	h.mu.Lock()
	closing, diag := h.closing, h.diag
	if !closing {
		h.err = err
	}
	h.diag = -1
	h.mu.Unlock()
	if diag >= 0 {
		_ = abortAll(diag) // a helper that was killed did not
		unix.Close(diag)
	}
	// A helper that was killed had no time to remove its socket.
	if rerr := removeStale(h.socket); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		h.logger.Debug("socket of ended helper stays", "err", rerr)
	}
	if !closing {
		h.logger.Warn("session helper ended", "err", err)
	}
	close(h.done)
}

// Pid is the helper's process id.
func (h *Helper) Pid() int { return h.cmd.Process.Pid }

// Done is closed when the helper process has ended.
func (h *Helper) Done() <-chan struct{} { return h.done }

// Err says why the helper ended, nil while it runs and after Close.
func (h *Helper) Err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

// Close ends the helper and waits for it, then closes the packet device.
// Sockets that programs still hold get ENETUNREACH from then on.
func (h *Helper) Close() error {
	h.mu.Lock()
	again := h.closing
	h.closing = true
	h.mu.Unlock()
	if again {
		<-h.done
		return net.ErrClosed
	}
	h.ctl.Write([]byte{goodbye}) // if it is gone already, so much the better
	h.ctl.Close()
	err := h.packets.close()
	select {
	case <-h.done:
	case <-time.After(exitTimeout):
		h.logger.Warn("helper did not end, killing it", "pid", h.Pid())
		h.cmd.Process.Kill()
		<-h.done
	}
	return err
}

// tail keeps the first bytes that a helper wrote to stderr before it died: the
// head of a Go panic says what happened. It is read after the writer has ended.
type tail struct{ b []byte }

const maxTail = 1 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p[:min(len(p), maxTail-len(t.b))]...)
	return len(p), nil
}

func (t *tail) String() string { return string(t.b) }
