package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/agent"
	"github.com/borrownet/borrownet/agent/agenttest"
	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/cmd/internal/rundir"
	"github.com/borrownet/borrownet/hook/hooktest"
	"github.com/borrownet/borrownet/hook/netns"
	"github.com/borrownet/borrownet/hook/supervisor"
	"github.com/borrownet/borrownet/netstack/wg"
)

// TestMain makes the test binary its own helper.
func TestMain(m *testing.M) {
	verbs := map[string]hooktest.Verb{
		"__netns": netns.Main, "__exec": supervisor.ShimMain, "__run": runMain, "__hook": hookMain, "__app": appMain,
		hooktest.VerbConfine: hooktest.ConfineMain,
	}
	if len(os.Args) > 1 {
		if v, ok := verbs[os.Args[1]]; ok {
			os.Exit(v(os.Args[2:]))
		}
	}
	os.Exit(m.Run())
}

var (
	podIP    = netip.MustParseAddr("198.51.100.7")
	podIP6   = netip.MustParseAddr("2001:db8::7")
	orders   = netip.MustParseAddrPort("192.0.2.10:80")
	orders6  = netip.MustParseAddrPort("[2001:db8:1::10]:80")
	nowhere  = netip.MustParseAddrPort("192.0.2.66:80")
	resolver = netip.MustParseAddrPort("192.0.2.53:53")
)

// fakeCluster has one pod, whose agents run inside the test.
type fakeCluster struct {
	t     *testing.T
	world *agenttest.World

	mu       sync.Mutex
	agent    *agenttest.Agent
	key      string // client key of agent
	attached int    // agents started
	carriers []io.Closer
	cut      error          // of Dial, if not nil
	refused  func(kube.Use) // called by a Dial that is cut; may be nil
	ended    bool           // the agent's container has terminated
	silent   bool           // the API server does not answer for its fate
	attach   error          // of Attach, if not nil
	volumes  dirs           // of the pod
	env      []string
	gone     string       // why the pod is no more, or ""
	next     *kube.Target // its successor; nil = there is none yet
	unready  bool         // the pod is not ready
	stuck    bool         // a Dial has no answer
	linger   bool         // a client does not see that the agent has closed a carrier
	placed   func()       // called by Attach, under mu, once there is an agent; may be nil
}

// dirs are volumes of a pod: directories of this machine by path.
type dirs map[string]string

func (d dirs) Open(path string) (*os.Root, error) {
	if d[path] == "" {
		return nil, fmt.Errorf("no volume is mounted at %s", path)
	}
	return os.OpenRoot(d[path])
}

func (c *fakeCluster) Attach(_ context.Context, _ *kube.Target, spec kube.AgentSpec, progress func(string)) (*kube.Agent, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	progress("attaching")
	if c.attach != nil {
		return nil, c.attach
	}
	if c.placed != nil {
		defer c.placed()
	}
	reused := c.key == spec.ClientKey
	if !reused {
		key, err := wg.ParsePublicKey(spec.ClientKey)
		if err != nil {
			return nil, err
		}
		c.agent = agenttest.Start(c.t, agent.Config{ClientKey: key, Network: c.world, Policy: agent.Policy{Localhost: spec.Localhost, Metadata: spec.Metadata}, Env: append([]string{"GREETING=hello", "UNDECLARED=evil"}, c.env...), Volumes: c.volumes})
		c.key = spec.ClientKey
		c.attached++
	}
	return &kube.Agent{Container: "borrownet-test", Hello: c.agent.Hello, Reused: reused}, nil
}

type fakeCarrier struct{ io.ReadWriteCloser }

func (fakeCarrier) Protocol() string { return kube.ProtocolSPDY }

func (c *fakeCluster) Dial(ctx context.Context, t *kube.Target, _ *kube.Agent, use kube.Use) (kube.Carrier, error) {
	c.mu.Lock()
	cut, a, stuck, refused := c.cut, c.agent, c.stuck, c.refused
	if c.next != nil && t.UID != c.next.UID {
		cut = errors.New("the pod is gone")
	}
	c.mu.Unlock()
	if stuck {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if cut != nil {
		if refused != nil {
			refused(use)
		}
		return nil, cut
	}
	conn, err := a.Dial(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.carriers = append(c.carriers, conn)
	if c.linger {
		conn = &lingering{ReadWriteCloser: conn, closed: make(chan struct{})}
	}
	return fakeCarrier{conn}, nil
}

// lingering is a carrier whose end its reader does not see until he closes it.
type lingering struct {
	io.ReadWriteCloser
	once   sync.Once
	closed chan struct{}
}

func (l *lingering) Read(p []byte) (int, error) {
	n, err := l.ReadWriteCloser.Read(p)
	if err != nil && n == 0 {
		<-l.closed
	}
	return n, err
}

func (l *lingering) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.ReadWriteCloser.Close()
}

// breakCarriers closes every carrier and lets Dial fail with err.
func (c *fakeCluster) breakCarriers(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = err
	for _, conn := range c.carriers {
		conn.Close()
	}
	c.carriers = nil
}

func (c *fakeCluster) Fate(ctx context.Context, _ *kube.Target) (kube.Fate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.silent {
		c.mu.Unlock()
		<-ctx.Done()
		c.mu.Lock()
		return kube.Fate{}, ctx.Err()
	}
	if err := ctx.Err(); err != nil {
		return kube.Fate{}, err
	}
	s := kube.AgentState{Container: "borrownet-test", State: kube.StateRunning}
	if c.ended {
		s.State, s.Reason = kube.StateTerminated, "Completed"
	}
	return kube.Fate{Gone: c.gone, Ready: !c.unready, Agents: []kube.AgentState{s}}, nil
}

func (c *fakeCluster) Successor(_ context.Context, t *kube.Target) (*kube.Target, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.next != nil:
		next := *c.next
		return &next, nil
	case c.gone == "":
		same := *t
		same.Ready = true
		return &same, nil
	}
	return nil, &kube.Error{Op: "borrow", Object: "deploy/api in namespace shop", Reason: "it has no pods", Hint: "kubectl get pods"}
}

// roll replaces the pod by one with other addresses, whose agent is to be another.
func (c *fakeCluster) roll(next *kube.Target) {
	c.mu.Lock()
	c.gone, c.next = "pod api-1 is being deleted", next
	moved := *c.world
	moved.Pod = next.PodIPs
	c.world = &moved
	c.mu.Unlock()
	c.breakCarriers(nil)
}

func (c *fakeCluster) Close() error { return nil }

func newDir(t *testing.T) *rundir.Dir {
	t.Helper()
	base, err := os.MkdirTemp("", "bn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	dir, err := rundir.At(filepath.Join(base, "run"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dir.Sweep(func(string) bool { return false }); err != nil {
			t.Error(err)
		}
		dir.Remove()
	})
	return dir
}

// world is the pod network of the tests: orders answers with who called it.
func world() *agenttest.World {
	return &agenttest.World{
		Pod:        []netip.Addr{podIP, podIP6},
		ResolvConf: "nameserver " + resolver.Addr().String() + "\nsearch shop.svc.cluster.local\noptions ndots:5\n",
		TCP:        servers(),
		UDP: map[netip.AddrPort]func([]byte) []byte{
			netip.AddrPortFrom(orders.Addr(), 7): func(p []byte) []byte { return p },
			resolver:                             answerDNS,
		},
		Unreachable: map[netip.Addr]syscall.Errno{nowhere.Addr(): syscall.EHOSTUNREACH},
	}
}

// lab is a cluster and the opener that borrows from it.
type lab struct {
	t       *testing.T
	cluster *fakeCluster
	opener  *Opener
	states  chan State
}

func newLab(t *testing.T) *lab {
	t.Helper()
	dir := newDir(t)
	return &lab{
		t:       t,
		cluster: &fakeCluster{t: t, world: world()},
		opener:  &Opener{Dir: dir, Keys: NewKeys(dir), Helper: []string{hooktest.Self, "__netns"}},
		states:  make(chan State, 16),
	}
}

func (l *lab) opening() *Opening {
	return &Opening{
		opener: l.opener, cluster: l.cluster, log: logger(l.t),
		req: Request{Ref: "api", IdleTTL: time.Minute, HardTTL: time.Hour},
		target: &kube.Target{Context: "test", Namespace: "shop", Pod: "api-1", UID: "u1", Container: "app", Node: "n1", Workload: "deploy/api", PodIPs: l.cluster.world.Pod,
			Env: kube.Environment{Names: []string{"GREETING"}}},
	}
}

func (l *lab) observer() Observer {
	return Observer{Step: func(string) {}, State: func(s State, _ *fault.Error) { l.states <- s }}
}

// start borrows the pod until the test ends.
func (l *lab) start() *Session {
	l.t.Helper()
	s, err := l.opening().Start(l.t.Context(), "api", l.observer())
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { s.Close() })
	l.await(Ready)
	return s
}

// await waits for a state.
func (l *lab) await(want State) {
	l.t.Helper()
	limit := time.After(time.Minute)
	for {
		select {
		case got := <-l.states:
			if got == want {
				return
			}
		case <-limit:
			l.t.Fatalf("the session does not become %s", want)
		}
	}
}

// program is a program of a session: its sockets are the namespace's.
type program struct {
	t      *testing.T
	client *netns.Client
}

// needNamespace skips the test if the machine allows the session no namespace.
func needNamespace(t *testing.T, s *Session) {
	t.Helper()
	if s.helper == nil {
		hooktest.Unavailable(t, "netns", s.note)
	}
}

func newProgram(t *testing.T, s *Session) program {
	t.Helper()
	needNamespace(t, s)
	c, err := netns.Dial(s.Place().Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return program{t, c}
}

// socket makes a socket with deadlines.
func (p program) socket(a netip.AddrPort, typ int) int {
	p.t.Helper()
	fd, err := p.client.Socket(domain(a), typ, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	limit := unix.Timeval{Sec: 30}
	for _, opt := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, opt, &limit); err != nil {
			p.t.Fatal(err)
		}
	}
	return fd
}

// connect is connect(2) of a new socket.
func (p program) connect(a netip.AddrPort, typ int) (*os.File, error) {
	p.t.Helper()
	fd := p.socket(a, typ)
	f := os.NewFile(uintptr(fd), a.String())
	p.t.Cleanup(func() { f.Close() })
	return f, connected(fd, unix.Connect(fd, sockaddr(a)))
}

// connected waits for the end of a connect(2) that a signal of Go's runtime has
// interrupted: it goes on in the kernel.
func connected(fd int, err error) error {
	if err != unix.EINTR {
		return err
	}
	n := 0
	for err == unix.EINTR {
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 30_000)
	}
	if err != nil {
		return err
	}
	if n == 0 {
		return unix.EINPROGRESS
	}
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && errno != 0 {
		err = unix.Errno(errno)
	}
	return err
}

func domain(a netip.AddrPort) int {
	if a.Addr().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}
