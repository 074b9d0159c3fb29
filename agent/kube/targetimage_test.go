package kube

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/borrownet/borrownet/agent/kube/api"
	"github.com/borrownet/borrownet/netstack/leaktest"
)

// stubAgent is a program that says hello with its arguments and stays.
func stubAgent(t *testing.T) Binary {
	t.Helper()
	text := "#!/bin/sh\necho args: \"$@\"\necho '" + strings.TrimSpace(hello()) + "'\nexec /bin/sleep 60\n#" + strings.Repeat("x", 300<<10)
	path := filepath.Join(t.TempDir(), "borrownet-agent")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(text))
	return Binary{Arch: runtime.GOARCH, Path: path, Size: int64(len(text)), SHA256: hex.EncodeToString(sum[:])}
}

func targetSpec(t *testing.T) AgentSpec {
	s := spec()
	s.Image, s.Binaries = TargetImage, []Binary{stubAgent(t)}
	return s
}

// attaches counts how often something was attached to.
func (f *fakeAPI) attaches() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(slices.DeleteFunc(slices.Clone(f.calls), func(s string) bool { return s != "attach" }))
}

func TestTargetImage(t *testing.T) {
	leaktest.Check(t)
	f := newFakeAPI(t)
	p := f.addPod("api-1", nil)
	s := newShell(f)
	c, want := f.client(), targetSpec(t)
	first, err := attach(t, c, want)
	if err != nil {
		t.Fatal(err)
	}
	if first.Reused || first.Hello.Port != 40000 {
		t.Errorf("got %+v", first)
	}
	ec := &p.Spec.EphemeralContainers[0]
	if ec.Image != "registry.example.org/app:1" || *ec.SecurityContext.ReadOnlyRootFilesystem || !ec.StdinOnce {
		t.Errorf("image %s, %+v", ec.Image, ec.SecurityContext)
	}
	f.mu.Lock()
	out, _, _ := s.ran[first.Container].from(0)
	f.mu.Unlock()
	if want := "args: --client-key " + clientKey + " --idle-ttl 15m0s --hard-ttl 8h0m0s\n"; !strings.Contains(string(out), want) {
		t.Errorf("the agent has other arguments than %q:\n%s", want, out)
	}
	second, err := attach(t, c, want)
	if err != nil {
		t.Fatal(err)
	}
	if !second.Reused || f.attaches() != 1 || f.mutations() != 1 {
		t.Errorf("%+v, %d attaches, %d changes, want the same agent", second, f.attaches(), f.mutations())
	}
}

// Where a proxy lets no SPDY pass the agent goes through a WebSocket.
func TestTargetImageOverWebSocket(t *testing.T) {
	f := newFakeAPI(t)
	f.addPod("api-1", nil)
	newShell(f).noSPDY = true
	if _, err := attach(t, f.client(), targetSpec(t)); err != nil {
		t.Fatal(err)
	}
	if n := f.attaches(); n != 2 {
		t.Errorf("%d attaches, want one over SPDY and one over WebSocket", n)
	}
}

// An agent that was added by a client that came no further gets its program.
func TestTargetImageGoesOn(t *testing.T) {
	f := newFakeAPI(t)
	f.addPod("api-1", nil)
	s := newShell(f)
	c, want := f.client(), targetSpec(t)
	ctx, cancel := context.WithCancel(context.Background())
	_, err := c.Attach(ctx, target(), want, func(step string) {
		if strings.HasPrefix(step, "adding") {
			s.refuse = func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() }
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	s.refuse = nil
	agent, err := attach(t, c, want)
	if err != nil || !agent.Reused || f.mutations() != 1 {
		t.Errorf("%+v, %v, %d changes", agent, err, f.mutations())
	}
}

func TestTargetImageFails(t *testing.T) {
	const image = `image "registry.example.org/app:1" of container app`
	without := func(name string, instead ...string) func(*shell, *AgentSpec) {
		return func(s *shell, _ *AgentSpec) {
			s.tools = toolbox(s.f.t, append(slices.DeleteFunc(slices.Clone(everything), func(n string) bool { return n == name }), instead...)...)
		}
	}
	for _, tt := range []struct {
		name       string
		setUp      func(*shell, *AgentSpec)
		want, hint string
		mutations  int
	}{
		{"no-head", without("head"), image + ` has no program "head"`, "--agent-image REF", 1},
		{"no-checker", without("sha256sum"), image + " has nothing that checks the agent", "--agent-image REF", 1},
		{"no-directory", func(s *shell, _ *AgentSpec) {
			s.scratch = "/proc"
			s.tools = t.TempDir() // with a mkdir that finds nothing writable
			for _, name := range everything {
				text := "#!/bin/sh\nexit 1\n"
				if name != "mkdir" {
					text = "#!/bin/sh\nPATH=/usr/bin:/bin; exec " + name + " \"$@\"\n"
				}
				if err := os.WriteFile(filepath.Join(s.tools, name), []byte(text), 0o700); err != nil {
					t.Fatal(err)
				}
			}
		}, image + " has no directory that the agent's user may write to", "--agent-image REF", 1},
		{"no-shell-terminated", func(s *shell, _ *AgentSpec) {
			s.f.kubelet = func(p *api.Pod, name string) {
				s.f.setState(p, name, terminated(128, "StartError", `failed to create containerd task: exec: "/bin/sh": stat /bin/sh: no such file or directory: unknown`))
			}
		}, image + " has no shell", "--agent-image REF", 1},
		{"no-shell-waiting", func(s *shell, _ *AgentSpec) {
			s.f.kubelet = func(p *api.Pod, name string) {
				s.f.setState(p, name, waiting("CreateContainerError", "container create failed: executable file `/bin/sh` not found: No such file or directory"))
			}
		}, image + " has no shell", "--agent-image REF", 1},
		{"other-architecture", func(_ *shell, a *AgentSpec) { a.Binaries[0].Arch = "s390x" },
			"the node is of architecture " + runtime.GOARCH + ", and the client has the agent for s390x only", "make agent-binaries", 1},
		{"other-program", func(_ *shell, a *AgentSpec) {
			text, err := os.ReadFile(a.Binaries[0].Path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(a.Binaries[0].Path, append([]byte("#!/bin/sh\necho evil\n"), text[20:]...), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "is not the agent", "try again", 1},
		{"cut", func(s *shell, _ *AgentSpec) { s.cut = 100 << 10 }, "is not the agent", "try again", 1},
		{"file-gone", func(_ *shell, a *AgentSpec) { a.Binaries[0].Path += ".gone" }, "no such file", "", 1},
		{"attach-refused", func(s *shell, _ *AgentSpec) {
			s.f.ssarOff = true
			s.refuse = func(w http.ResponseWriter, r *http.Request) {
				s.f.reply(w, status(403, metav1.StatusReasonForbidden, `pods "api-1" is forbidden: User "jane" cannot create resource "pods/attach" in API group "" in the namespace "shop"`))
			}
		}, "user jane may not create pods/attach in namespace shop", "--target-image", 1},
		{"no-right", func(s *shell, _ *AgentSpec) { s.f.deny["create pods/attach"] = true },
			"you may not create pods/attach", "--target-image --subject user:jane | kubectl", 0},
		{"attach-vetoed", func(s *shell, _ *AgentSpec) {
			s.refuse = func(w http.ResponseWriter, r *http.Request) {
				s.f.reply(w, status(400, "", `admission webhook "no-attach.example.org" denied the request: no attach`))
			}
		}, `webhook "no-attach.example.org" refuses it`, "", 1},
		{"nothing-to-send", func(_ *shell, a *AgentSpec) { a.Binaries = nil }, "no binary", "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeAPI(t)
			p := f.addPod("api-1", nil)
			s, want := newShell(f), targetSpec(t)
			tt.setUp(s, &want)
			_, err := attach(t, f.client(), want)
			wantError(t, err, tt.want, tt.hint)
			if got := f.mutations(); got != tt.mutations {
				t.Errorf("%d changes to the pod, want %d", got, tt.mutations)
			}
			if strings.HasPrefix(tt.name, "attach-") || tt.name == "file-gone" {
				return // the container's own limit ends it
			}
			deadline := time.Now().Add(time.Minute)
			for left := true; left; runtime.Gosched() {
				f.mu.Lock()
				left = slices.ContainsFunc(p.Status.EphemeralContainerStatuses, func(s api.ContainerStatus) bool { return s.State.Running != nil })
				f.mu.Unlock()
				if left && time.Now().After(deadline) {
					t.Fatal("the container still runs")
				}
			}
		})
	}
}
