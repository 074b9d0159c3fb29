package kube

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/gorilla/websocket"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/borrownet/borrownet/agent/kube/api"
)

// shell is a node that runs what an agent's container says, on this machine:
// its shell, a set of programs, a directory for what is written.
type shell struct {
	f       *fakeAPI
	tools   string            // $PATH of the container
	scratch string            // $TMPDIR of the container; empty = none
	refuse  http.HandlerFunc  // answers instead of attach; nil = attach works
	noSPDY  bool              // attach works over WebSocket only
	cut     int64             // bytes after which an attach breaks; 0 = never
	ran     map[string]*child // by container; guarded by f.mu
}

// child is a container's process.
type child struct {
	stdin io.WriteCloser
	done  chan struct{}

	mu     sync.Mutex
	output bytes.Buffer
	grown  chan struct{} // closed and replaced when output grows or the process ends
	ended  bool
}

// toolbox makes a directory with these programs of this machine.
func toolbox(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// everything is all that receive.sh needs.
var everything = []string{"uname", "mkdir", "head", "chmod", "sleep", "sha256sum"}

func newShell(f *fakeAPI) *shell {
	s := &shell{f: f, tools: toolbox(f.t, everything...), scratch: f.t.TempDir(), ran: map[string]*child{}}
	f.kubelet = s.start
	f.intercept = s.handle
	return s
}

// start runs a container's command as the kubelet and the runtime do. f.mu is held.
func (s *shell) start(p *api.Pod, container string) {
	i := slices.IndexFunc(p.Spec.EphemeralContainers, func(ec api.EphemeralContainer) bool { return ec.Name == container })
	ec := p.Spec.EphemeralContainers[i]
	argv := slices.Concat(ec.Command, ec.Args)
	for i := range argv {
		argv[i] = strings.ReplaceAll(argv[i], "$$", "$")
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = []string{"PATH=" + s.tools, "TMPDIR=" + s.scratch, "HOME="}
	cmd.Dir = "/proc" // nothing can be written there
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c := &child{done: make(chan struct{}), grown: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = c, c
	var err error
	if c.stdin, err = cmd.StdinPipe(); err != nil {
		s.f.t.Error(err)
	}
	if err := cmd.Start(); err != nil {
		s.f.t.Error(err)
		return
	}
	s.ran[container] = c
	s.f.setState(p, container, running())
	go func() {
		_ = cmd.Wait() // how it ended is in its state
		c.end()
		s.f.mu.Lock()
		defer s.f.mu.Unlock()
		s.f.setState(p, container, terminated(int32(cmd.ProcessState.ExitCode()), "Error", ""))
	}()
	s.f.t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); <-c.done })
}

func (c *child) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.grown)
	c.grown = make(chan struct{})
	return c.output.Write(b)
}

func (c *child) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	close(c.grown)
	c.grown = make(chan struct{})
	close(c.done)
}

// from returns the output behind at, and what to wait for if there will be more.
func (c *child) from(at int) (text []byte, ended bool, more <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.output.Bytes()[at:]), c.ended, c.grown
}

func (s *shell) handle(w http.ResponseWriter, r *http.Request) bool {
	s.f.mu.Lock()
	c := s.ran[r.URL.Query().Get("container")]
	s.f.mu.Unlock()
	switch {
	case c == nil || r.Header.Get("Authorization") != "Bearer secret":
		return false
	case strings.HasSuffix(r.URL.Path, "/log"):
		s.log(w, r, c)
	case strings.HasSuffix(r.URL.Path, "/attach"):
		s.attach(w, r, c)
	default:
		return false
	}
	return true
}

func (s *shell) log(w http.ResponseWriter, r *http.Request, c *child) {
	for at := 0; ; {
		text, ended, more := c.from(at)
		at += len(text)
		_, _ = w.Write(text) // a reader that left is noticed below
		w.(http.Flusher).Flush()
		if ended || r.URL.Query().Get("follow") == "" {
			return
		}
		select {
		case <-more:
		case <-r.Context().Done():
			return
		}
	}
}

// attach copies what arrives to the process, and closes its input after the
// first one, as stdinOnce says.
func (s *shell) attach(w http.ResponseWriter, r *http.Request, c *child) {
	s.f.mu.Lock()
	s.f.calls = append(s.f.calls, "attach")
	s.f.mu.Unlock()
	if s.refuse != nil {
		s.refuse(w, r)
		return
	}
	if r.URL.Query().Get("stdin") != "true" {
		s.f.t.Errorf("%s %s", r.Method, r.URL)
	}
	switch {
	case websocket.IsWebSocketUpgrade(r):
		s.attachWebSocket(w, r, c)
		return
	case s.noSPDY:
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	if _, err := httpstream.Handshake(r, w, []string{"v4.channel.k8s.io"}); err != nil {
		s.f.t.Error(err)
		return
	}
	streams := make(chan httpstream.Stream, 2)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, _ <-chan struct{}) error {
		streams <- s
		return nil
	})
	if conn == nil {
		return
	}
	defer conn.Close()
	var in, errs httpstream.Stream
	for in == nil || errs == nil {
		select {
		case s := <-streams:
			if s.Headers().Get(api.StreamType) == api.StreamTypeError {
				errs = s
			} else {
				in = s
			}
		case <-conn.CloseChan():
			return
		}
	}
	defer errs.Close()
	defer c.stdin.Close()
	var from io.Reader = in
	if s.cut > 0 {
		from = io.LimitReader(in, s.cut)
	}
	if _, err := io.Copy(c.stdin, from); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		s.f.t.Logf("attach: %v", err)
	}
}

// attachWebSocket is attach in version 5 of the channel protocol.
func (s *shell) attachWebSocket(w http.ResponseWriter, r *http.Request, c *child) {
	up := websocket.Upgrader{Subprotocols: []string{"v5.channel.k8s.io"}}
	ws, err := up.Upgrade(w, r, nil)
	if err != nil {
		s.f.t.Error(err)
		return
	}
	defer ws.Close()
	for {
		_, message, err := ws.ReadMessage()
		switch {
		case err != nil:
			return
		case len(message) == 2 && message[0] == 255 && message[1] == 0:
			c.stdin.Close()
			_ = ws.WriteMessage(websocket.BinaryMessage, append([]byte{3}, `{"status":"Success"}`...))
			_ = ws.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""))
			return
		case len(message) > 1 && message[0] == 0:
			_, _ = c.stdin.Write(message[1:])
		}
	}
}
