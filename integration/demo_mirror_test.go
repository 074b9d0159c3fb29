//go:build !lab

package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestDemoMirrors copies requests to a pod of the demo to a program of this machine,
// with the commands of a person: those that a filter lets pass, each shown by tail.
func TestDemoMirrors(t *testing.T) {
	asSelf(t, func(t *testing.T, p *demoPlace) {
		k := p.keep()
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })}
		go srv.Serve(ln) // ends with Close
		defer srv.Close()
		said := p.must("up", "--pod", "orders", "--context", "demo", "-d", "--mirror-filter", "path=/seen/*",
			"--mirror", fmt.Sprintf("80:%d", ln.Addr().(*net.TCPAddr).Port))
		if !strings.Contains(said, "warning: the program here acts on copied requests") || !strings.Contains(said, "hint: --read-only ") {
			t.Errorf("up does not warn of writes:\n%s", said)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		tail := p.command(ctx, "tail", "--session", "orders", "-o", "json", "-v")
		out, err := tail.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		errs, err := tail.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := tail.Start(); err != nil {
			t.Fatal(err)
		}
		if said, hit := scanTo(errs, "watching session orders"); !hit {
			t.Fatalf("tail does not begin:\n%s", said)
		}
		for _, path := range []string{"/seen/1", "/unseen", "/seen/2"} {
			p.must("run", "--session", "api", "--", p.bin, "demo", "call", "http://orders"+path)
		}
		lines := bufio.NewScanner(out)
		for _, want := range []string{"/seen/1", "/seen/2"} {
			var r struct {
				Client, Method, Target, Fate string
				Status                       int
			}
			if !lines.Scan() {
				t.Fatalf("tail ends before %s", want)
			}
			if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
				t.Fatal(err)
			}
			// The caller is the pod that session api borrows.
			if r.Target != want || r.Method != "GET" || r.Status != http.StatusTeapot || r.Fate != "delivered" || !strings.HasPrefix(r.Client, "192.0.2.10:") {
				t.Errorf("tail says %s, want a delivered GET %s", lines.Text(), want)
			}
		}
		const counts = "requests 3, delivered 2, 1 filtered"
		said = p.must("status", "orders")
		for end := time.Now().Add(time.Minute); !strings.Contains(said, counts) && time.Now().Before(end); said = p.must("status", "orders") {
			<-time.After(50 * time.Millisecond) // they come a moment later
		}
		if !strings.Contains(said, counts) {
			t.Errorf("status:\n%s", said)
		}
		p.must("down", "orders", "--stop-agent")
		if lines.Scan() {
			t.Errorf("tail goes on: %s", lines.Text())
		}
		if err := tail.Wait(); err != nil {
			t.Errorf("tail does not end well with its session: %v", err)
		}
		k.end()
	})
}
