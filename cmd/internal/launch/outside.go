package launch

import (
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// A Server starts programs for those that ask it to. If it was there before the
// session, what it starts is none of the session's.
type Server struct {
	Name   string // as people know it
	Starts string // what it starts
	Hint   string // how to have it start inside, or instead of it
}

var servers = struct{ tmux, screen, docker, podman, systemd, code, emacs, bazel Server }{
	tmux:    Server{"tmux", "the windows of its sessions", "tmux -L borrownet new-session starts a server of its own inside"},
	screen:  Server{"screen", "the windows of its sessions", "screen -m starts a session of its own inside"},
	docker:  Server{"docker", "containers", "borrownet up --docker makes a network that containers join"},
	podman:  Server{"podman", "containers", ""},
	systemd: Server{"systemd", "units", "start the program itself, without systemd-run and systemctl"},
	code:    Server{"VS Code", "terminals, tasks and debuggers", "code --user-data-dir DIRECTORY starts a VS Code of its own inside"},
	emacs:   Server{"emacs", "shells and compilations", "emacs -q starts one of its own inside"},
	bazel:   Server{"bazel", "tests and actions", "bazel --batch test … runs them inside; bazel run … does too"},
}

// ServerAt tells which server listens at the path of a Unix socket.
func ServerAt(socket string) (Server, bool) {
	dir, base := path.Split(path.Clean(socket))
	dir = path.Base(dir)
	is := func(pattern, name string) bool { ok, err := path.Match(pattern, name); return ok && err == nil }
	switch {
	case is("tmux-[0-9]*", dir):
		return servers.tmux, true
	case is("S-*", dir), dir == ".screen":
		return servers.screen, true
	case base == "docker.sock":
		return servers.docker, true
	case base == "podman.sock":
		return servers.podman, true
	case dir == "systemd" && base == "private":
		return servers.systemd, true
	case is("vscode-ipc-*.sock", base):
		return servers.code, true
	case is("emacs*", dir) && base == "server":
		return servers.emacs, true
	}
	return Server{}, false
}

// ServerOf tells which server a command leaves its work to, by its name. It is for
// those that cannot be told by their socket.
func ServerOf(argv []string) (Server, bool) {
	if len(argv) < 2 {
		return Server{}, false
	}
	name := strings.TrimSuffix(filepath.Base(argv[0]), "isk") // bazelisk
	if name != "bazel" || slices.Contains(argv, "--batch") || !slices.Contains(argv, "test") {
		return Server{}, false
	}
	return servers.bazel, true
}

// ownServers has build tools and frameworks do without servers that outlive them
// and would be outside of the next session, or start new ones: NAME=VALUE.
var ownServers = []string{"MVND_NO_DAEMON=true", "NX_DAEMON=false", "DISABLE_SPRING=1"}

// Gradle takes properties from one variable, which may have others already.
const (
	gradleVar = "GRADLE_OPTS"
	gradleOpt = "-Dorg.gradle.daemon"
)

// withoutServers adds what keeps programs from leaving their work to servers
// outside. What the person or the pod says about them stays, and unset are names
// that the person does not want.
func withoutServers(env, unset []string) []string {
	for _, kv := range ownServers {
		name, _, _ := strings.Cut(kv, "=")
		said := func(have string) bool { return strings.HasPrefix(have, name+"=") }
		if !slices.ContainsFunc(env, said) && !slices.Contains(unset, name) {
			env = append(env, kv)
		}
	}
	if have := Lookup(env, gradleVar); !strings.Contains(have, gradleOpt) && !slices.Contains(unset, gradleVar) {
		env = slices.DeleteFunc(env, func(kv string) bool { return strings.HasPrefix(kv, gradleVar+"=") })
		env = append(env, gradleVar+"="+strings.TrimSpace(have+" "+gradleOpt+"=false"))
	}
	return env
}
