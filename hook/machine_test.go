package hook

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/borrownet/borrownet/hook/netns"
	"github.com/borrownet/borrownet/hook/supervisor"
)

func TestLadder(t *testing.T) {
	noNamespace := &netns.UnsupportedError{Reason: "no namespaces", Hint: "sysctl", Err: syscall.EPERM}
	noListener := &supervisor.UnsupportedError{Reason: "another listener", Hint: "leave it", Err: syscall.EBUSY}
	tests := []struct {
		name    string
		machine Machine
		best    Rung
		note    string
		allowed string
	}{
		{"all", Machine{}, Seccomp, "", "seccomp netns preload preload-relay relay none"},
		{"no-listener", Machine{Listener: noListener}, Preload, "another listener", "netns preload preload-relay none"},
		{"no-namespace", Machine{Namespace: noNamespace}, Relay, "no namespaces", "preload-relay relay none"},
		{"neither", Machine{Namespace: noNamespace, Listener: noListener}, PreloadRelay, "no namespaces; another listener", "preload-relay none"},
		{"not-built", Machine{Library: ErrNotBuilt}, Seccomp, "", "seccomp relay none"},
		{"not-built-no-namespace", Machine{Namespace: noNamespace, Library: ErrNotBuilt}, Relay, "no namespaces", "relay none"},
		{"nothing", Machine{Namespace: noNamespace, Listener: noListener, Library: ErrNotBuilt}, "", "", "none"},
		{"only-a-namespace", Machine{Listener: noListener, Library: ErrNotBuilt}, "", "", "none"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			best, note, err := tt.machine.Best()
			if best != tt.best || note != tt.note || (err != nil) != (tt.best == "") {
				t.Errorf("got %q, %q, %v, want %q, %q", best, note, err, tt.best, tt.note)
			}
			if err != nil && (!errors.Is(err, errors.ErrUnsupported) || !strings.Contains(Hint(err), "make build")) {
				t.Errorf("error %v, hint %q", err, Hint(err))
			}
			var allowed []string
			for _, r := range Rungs() {
				if r != Auto && tt.machine.Allows(r) == nil {
					allowed = append(allowed, string(r))
				}
			}
			if got := strings.Join(allowed, " "); got != tt.allowed {
				t.Errorf("allows %q, want %q", got, tt.allowed)
			}
		})
	}
}

// TestRungsOfOneSession holds that a program that cannot have a listener stays on
// the ground of its session.
func TestRungsOfOneSession(t *testing.T) {
	for _, r := range Rungs() {
		if w := r.WithoutListener(); w.Relayed() != r.Relayed() || w.Supervised() {
			t.Errorf("%s without a listener is %s", r, w)
		}
	}
}
