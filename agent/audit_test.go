package agent_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/borrownet/borrownet/agent"
	"github.com/borrownet/borrownet/agent/agenttest"
	"github.com/borrownet/borrownet/agent/wire"
)

// lines collects what an agent logs.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) all(t *testing.T, msg string) []map[string]any {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []map[string]any
	for line := range strings.Lines(l.buf.String()) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if v["msg"] == msg {
			found = append(found, v)
		}
	}
	return found
}

// TestLogSaysWhoAndWhat: the cluster's log collection keeps who used an agent,
// from when to when, and where they were refused.
func TestLogSaysWhoAndWhat(t *testing.T) {
	var log lines
	a, c, key := start(t, func(cfg *agent.Config) { cfg.Logger = slog.New(slog.NewJSONHandler(&log, nil)) })
	peer := key.Public().String()
	metadata := netip.MustParseAddr("169.254.169.254")
	dial(t, c, podIP, at(server, 7)) // the tunnel is there: no SYN is sent twice
	for range 2 {
		if _, err := dialErr(c, podIP, at(metadata, 80), patience); err == nil {
			t.Fatal("the metadata server is reached")
		}
	}

	got := log.all(t, "destination denied")
	if len(got) != 1 || got[0]["dst"] != "169.254.169.254:80" || got[0]["proto"] != "tcp" || got[0]["peer"] != peer || got[0]["reason"] != "link-local address" {
		t.Errorf("denied: %v, want one line for two tries", got)
	}
	// A SYN that is sent again, after a second without an answer, is refused again.
	if n := stats(t, c).Denied["link-local address"]; n < 2 {
		t.Errorf("counted %d, want 2", n)
	}
	c.Tunnel.Close() // else it dials again, and the two replace each other
	next := agenttest.Connect(t, a, key, podIP)
	dial(t, next, podIP, at(server, 7))
	for range 2 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://agent"+wire.PathInfo, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(wire.HeaderClient, "jane doe@laptop"+strings.Repeat("x", 200))
		resp, err := next.HTTP.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	if got := log.all(t, "client"); len(got) != 1 || got[0]["who"] != "janedoe@laptop"+strings.Repeat("x", 114) || got[0]["peer"] != peer {
		t.Errorf("client: %v, want one line with a name of 128 characters", got)
	}
	resp, err := next.HTTP.Post("http://agent"+wire.PathStop, "", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if err := a.Wait(patience); err != nil {
		t.Fatal(err)
	}

	started, ended := log.all(t, "session starts"), log.all(t, "session ends")
	if len(started) != 2 || len(ended) != 2 {
		t.Fatalf("%d sessions start, %d end, want 2 each: %v %v", len(started), len(ended), started, ended)
	}
	for i, reason := range []string{"replaced", "stopped by the client"} {
		if started[i]["peer"] != peer || ended[i]["peer"] != peer || started[i]["session"] != ended[i]["session"] {
			t.Errorf("session %d: %v, %v", i, started[i], ended[i])
		}
		if text, _ := ended[i]["reason"].(string); !strings.Contains(text, reason) {
			t.Errorf("session %d ends because %q, want %q", i, text, reason)
		}
		denied, _ := ended[i]["denied"].(float64)
		if ended[i]["tcp"] != 1.0 || (i == 0 && denied < 2) || (i == 1 && denied != 0) || ended[i]["bytes_in"] == 0.0 {
			t.Errorf("session %d: %v", i, ended[i])
		}
	}
	first, last := log.all(t, "agent starts"), log.all(t, "agent ends")
	if len(first) != 1 || first[0]["peer"] != peer || len(last) != 1 {
		t.Errorf("the agent's own lines: %v, %v", first, last)
	}
}

// TestDeniedLinesAreBounded: a client cannot fill the node's disk.
func TestDeniedLinesAreBounded(t *testing.T) {
	var log lines
	_, c, _ := start(t, func(cfg *agent.Config) { cfg.Logger = slog.New(slog.NewJSONHandler(&log, nil)) })
	var wg sync.WaitGroup
	for port := range uint16(100) {
		wg.Go(func() { _, _ = dialErr(c, podIP, at(netip.MustParseAddr("169.254.169.254"), port+1), patience) })
	}
	wg.Wait()
	if one, more := len(log.all(t, "destination denied")), len(log.all(t, "destinations denied")); one != 63 || more != 1 {
		t.Errorf("%d lines and %d that says there are more, want 63 and 1", one, more)
	}
}
