//go:build !lab

package integration

import (
	"strings"
	"testing"
)

// TestTour types what docs/tour.md shows after the demo's start, and wants the errors
// that it shows and no others. hack/tour.sh writes the page.
func TestTour(t *testing.T) {
	type step struct {
		line string
		fail bool
	}
	var steps []step
	for l := range strings.Lines(codeOf(readFile(t, "docs/tour.md"))) {
		switch typed, ok := strings.CutPrefix(strings.TrimSpace(l), "$ "); {
		case ok:
			steps = append(steps, step{line: typed})
		case strings.HasPrefix(l, "error: ") && len(steps) > 0:
			steps[len(steps)-1].fail = true
		}
	}
	asSelf(t, func(t *testing.T, p *demoPlace) {
		k := p.keep()
		p.must("down", "--stop-agent")
		typed := 0
		for _, s := range steps {
			line, _, _ := strings.Cut(s.line, " | ")
			words := strings.Fields(line)
			switch {
			case words[0] != "borrownet", words[1] == "demo" && words[2] == "--keep", strings.HasSuffix(line, "&"), strings.Contains(line, "127.0.0.1:"):
				continue // TestForward and others do these
			}
			for i, w := range words {
				if w == "borrownet" {
					words[i] = p.bin
				}
			}
			typed++
			if said, code := p.run(words[1:]...); (code != 0) != s.fail {
				t.Errorf("%s: exit code %d\n%s", s.line, code, said)
			}
		}
		if typed < 10 {
			t.Errorf("docs/tour.md has %d commands", typed)
		}
		k.end()
	})
}
