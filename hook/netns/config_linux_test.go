package netns

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
)

func TestConfigValidate(t *testing.T) {
	good := Config{Exe: []string{"x"}, Socket: "/run/x", Addrs: []netip.Addr{pod4}}
	for _, tt := range []struct {
		name string
		edit func(*Config)
		ok   bool
	}{
		{"v4", func(c *Config) {}, true},
		{"dual", func(c *Config) { c.Addrs = []netip.Addr{pod4, pod6} }, true},
		{"no-exe", func(c *Config) { c.Exe = nil }, false},
		{"no-socket", func(c *Config) { c.Socket = "" }, false},
		{"long-socket", func(c *Config) { c.Socket = strings.Repeat("x", 108) }, false},
		{"no-address", func(c *Config) { c.Addrs = nil }, false},
		{"two-v4", func(c *Config) { c.Addrs = []netip.Addr{pod4, far4} }, false},
		{"loopback", func(c *Config) { c.Addrs = []netip.Addr{netip.MustParseAddr("127.0.0.1")} }, false},
		{"mapped", func(c *Config) { c.Addrs = []netip.Addr{netip.MustParseAddr("::ffff:192.0.2.1")} }, false},
		{"invalid", func(c *Config) { c.Addrs = []netip.Addr{{}} }, false},
		{"zone", func(c *Config) { c.Addrs = []netip.Addr{pod6.WithZone("eth0")} }, false},
		{"small-mtu", func(c *Config) { c.MTU = 576 }, false},
		{"big-mtu", func(c *Config) { c.MTU = 65536 }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := good
			tt.edit(&c)
			if err := c.validate(); (err == nil) != tt.ok {
				t.Errorf("validate: %v", err)
			}
		})
	}
}

func TestExplain(t *testing.T) {
	spawnErr := func(e syscall.Errno) error { return &os.PathError{Op: "fork/exec", Path: "/x", Err: e} }
	file := func(kv ...string) fstest.MapFS {
		m := fstest.MapFS{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = &fstest.MapFile{Data: []byte(kv[i+1])}
		}
		return m
	}
	for _, tt := range []struct {
		name   string
		root   fstest.MapFS
		stage  string
		err    error
		reason string // "" = not an UnsupportedError
		hint   string
	}{
		{"apparmor", file("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n"), stageSpawn, spawnErr(syscall.EPERM),
			"AppArmor blocks", `profile borrownet "/opt/borrownet" flags=(unconfined)`},
		{"apparmor-later", file("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n"), stageDevice,
			&deviceError{tun: spawnErr(syscall.EACCES), veth: spawnErr(syscall.EPERM)}, "AppArmor blocks", "reload apparmor"},
		{"apparmor-off", file("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "0\n"), stageSpawn, spawnErr(syscall.EPERM),
			"the kernel refuses", "unshare"},
		{"debian-sysctl", file("proc/sys/kernel/unprivileged_userns_clone", "0\n"), stageSpawn, spawnErr(syscall.EPERM),
			"kernel.unprivileged_userns_clone=0", "sysctl -w kernel.unprivileged_userns_clone=1"},
		{"none-allowed", file("proc/sys/user/max_user_namespaces", "0\n"), stageSpawn, spawnErr(syscall.ENOSPC),
			"user.max_user_namespaces=0", "sysctl -w user.max_user_namespaces"},
		{"docker", file(".dockerenv", ""), stageSpawn, spawnErr(syscall.EPERM), "container forbids", "--device /dev/net/tun"},
		{"seccomp", file("proc/self/status", "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n"), stageSpawn, spawnErr(syscall.EPERM),
			"container forbids", "seccomp=unconfined"},
		{"no-kernel-support", file(), stageSpawn, spawnErr(syscall.EINVAL), "no user namespaces", "CONFIG_USER_NS"},
		{"no-device", file(), stageDevice, &deviceError{tun: spawnErr(syscall.ENOENT), veth: spawnErr(syscall.EOPNOTSUPP)},
			"neither /dev/net/tun nor a veth pair", "chmod 0666 /dev/net/tun"},
		{"read-only-settings", file(), stageAddress, spawnErr(syscall.EROFS), "/proc/sys is read-only", "systempaths=unconfined"},
		{"address", file(), stageAddress, spawnErr(syscall.EINVAL), "", ""},
		{"socket", file(), stageSocket, spawnErr(syscall.EADDRINUSE), "", ""},
		{"no-errno", file(), stageSpawn, errors.New("odd"), "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := explain(tt.root, "/opt/borrownet", tt.stage, tt.err)
			var u *UnsupportedError
			if !errors.As(err, &u) {
				if tt.reason != "" {
					t.Fatalf("got %v, want an UnsupportedError", err)
				}
				if err != tt.err {
					t.Errorf("got %v, want the error unchanged", err)
				}
				return
			}
			if tt.reason == "" {
				t.Fatalf("got %v, want the error unchanged", err)
			}
			if !strings.Contains(u.Reason, tt.reason) || !strings.Contains(u.Hint, tt.hint) {
				t.Errorf("got reason %q, hint %q", u.Reason, u.Hint)
			}
			if !errors.Is(err, errors.ErrUnsupported) {
				t.Error("not an errors.ErrUnsupported")
			}
			if u.Err != tt.err {
				t.Error("the cause is lost")
			}
		})
	}
}
