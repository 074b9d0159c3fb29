package netns

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/borrownet/borrownet/hook/hooktest"
)

func TestMain(m *testing.M) {
	hooktest.Main(m, map[string]hooktest.Verb{
		"__netns":  Main,
		"__daemon": daemonMain,
		"__guest":  guestMain,
	})
}

var (
	pod4 = netip.MustParseAddr("198.51.100.7")
	pod6 = netip.MustParseAddr("2001:db8::7")
	far4 = netip.MustParseAddr("192.0.2.9")
	far6 = netip.MustParseAddr("2001:db8:1::9")
)

func testConfig(path string, addrs ...netip.Addr) Config {
	return Config{Exe: []string{hooktest.Self, "__netns"}, Socket: path, Addrs: addrs}
}

// start makes a session namespace for the test and a client of it.
func start(t testing.TB, addrs ...netip.Addr) (*Helper, *Client) {
	t.Helper()
	path := filepath.Join(shortDir(t), "netns.sock")
	h, err := Start(t.Context(), testConfig(path, addrs...))
	if err != nil {
		hooktest.Unavailable(t, "netns", err)
	}
	t.Cleanup(func() { h.Close() })
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return h, c
}

// shortDir is a temporary directory whose path fits a unix socket's.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// daemonMain starts a session and waits to be killed.
func daemonMain(args []string) int {
	h, err := Start(context.Background(), testConfig(args[0], pod4))
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	fmt.Println("pid", h.Pid())
	time.Sleep(time.Minute)
	return 0
}
