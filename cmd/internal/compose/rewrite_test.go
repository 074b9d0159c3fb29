package compose

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/cmd/internal/printable/printabletest"
	"github.com/borrownet/borrownet/hook/view"
)

var update = flag.Bool("update", false, "write the golden files")

func web() Borrowed {
	return Borrowed{
		Service: "web", Session: "shop-web", Instance: "i1", Socket: "/run/user/1000/borrownet/docker-1.sock",
		Image: "borrownet.local/guest:1", Resolver: "192.0.0.4", TUN: true, Sysctls: map[string]string{"net.ipv6.conf.all.disable_ipv6": "0"},
	}
}

// TestRewrite compares whole files. Each is what a compose tool's config has printed.
func TestRewrite(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yml")
	if err != nil || len(inputs) == 0 {
		t.Fatal(err, inputs)
	}
	for _, in := range inputs {
		name := strings.TrimSuffix(filepath.Base(in), ".in.yml")
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(in)
			if err != nil {
				t.Fatal(err)
			}
			b := web()
			b.Env = []string{"MODE=pod", "PRICE=5$", "SWITCH=on", "NUMBER=08", "LINES=a\nb"}
			b.Files = []view.Bind{{Source: "/run/x/0", Target: "/etc/secrets"}, {Source: "/run/x/1", Target: "/etc/taken"}}
			got, _, err := Rewrite(text, []Borrowed{b})
			if err != nil {
				t.Fatal(err)
			}
			golden := strings.TrimSuffix(in, ".in.yml") + ".out.yml"
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestRewriteRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ file, want string }{
		"empty":       {"", "it is empty"},
		"no_yaml":     {"services: [", "read what the compose tool says"},
		"no_services": {"version: '3'\n", "there are no services"},
		"unknown":     {"services:\n  db: {image: x}\n", "there is no service web"},
		"host":        {"services:\n  web: {image: x, network_mode: host}\n", "network_mode host"},
		"scale":       {"services:\n  web: {image: x, scale: 2}\n", "2 replicas"},
		"replicas":    {"services:\n  web: {image: x, deploy: {replicas: 3}}\n", "3 replicas"},
		"twice":       {"services:\n  web: {image: x}\n  borrownet-web: {image: y}\n", "already"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := Rewrite([]byte(tt.file), []Borrowed{web()})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestRewriteWarns(t *testing.T) {
	_, warnings, err := Rewrite([]byte("services:\n  web: {image: x, dns: [192.0.2.1]}\n"), []Borrowed{web()})
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "dns of service web") {
		t.Errorf("%q, %v", warnings, err)
	}
}

// TestPodTextsStayTexts: what a pod's spec calls a path or a value is not interpolated, and
// drives no terminal that the file is shown on.
func TestPodTextsStayTexts(t *testing.T) {
	b := web()
	b.Env = []string{"A=${HOME}x\x1b[2J\u009b31m\x7f\r\a\nforged: yes"}
	b.Files = []view.Bind{{Source: "/run/x/0", Target: "/x${HOME}\x1b[2J"}}
	got, _, err := Rewrite([]byte("services:\n  web: {image: x}\n"), []Borrowed{b})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`A: "$${HOME}x\e[2J`, `target: "/x$${HOME}\e[2J"`} {
		if !strings.Contains(string(got), want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	printabletest.Inert(t, "the file", string(got))
}

func TestProjectName(t *testing.T) {
	for _, tt := range []struct {
		files Files
		env   string
		want  string
	}{
		{Files{Project: "given"}, "env", "given"},
		{Files{}, "env", "env"},
		{Files{Files: []string{"/srv/My Shop.1/compose.yml"}}, "", "myshop1"},
		{Files{Directory: "/srv/other", Files: []string{"/srv/shop/compose.yml"}}, "", "other"},
		{Files{Directory: "/"}, "", "default"},
	} {
		if got, err := ProjectName(tt.files, tt.env); err != nil || got != tt.want {
			t.Errorf("%+v, %q: got %q, %v, want %q", tt.files, tt.env, got, err, tt.want)
		}
	}
}
