//go:build !lab

package integration

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestDashboard watches the demo's session as a person does.
func TestDashboard(t *testing.T) {
	asSelf(t, func(t *testing.T, p *demoPlace) {
		k := p.keep()
		cmd := p.command(t.Context(), "status", "--watch")
		cmd.Env = append(cmd.Env, "TERM=xterm-256color", "NO_COLOR=1")
		term := startOnTerminal(t, cmd)
		term.await("\x1b[?1049h", time.Minute) // the screen of its own
		term.await("1 of 1 ready", time.Minute)
		term.await("ROUND TRIP", time.Minute)
		term.awaitAfter(term.typed("\r"), "pod ips", time.Minute)
		term.awaitAfter(term.typed("?"), "what is shown", time.Minute)
		term.typed("q")
		if err := cmd.Wait(); err != nil {
			t.Errorf("status --watch: %v", err)
		}
		term.await("\x1b[?1049l", time.Minute) // the person's screen is back
		if colours := regexp.MustCompile(`\x1b\[[0-9;]*[34][0-7]m`).FindString(term.screen()); colours != "" {
			t.Errorf("NO_COLOR, and %q is printed", colours)
		}

		// It ends when no session is left.
		cmd = p.command(t.Context(), "status", "--watch")
		cmd.Env = append(cmd.Env, "TERM=xterm-256color")
		term = startOnTerminal(t, cmd)
		term.await("1 of 1 ready", time.Minute)
		p.must("down")
		cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 30 {
			t.Errorf("exit code %d, want 30", code)
		}
		term.await("error: find session: none is up [BN3001]", time.Minute)
		k.end()
	})
}

// TestProgressOnATerminal has a time for each step that takes some, and JSON for
// programs.
func TestProgressOnATerminal(t *testing.T) {
	asSelf(t, func(t *testing.T, p *demoPlace) {
		k := p.keep()
		p.must("down")
		cmd := p.command(t.Context(), "up", "--pod", "ledger", "--context", "demo", "-d")
		cmd.Env = append(cmd.Env, "TERM=xterm")
		term := startOnTerminal(t, cmd)
		if err := cmd.Wait(); err != nil {
			t.Errorf("up: %v\n%s", err, term.screen())
		}
		term.await("\x1b[K✓ opening the tunnel", time.Minute)
		term.await("session ledger is ready: ", time.Minute)
		said := p.must("up", "--pod", "orders", "--context", "demo", "-d", "--progress", "json")
		for l := range strings.Lines(said) {
			if !strings.HasPrefix(l, `{"time":"`) || !strings.HasSuffix(l, "}\n") {
				t.Errorf("--progress json says %q", l)
			}
		}
		for _, want := range []string{`"step":"opening the tunnel","state":"done","tookNanos":`, `"ready":{"session":"orders","state":"ready"`} {
			if !strings.Contains(said, want) {
				t.Errorf("no %s in\n%s", want, said)
			}
		}
		if said := p.must("up", "--pod", "api", "--context", "demo", "-d", "--progress", "quiet"); said != "" {
			t.Errorf("--progress quiet says %q", said)
		}
		p.must("down", "--all", "--stop-agent")
		k.end()
	})
}
