package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/netstack/mirror"
	"github.com/borrownet/borrownet/netstack/mirror/mirrortest"
)

// recorded writes a pcap file, by hand since it is simple: two requests and their
// answers.
func recorded(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	// Magic of nanoseconds in little endian, version 2.4, 64 KiB, raw IP packets.
	b.WriteString("\x4d\x3c\xb2\xa1\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x65\x00\x00\x00")
	c := mirrortest.New(netip.MustParseAddrPort("203.0.113.7:40000"), netip.MustParseAddrPort("192.0.2.10:8080"), func(p mirror.Packet) {
		n := byte(len(p.Data)) // less than 256
		b.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0, n, 0, 0, 0, n, 0, 0, 0})
		b.Write(p.Data)
	})
	c.Open()
	for _, name := range []string{"same", "other"} {
		c.Ask("GET /" + name + " HTTP/1.1\r\nHost: shop\r\n\r\n")
		c.Answer("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{\"id\":1}")
	}
	c.Close()
	path := filepath.Join(t.TempDir(), "f.pcap")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestReplayCommand replays to a program that gives one other answer.
func TestReplayCommand(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := 1
		if r.URL.Path == "/other" {
			id = 2
		}
		w.Header()["Content-Type"] = nil
		fmt.Fprintf(w, `{ "id": %d }`, id)
	}))
	defer srv.Close()
	path := recorded(t)
	for _, tt := range []struct {
		name   string
		args   []string
		code   int
		stdout []string // lines, or ends of lines
		stderr []string
	}{
		{"plain", nil, 0,
			[]string{"203.0.113.7:40000  GET shop/same  200", "203.0.113.7:40000  GET shop/other  200"},
			[]string{"requests: 2, delivered 2"}},
		{"filter", []string{"--filter", "!path=/same"}, 0,
			[]string{"203.0.113.7:40000  GET shop/other  200"},
			[]string{"requests: 2, delivered 1, 1 filtered"}},
		{"diff", []string{"--diff"}, int(fault.General),
			[]string{"GET shop/other", "        live  local", "  $.id  1     2"},
			[]string{"requests: 2, delivered 2", "answers: 2 compared, 1 the same", "error: compare " + path + " with " + srv.Listener.Addr().String() + ": 1 of 2 answers differ",
				"hint: --diff-ignore leaves out headers and places in JSON that always do"}},
		{"diff-ignored", []string{"--diff", "--diff-ignore", "$.id"}, 0, nil,
			[]string{"requests: 2, delivered 2", "answers: 2 compared, 2 the same"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out, err bytes.Buffer
			a := &app{argv: append([]string{"borrownet", "replay", path, "--to", srv.Listener.Addr().String(), "--speed", "asap"}, tt.args...), ui: newUI(&out, &err)}
			if code := a.execute(); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			compareLines(t, "stdout", tt.stdout, out.String())
			compareLines(t, "stderr", tt.stderr, err.String())
		})
	}
	t.Run("json", func(t *testing.T) {
		var out, errs bytes.Buffer
		a := &app{argv: []string{"borrownet", "replay", path, "--to", srv.Listener.Addr().String(), "--speed", "asap", "--diff", "-o", "json"}, ui: newUI(&out, &errs)}
		if code := a.execute(); code != int(fault.General) {
			t.Errorf("exit code %d", code)
		}
		var got compared
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if got.Compared != 2 || got.Same != 1 || len(got.Differences) != 1 || got.Differences[0].Differs[0].What != "$.id" || got.Replay.Requests.Delivered != 2 {
			t.Errorf("got %+v", got)
		}
	})
	srv.Close()
	t.Run("nobody-listens", func(t *testing.T) {
		var out, errs bytes.Buffer
		a := &app{argv: []string{"borrownet", "replay", path, "--to", srv.Listener.Addr().String(), "--speed", "asap"}, ui: newUI(&out, &errs)}
		if code := a.execute(); code != int(fault.General) {
			t.Errorf("exit code %d", code)
		}
		if !strings.Contains(errs.String(), "2 of 2 were refused: dial tcp") || !strings.Contains(errs.String(), "hint: is the program running? ss -ltn sport = :") {
			t.Errorf("stderr %q", errs.String())
		}
	})
}

// compareLines compares the ends of lines.
func compareLines(t *testing.T, name string, want []string, text string) {
	t.Helper()
	var got []string
	if text != "" {
		got = strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	}
	for i := range min(len(got), len(want)) {
		if strings.HasSuffix(got[i], want[i]) {
			got[i] = want[i]
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}
