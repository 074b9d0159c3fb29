package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/borrownet/borrownet/cmd/internal/engine"
	"github.com/borrownet/borrownet/cmd/internal/engine/enginetest"
	"github.com/borrownet/borrownet/cmd/internal/fault"
)

// fakeEngine has one container at most, whose name is taken once it is there.
type fakeEngine struct {
	labels   map[string]string // of the container, nil = there is none
	rootless bool
	podman   bool
	startErr string
	created  engine.Spec
	removed  int
}

func (f *fakeEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fail := func(status int, text string) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"message":%q}`, text)
	}
	switch {
	case r.URL.Path == "/info":
		info := engine.Info{}
		if f.rootless {
			info.SecurityOptions = []string{"name=rootless"}
		}
		if f.podman {
			info.BuildahVersion = "1.28.2"
		}
		json.NewEncoder(w).Encode(info)
	case r.URL.Path == "/containers/create" && f.labels != nil:
		fail(http.StatusConflict, "the name is in use")
	case r.URL.Path == "/containers/create":
		json.NewDecoder(r.Body).Decode(&f.created)
		f.labels = f.created.Labels
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"Id":"new"}`)
	case strings.HasSuffix(r.URL.Path, "/start") && f.startErr != "":
		fail(http.StatusInternalServerError, f.startErr)
	case strings.HasSuffix(r.URL.Path, "/start"):
		w.WriteHeader(http.StatusNoContent)
	case f.labels == nil:
		fail(http.StatusNotFound, "no such container")
	case r.Method == http.MethodDelete:
		f.labels = nil
		f.removed++
		w.WriteHeader(http.StatusNoContent)
	default:
		d := engine.Details{ID: "old"}
		d.Config.Labels = f.labels
		json.NewEncoder(w).Encode(d)
	}
}

func (f *fakeEngine) client(t *testing.T) *engine.Client {
	t.Helper()
	return engine.New(enginetest.Serve(t, f))
}

var spec = Spec{
	Name: "borrownet-api", Image: "x:1", Session: "api", Owner: "/run/user/1/borrownet", Socket: "/run/user/1/borrownet/docker-1.sock",
	Resolver: netip.MustParseAddr("192.0.0.4"), Publish: map[uint16]uint16{8080: 18080},
}

func TestStart(t *testing.T) {
	mine := map[string]string{SessionLabel: "api", OwnerLabel: spec.Owner}
	for _, tt := range []struct {
		name   string
		engine fakeEngine
		want   string // in the error, "" if there is none
		hint   string
	}{
		{"fresh", fakeEngine{}, "", ""},
		{"left_by_a_daemon_that_was_killed", fakeEngine{labels: mine}, "", ""},
		{"somebody_elses", fakeEngine{labels: map[string]string{}}, "there is a container of that name", "--docker=OTHER"},
		{"another_users", fakeEngine{labels: map[string]string{SessionLabel: "api", OwnerLabel: "/run/user/2/borrownet"}}, "there is a container of that name", "docker rm -f borrownet-api"},
		{"port_taken", fakeEngine{startErr: "Bind for 127.0.0.1:18080 failed: port is already allocated"}, "a port that is to be published is taken", "--publish HOST:PORT"},
		{"no_device", fakeEngine{startErr: `error gathering device information while adding custom device "/dev/net/tun": no such file`}, "/dev/net/tun", "modprobe tun"},
		{"rootless", fakeEngine{startErr: "it does not work", rootless: true}, "it does not work", "this engine is rootless"},
		{"podman", fakeEngine{startErr: "it does not work", podman: true}, "it does not work", "this engine is podman"},
		{"other", fakeEngine{startErr: "it does not work"}, "it does not work", "journalctl -u docker"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := tt.engine.labels
			id, err := Start(context.Background(), tt.engine.client(t), spec)
			if tt.want == "" {
				if err != nil || id != "new" {
					t.Fatalf("Start = %q, %v", id, err)
				}
				if got := tt.engine.created.HostConfig; !got.AutoRemove || strings.Join(got.CapDrop, "") != "ALL" || got.Mounts[0].Source != spec.Socket || got.PortBindings["8080/tcp"][0].HostPort != "18080" {
					t.Errorf("made %+v", got)
				}
				return
			}
			f, ok := errors.AsType[*fault.Error](err)
			if !ok || f.Code != fault.Engine || !strings.Contains(err.Error(), tt.want) || !strings.Contains(f.Hint, tt.hint) {
				t.Errorf("got %v, hint %q; want %q, %q", err, f.Hint, tt.want, tt.hint)
			}
			if before != nil && tt.engine.removed > 0 {
				t.Error("somebody else's container was removed")
			}
			if before == nil && tt.engine.labels != nil {
				t.Error("a container that did not start stays")
			}
		})
	}
}

// TestFindOthers has no Docker but another engine, as a machine with podman has.
func TestFindOthers(t *testing.T) {
	dir := filepath.Dir(enginetest.Serve(t, &fakeEngine{}))
	env := []string{"DOCKER_HOST=unix:///nonexistent/docker.sock", "XDG_RUNTIME_DIR=" + dir}
	if _, err := Find(context.Background(), env); fault.From(err).Reason != "no engine listens there" || strings.Contains(fault.From(err).Hint, dir) {
		t.Errorf("alone: %v, hint %q", err, fault.From(err).Hint)
	}
	podman := filepath.Join(dir, "podman", "podman.sock")
	if err := os.Mkdir(filepath.Dir(podman), 0o700); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", podman)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, err := Find(context.Background(), env); !strings.Contains(fault.From(err).Hint, "DOCKER_HOST=unix://"+podman) {
		t.Errorf("beside podman: %v, hint %q", err, fault.From(err).Hint)
	}
}

func TestExplain(t *testing.T) {
	e := (&fakeEngine{}).client(t)
	for _, tt := range []struct {
		err  error
		want string
	}{
		{fs.ErrNotExist, "systemctl start docker"},
		{syscall.ECONNREFUSED, "systemctl start docker"},
		{syscall.EACCES, "usermod -aG docker"},
		{context.DeadlineExceeded, "docker info"},
	} {
		err := Explain("reach the container engine at", "/run/docker.sock", e, fmt.Errorf("dial: %w", tt.err))
		if f := fault.From(err); f.Code != fault.Engine || f.Reason == "" || !strings.Contains(f.Hint, tt.want) {
			t.Errorf("%v: %v, hint %q", tt.err, err, f.Hint)
		}
	}
	if err := Explain("reach", "x", e, context.Canceled); fault.From(err).Code != fault.Interrupted {
		t.Errorf("interrupted: %v", err)
	}
}
