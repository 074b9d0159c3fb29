package supervisor

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestUnixPath(t *testing.T) {
	for _, tt := range []struct {
		name string
		sa   string
		path string
		ok   bool
	}{
		{"file", "\x01\x00/run/x\x00\x00\x00", "/run/x", true},
		{"without-nul", "\x01\x00/run/x", "/run/x", true},
		{"abstract", "\x01\x00\x00name", "", false},
		{"unnamed", "\x01\x00", "", false},
		{"inet", "\x02\x00\x00\x35\xc0\x00\x02\x09", "", false},
		{"short", "\x01", "", false},
		{"empty", "", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path, ok := unixPath([]byte(tt.sa))
			if path != tt.path || ok != tt.ok {
				t.Errorf("got %q, %v, want %q, %v", path, ok, tt.path, tt.ok)
			}
		})
	}
}

func TestResolvesNames(t *testing.T) {
	for path, want := range map[string]bool{
		"/run/nscd/socket":                               true,
		"/var/run/nscd/socket":                           true,
		"/var/run//nscd/./socket":                        true,
		"/run/systemd/resolve/io.systemd.Resolve":        true,
		"/var/run/systemd/resolve/io.systemd.Resolve":    true,
		"/var/run/avahi-daemon/socket":                   true,
		"/run/avahi-daemon/pid":                          false,
		"/run/systemd/resolve/../userdb/io.systemd.User": false,
		"/run/systemd/resolved":                          false,
		"/run/nscd/socket2":                              false,
		"/run/dbus/system_bus_socket":                    false,
		"run/nscd/socket":                                false,
		"":                                               false,
	} {
		if got := resolvesNames(path); got != want {
			t.Errorf("resolvesNames(%q) = %v, want %v", path, got, want)
		}
	}
}

func TestErrnoOf(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want syscall.Errno
	}{
		{"bare", unix.EMFILE, unix.EMFILE},
		{"wrapped", fmt.Errorf("x: %w", os.NewSyscallError("socket", unix.EACCES)), unix.EACCES},
		{"none", net.ErrClosed, unix.ENETDOWN},
		{"zero", syscall.Errno(0), unix.ENETDOWN},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := errnoOf(tt.err); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// faulty panics instead of making sockets.
type faulty struct{}

func (faulty) Socket(int, int, int) (int, error) { panic("fault") }

func TestPanicIsAnErrno(t *testing.T) {
	h, err := findHome()
	if err != nil {
		t.Fatal(err)
	}
	s := &supervisor{listener: -1, identity: Identity{Sockets: faulty{}}, machine: machines()["amd64"], home: h, logger: slog.New(slog.DiscardHandler)}
	n := &notification{
		Pid: uint32(os.Getpid()), Nr: s.machine.native.socket, Arch: s.machine.native.arch,
		Args: [6]uint64{unix.AF_INET, unix.SOCK_STREAM},
	}
	if v := s.judge(n, s.decide); v.proceed || v.errno != unix.ENETDOWN {
		t.Errorf("verdict %v, want ENETDOWN", v)
	}
	n.Arch = 1
	if v := s.judge(n, s.decide); !v.proceed {
		t.Errorf("unknown architecture: verdict %v, want proceed", v)
	}
}

func TestLookPath(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{
		"first/tool": 0o755, "first/text": 0o644, "second/text": 0o755, "second/only": 0o644, "here": 0o755,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "first/dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	search := "PATH=" + filepath.Join(dir, "first") + ":" + filepath.Join(dir, "second")
	for _, tt := range []struct {
		name, file, path, want string
		code                   int
	}{
		{"found", "tool", search, filepath.Join(dir, "first/tool"), 0},
		{"second-is-executable", "text", search, filepath.Join(dir, "second/text"), 0},
		{"not-executable", "only", search, "", 126},
		{"absent", "absent", search, "", 127},
		{"directory-is-no-command", "dir", search, "", 127},
		{"relative-to-dir", "./here", search, "./here", 0},
		{"relative-entry", "tool", "PATH=first", "first/tool", 0},
		{"empty-entry", "here", "PATH=:/nowhere", "./here", 0},
		{"empty-path", "here", "PATH=", "", 127},
		{"slash-directory", "first/dir", search, "", 126},
		{"through-a-file", "here/x", search, "", 126},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := lookPath(tt.file, dir, []string{"PATH=/overridden", tt.path})
			if got != tt.want {
				t.Errorf("got %q, want %q (%v)", got, tt.want, err)
			}
			var ce *CommandError
			if errors.As(err, &ce); tt.code != 0 && (ce == nil || ce.Code != tt.code) {
				t.Errorf("error %v, want code %d", err, tt.code)
			}
		})
	}
}

func TestExplain(t *testing.T) {
	for errno, unsupported := range map[syscall.Errno]bool{
		unix.EBUSY: true, unix.ENOSYS: true, unix.EINVAL: true, unix.EPERM: true, unix.ENOMEM: false,
	} {
		err := explain(errno)
		if errors.Is(err, errors.ErrUnsupported) != unsupported || !errors.Is(err, errno) {
			t.Errorf("%v: %v", errno, err)
		}
	}
}
