package settings

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/borrownet/borrownet/cmd/internal/fault"
)

func TestReadNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), Name)
	text := "local: [corp.example.org]\nhosts:\n  db.example.org: 192.0.2.7\n  two.example.org: [192.0.2.8, '2001:db8::8']\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	want := Settings{path: path, Routing: Routing{Local: []string{"corp.example.org"}, Hosts: map[string]Addrs{
		"db.example.org":  {netip.MustParseAddr("192.0.2.7")},
		"two.example.org": {netip.MustParseAddr("192.0.2.8"), netip.MustParseAddr("2001:db8::8")},
	}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestRead(t *testing.T) {
	tests := []struct{ name, text, want, wantErr string }{
		{"image", "agentImage: registry.example.org/agent:1\n", "registry.example.org/agent:1", ""},
		{"routing", "agentImage: x\npublish: [\"18080:8080\"]\nlocal: [192.0.2.0/24]\nremoteLocalhost: [9901]\n", "x", ""},
		{"empty", "", "", ""},
		{"unknown_field", "agentimag: x\n", "", "line 1: there is no key agentimag at the top, did you mean agentImage?"},
		{"no_yaml", "a: [", "", "line 1: did not find"},
		{"no_address", "hosts: {db: nowhere}\n", "", "not an IP address"},
		{"no_addresses", "hosts: {db: []}\n", "", "not an IP address"},
		{"too_big", strings.Repeat("#", maxSize+1), "", "more than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), Name)
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := Read(path)
			if tt.wantErr == "" {
				if err != nil || got.AgentImage != tt.want {
					t.Errorf("got %+v, %v", got, err)
				}
				return
			}
			var f *fault.Error
			if !errors.As(err, &f) || f.Code != fault.Usage || f.Hint == "" || !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("got %v, want %q", err, tt.wantErr)
			}
		})
	}
	if s, err := Read(filepath.Join(t.TempDir(), Name)); err != nil || !reflect.DeepEqual(s, Settings{}) {
		t.Errorf("missing file: %+v, %v", s, err)
	}
}
