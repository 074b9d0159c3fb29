package launch

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestServerAt(t *testing.T) {
	for _, tt := range []struct{ path, want string }{
		{"/tmp/tmux-1000/default", "tmux"},
		{"/private/tmux-0/work", "tmux"},
		{"/run/screen/S-jane/4711.pts-1", "screen"},
		{"/srv/jane/.screen/4711.pts-1", "screen"},
		{"/var/run/docker.sock", "docker"},
		{"/srv/jane/.docker/desktop/docker.sock", "docker"},
		{"/run/user/1000/podman/podman.sock", "podman"},
		{"/run/user/1000/systemd/private", "systemd"},
		{"/run/systemd//private", "systemd"},
		{"/run/user/1000/vscode-ipc-0b3f.sock", "VS Code"},
		{"/run/user/1000/emacs/server", "emacs"},
		{"/tmp/emacs1000/server", "emacs"},
		{"/run/user/1000/bus", ""},
		{"/var/run/postgresql/.s.PGSQL.5432", ""},
		{"/run/systemd/journal/stdout", ""},
		{"", ""},
	} {
		s, ok := ServerAt(tt.path)
		if s.Name != tt.want || ok != (tt.want != "") {
			t.Errorf("%q: %q, %v, want %q", tt.path, s.Name, ok, tt.want)
		}
	}
}

func TestServerOf(t *testing.T) {
	for _, tt := range []struct {
		argv []string
		want string
	}{
		{[]string{"bazel", "test", "//..."}, "bazel"},
		{[]string{"/usr/local/bin/bazelisk", "--host_jvm_args=-Xmx1g", "test", "//..."}, "bazel"},
		{[]string{"bazel", "--batch", "test", "//..."}, ""},
		{[]string{"bazel", "run", "//cmd/api"}, ""},
		{[]string{"go", "test"}, ""},
		{[]string{"bazel"}, ""},
		{nil, ""},
	} {
		if s, ok := ServerOf(tt.argv); s.Name != tt.want || ok != (tt.want != "") {
			t.Errorf("%q: %q, %v, want %q", tt.argv, s.Name, ok, tt.want)
		}
	}
}

func TestWithoutServers(t *testing.T) {
	none := []string{"MVND_NO_DAEMON=true", "NX_DAEMON=false", "DISABLE_SPRING=1"}
	for _, tt := range []struct {
		name             string
		env, unset, want []string
	}{
		{"nothing", nil, nil, append(none, "GRADLE_OPTS=-Dorg.gradle.daemon=false")},
		{"options", []string{"GRADLE_OPTS=-Xmx1g"}, nil, append(none, "GRADLE_OPTS=-Xmx1g -Dorg.gradle.daemon=false")},
		{"asked-for", []string{"GRADLE_OPTS=-Dorg.gradle.daemon=true", "MVND_NO_DAEMON=", "NX_DAEMON=true", "DISABLE_SPRING=0"}, nil,
			[]string{"GRADLE_OPTS=-Dorg.gradle.daemon=true", "MVND_NO_DAEMON=", "NX_DAEMON=true", "DISABLE_SPRING=0"}},
		{"unset", nil, []string{"NX_DAEMON", "GRADLE_OPTS"}, []string{"MVND_NO_DAEMON=true", "DISABLE_SPRING=1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, withoutServers(tt.env, tt.unset)); diff != "" {
				t.Errorf("environment (-want +got)\n%s", diff)
			}
		})
	}
}
