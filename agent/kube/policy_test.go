package kube

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/borrownet/borrownet/agent/kube/api"
)

const digest = "sha256:05b657f6f6ae33f835cf7fa38b2bfbfe6a09575ab08b7bb7103b540c72a51041"

func TestPolicyGolden(t *testing.T) {
	for name, cfg := range map[string]PolicyConfig{
		"policy.yaml":        {Images: []string{"registry.example.org/borrownet-agent:1@" + digest}},
		"policy-target.yaml": {Images: []string{"registry.example.org/borrownet-agent@" + digest}, Binaries: binaries()},
		"policy-attach.yaml": {Images: []string{"registry.example.org/borrownet-agent@" + digest}, Binaries: binaries(), Attach: true},
		"policy-direct.yaml": {Images: []string{"registry.example.org/borrownet-agent@" + digest}, Direct: true},
		"policy-mirror.yaml": {Images: []string{"registry.example.org/borrownet-agent@" + digest}, NetRaw: true},
		"policy-registry.yaml": {Registries: []string{"registry.example.org/team/borrownet-agent", "mirror.example.org/"},
			Name: "agents", Label: "example.org/agents=only", MaxTTL: time.Hour, Metadata: []netip.Addr{googleInfo4}},
	} {
		b, err := Policy(cfg)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, b)
	}
}

func TestPolicyRefusesInput(t *testing.T) {
	good := []string{"registry.example.org/a@" + digest}
	for _, tt := range []struct {
		name string
		cfg  PolicyConfig
		want string
	}{
		{"no-image", PolicyConfig{}, "no image is named"},
		{"tag", PolicyConfig{Images: []string{"registry.example.org/a:1"}}, "not pinned"},
		{"quote", PolicyConfig{Images: []string{"a'b@" + digest}}, "not pinned"},
		{"registry-quote", PolicyConfig{Registries: []string{"x') || ('"}}, "neither a registry"},
		{"registry-scheme", PolicyConfig{Registries: []string{"https://registry.example.org"}}, "neither a registry"},
		{"program", PolicyConfig{Binaries: []Binary{{Arch: "x') || ('", Size: 1, SHA256: strings.Repeat("0", 64)}}}, "ARCH:SIZE:SHA256"},
		{"label", PolicyConfig{Images: good, Label: "x"}, "KEY=VALUE"},
		{"name", PolicyConfig{Images: good, Name: "No"}, "no name of a policy"},
		{"ttl", PolicyConfig{Images: good, MaxTTL: time.Millisecond}, "shorter"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := Policy(tt.cfg)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q; %s", err, tt.want, b)
			}
		})
	}
}

// TestPolicyPatterns holds the policy's patterns against the container that
// we make; CEL's regular expressions are Go's.
func TestPolicyPatterns(t *testing.T) {
	for _, ttl := range []time.Duration{time.Second, 90 * time.Second, 15 * time.Minute, 8 * time.Hour} {
		s := spec()
		s.IdleTTL, s.HardTTL = ttl, ttl
		s, err := s.complete()
		if err != nil {
			t.Fatal(err)
		}
		ec := newContainer(&api.Container{Name: "app"}, s, identity{})
		if len(ec.Args) != 6 {
			t.Fatalf("%d arguments: the policy admits 6", len(ec.Args))
		}
		for _, p := range []struct{ pattern, text string }{
			{patternKey, ec.Args[1]}, {patternDuration, ec.Args[3]}, {patternDuration, ec.Args[5]}, {patternSpec, envValue(ec, envSpec)},
		} {
			if !regexp.MustCompile(p.pattern).MatchString(p.text) {
				t.Errorf("%q does not match %s", p.text, p.pattern)
			}
		}
	}
}
