package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// defaultSocket is where Docker's engine listens if nobody says otherwise.
const defaultSocket = "/var/run/docker.sock"

// Find returns the path of the engine's socket as the docker command would
// choose it in the environment env: by DOCKER_HOST, by the context of
// DOCKER_CONTEXT or of Docker's configuration, or the usual place. If the
// engine is not on a unix socket, remote is its address.
func Find(env []string) (socket, remote string) {
	host := lookup(env, "DOCKER_HOST")
	if host == "" {
		host = contextHost(env)
	}
	if host == "" {
		return defaultSocket, ""
	}
	if path, ok := strings.CutPrefix(host, "unix://"); ok {
		return path, ""
	}
	return "", host
}

// Others returns the sockets, besides tried, that engines have which Find does not choose
// by itself: rootless Docker's and podman's.
func Others(env []string, tried string) []string {
	var candidates []string
	if dir := lookup(env, "XDG_RUNTIME_DIR"); dir != "" {
		candidates = append(candidates, filepath.Join(dir, "docker.sock"), filepath.Join(dir, "podman/podman.sock"))
	}
	return slices.DeleteFunc(append(candidates, "/run/podman/podman.sock"), func(path string) bool {
		info, err := os.Stat(path)
		return path == tried || err != nil || info.Mode().Type() != os.ModeSocket
	})
}

// contextHost returns the address in the current context, "" if that is the
// default one or is not there.
func contextHost(env []string) string {
	dir := lookup(env, "DOCKER_CONFIG")
	if dir == "" {
		dir = filepath.Join(lookup(env, "HOME"), ".docker")
	}
	name := lookup(env, "DOCKER_CONTEXT")
	if name == "" {
		var config struct {
			CurrentContext string `json:"currentContext"`
		}
		readJSON(filepath.Join(dir, "config.json"), &config)
		name = config.CurrentContext
	}
	if name == "" || name == "default" {
		return ""
	}
	sum := sha256.Sum256([]byte(name))
	var meta struct {
		Endpoints map[string]struct{ Host string }
	}
	readJSON(filepath.Join(dir, "contexts", "meta", hex.EncodeToString(sum[:]), "meta.json"), &meta)
	return meta.Endpoints["docker"].Host
}

// readJSON reads what it can: a file that is missing or broken says nothing.
func readJSON(path string, v any) {
	if text, err := os.ReadFile(path); err == nil {
		_ = json.Unmarshal(text, v)
	}
}

func lookup(env []string, name string) string {
	value := ""
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			value = v
		}
	}
	return value
}
