package wire

import (
	"errors"
	"strings"
	"testing"
)

func TestParseHello(t *testing.T) {
	const good = `{"borrownet":"agent","protocol":2,"version":"v1","publicKey":"AAAA","port":40001,"later":true}`
	tests := []struct {
		name    string
		line    string
		wantErr string // "" = none, "not" = ErrNotHello
	}{
		{"good", good, ""},
		{"not_json", "time=... level=INFO", "not"},
		{"other_json", `{"level":"info"}`, "not"},
		{"no_port", `{"borrownet":"agent","protocol":2,"publicKey":"A"}`, "not"},
		{"huge_port", `{"borrownet":"agent","protocol":2,"publicKey":"A","port":70000}`, "not"},
		{"newer", `{"borrownet":"agent","protocol":3,"version":"v9","publicKey":"A","port":1}`, "speaks protocol 3"},
		{"huge", `{"borrownet":"agent","x":"` + strings.Repeat("x", MaxMessage) + `"}`, "not"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, err := ParseHello([]byte(tt.line))
			switch {
			case tt.wantErr == "" && (err != nil || h.Port != 40001):
				t.Fatalf("ParseHello = %+v, %v", h, err)
			case tt.wantErr == "not" && !errors.Is(err, ErrNotHello):
				t.Fatalf("error = %v, want ErrNotHello", err)
			case tt.wantErr != "" && tt.wantErr != "not" && (err == nil || !strings.Contains(err.Error(), tt.wantErr)):
				t.Fatalf("error = %v, want %q", err, tt.wantErr)
			}
		})
	}
}

func FuzzParseHello(f *testing.F) {
	f.Add([]byte(`{"borrownet":"agent","protocol":2,"version":"v1","publicKey":"AAAA","port":40001}`))
	f.Add([]byte(`{"borrownet":"agent","protocol":-1}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		if h, err := ParseHello(line); err == nil && (h.Port == 0 || h.Protocol != Protocol) {
			t.Fatalf("accepted %+v", h)
		}
	})
}
