package engine

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/borrownet/borrownet/cmd/internal/engine/enginetest"
)

// serve answers as an engine would at a socket of its own.
func serve(t *testing.T, handle http.HandlerFunc) *Client {
	t.Helper()
	return New(enginetest.Serve(t, handle))
}

func TestCreate(t *testing.T) {
	var got Spec
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != "/containers/create" || r.URL.Query().Get("name") != "web" {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusCreated)
		io.WriteString(w, `{"Id":"abc","Warnings":[]}`)
	})
	spec := Spec{Image: "x:1", HostConfig: HostConfig{CapAdd: []string{"NET_ADMIN"}}}
	spec.Publish(netip.MustParseAddrPort("127.0.0.1:18080"), 8080)
	id, err := c.Create(context.Background(), "web", spec)
	if err != nil || id != "abc" {
		t.Errorf("Create = %q, %v", id, err)
	}
	if p := got.HostConfig.PortBindings["8080/tcp"]; len(p) != 1 || p[0] != (Port{"127.0.0.1", "18080"}) {
		t.Errorf("port bindings %v", got.HostConfig.PortBindings)
	}
	if _, ok := got.ExposedPorts["8080/tcp"]; !ok {
		t.Errorf("exposed %v", got.ExposedPorts)
	}
}

func TestRefusal(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		status, text := http.StatusConflict, `{"message":"the name is in use"}`
		switch {
		case strings.HasPrefix(r.URL.Path, "/images/none"):
			status = http.StatusNotFound
		case r.URL.Path == "/info":
			status, text = http.StatusInternalServerError, "not JSON"
		}
		w.WriteHeader(status)
		io.WriteString(w, text)
	})
	ctx := context.Background()
	if _, err := c.Create(ctx, "web", Spec{}); !IsRefused(err, http.StatusConflict) || err.Error() != "the name is in use" {
		t.Errorf("Create: %v", err)
	}
	if has, err := c.HasImage(ctx, "none/x:1"); has || err != nil {
		t.Errorf("HasImage = %v, %v", has, err)
	}
	if err := c.Remove(ctx, "leaving"); err != nil {
		t.Errorf("Remove of one that is being removed: %v", err)
	}
	if _, err := c.Info(ctx); err == nil || !strings.Contains(err.Error(), "500") {
		t.Errorf("Info: %v", err)
	}
}

// TestLoadImage checks that an archive that the engine cannot use is an error
// though the answer's head says 200.
func TestLoadImage(t *testing.T) {
	for name, tt := range map[string]struct{ said, want string }{
		"loaded": {`{"stream":"Loaded image: x:1\n"}` + "\n", ""},
		"broken": {`{"errorDetail":{"message":"no tar"},"error":"no tar"}` + "\n", "no tar"},
	} {
		t.Run(name, func(t *testing.T) {
			c := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if text, _ := io.ReadAll(r.Body); string(text) != "archive" {
					t.Errorf("sent %q", text)
				}
				io.WriteString(w, tt.said)
			})
			err := c.LoadImage(context.Background(), strings.NewReader("archive"))
			if err == nil && tt.want != "" || err != nil && err.Error() != tt.want {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestNoEngine(t *testing.T) {
	_, err := New(filepath.Join(t.TempDir(), "none")).Info(context.Background())
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestFind(t *testing.T) {
	home := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(home, ".docker", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	check := func(name string, env []string, socket, remote string) {
		t.Helper()
		if s, r := Find(append(env, "HOME="+home)); s != socket || r != remote {
			t.Errorf("%s: got %q, %q, want %q, %q", name, s, r, socket, remote)
		}
	}
	check("nothing said", nil, defaultSocket, "")
	check("variable", []string{"DOCKER_HOST=unix:///run/user/1000/docker.sock"}, "/run/user/1000/docker.sock", "")
	check("another machine", []string{"DOCKER_HOST=ssh://build.example.org"}, "", "ssh://build.example.org")
	write("config.json", `{"currentContext":"mine"}`)
	check("context that is gone", nil, defaultSocket, "")
	// The directory's name is the SHA-256 of the context's.
	write("contexts/meta/3fd30542fe3f61b14bd4a4b2dc0b6fb30fa6f63ebce52dd1778aaa8c4dc02cff/meta.json", `{"Name":"mine","Endpoints":{"docker":{"Host":"unix:///run/mine.sock"}}}`)
	check("context", nil, "/run/mine.sock", "")
	check("context by name", []string{"DOCKER_CONTEXT=default"}, defaultSocket, "")
	write("config.json", `broken`)
	check("broken configuration", nil, defaultSocket, "")
}
