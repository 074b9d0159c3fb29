package settings

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/borrownet/borrownet/cmd/internal/fault"
)

func TestRead(t *testing.T) {
	tests := []struct{ name, text, want, wantErr string }{
		{"image", "agentImage: registry.example.org/agent:1\n", "registry.example.org/agent:1", ""},
		{"routing", "agentImage: x\npublish: [\"18080:8080\"]\nlocal: [192.0.2.0/24]\nremoteLocalhost: [9901]\n", "x", ""},
		{"empty", "", "", ""},
		{"unknown_field", "agentimag: x\n", "", "unknown field"},
		{"no_yaml", "a: [", "", "yaml"},
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
	if s, err := Read(filepath.Join(t.TempDir(), Name)); err != nil || s.AgentImage != "" || s.Publish != nil || s.Local != nil {
		t.Errorf("missing file: %+v, %v", s, err)
	}
}
