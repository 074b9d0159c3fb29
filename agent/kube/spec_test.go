package kube

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/agent/kube/api"
)

var update = flag.Bool("update", false, "write golden files")

const clientKey = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="

func spec() AgentSpec {
	return AgentSpec{Image: "registry.example.org/borrownet-agent:1", ClientKey: clientKey, PullTimeout: 5 * time.Second}
}

// binaries are agents for two architectures.
func binaries() []Binary {
	return []Binary{
		{Arch: "arm64", Path: "/bin/borrownet-agent-linux-arm64", Size: 9100000, SHA256: strings.Repeat("ab", 32)},
		{Arch: "amd64", Path: "/bin/borrownet-agent", Size: 9800000, SHA256: strings.Repeat("01", 32)},
	}
}

func id(n int64) *int64 { return &n }

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got), go test -update writes it:\n%s", path, diff)
	}
}

func TestContainerGolden(t *testing.T) {
	rich := &api.Container{
		Name:         "app",
		Env:          []api.EnvVar{{Name: "MODE", Value: "live"}, {Name: "BORROWNET_SPEC", Value: "stale"}},
		EnvFrom:      []api.EnvFromSource{{SecretRef: &api.EnvSource{LocalObjectReference: api.LocalObjectReference{Name: "db"}}}},
		VolumeMounts: []api.VolumeMount{{Name: "data", MountPath: "/data"}},
	}
	rich.Env = append(rich.Env, api.EnvVar{Name: "CPUS", ValueFrom: &api.EnvVarSource{
		ResourceFieldRef: &api.ResourceFieldSelector{Resource: "limits.cpu"}}})
	for _, tt := range []struct {
		name string
		from *api.Container
		id   identity
		edit func(*AgentSpec)
	}{
		{"plain", &api.Container{Name: "app"}, identity{uid: id(10001), gid: id(10001)}, func(*AgentSpec) {}},
		{"rich", rich, identity{uid: id(10001)}, func(*AgentSpec) {}},
		{"localhost", &api.Container{Name: "app"}, identity{uid: id(10001), gid: id(10001)}, func(s *AgentSpec) { s.Localhost = []uint16{15000, 9901, 15000} }},
		{"metadata", &api.Container{Name: "app"}, identity{uid: id(10001), gid: id(10001)}, func(s *AgentSpec) {
			s.Metadata = []netip.Addr{eksAgent6, eksAgent4, eksAgent4}
		}},
		{"direct", &api.Container{Name: "app"}, identity{uid: id(10001), gid: id(10001)}, func(s *AgentSpec) { s.Direct = true }},
		{"mirror", &api.Container{Name: "app"}, identity{}, func(s *AgentSpec) {
			s.NetRaw, s.IdleTTL, s.HardTTL = true, 5*time.Second, time.Hour
		}},
		{"target", &api.Container{Name: "app", Image: "registry.example.org/app:1"}, identity{uid: id(10001)}, func(s *AgentSpec) {
			s.Image, s.Binaries = TargetImage, binaries()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := spec()
			tt.edit(&s)
			s, err := s.complete()
			if err != nil {
				t.Fatal(err)
			}
			ec := newContainer(tt.from, s, tt.id)
			ec.Name = agentPrefix + "1"
			golden(t, "container-"+tt.name+".yaml", toYAML(t, ec))
		})
	}
}

func TestChooseIdentity(t *testing.T) {
	proxy := func(name string, uid, gid *int64) api.Container {
		return api.Container{Name: name, SecurityContext: &api.SecurityContext{RunAsUser: uid, RunAsGroup: gid}}
	}
	type ids struct{ UID, GID int64 } // -1 = not set
	for _, tt := range []struct {
		name      string
		pod       *api.PodSecurityContext
		container *api.SecurityContext
		proxies   []api.Container
		assigned  bool
		want      ids
		note      string
	}{
		{name: "unknown", want: ids{65532, 65532}},
		{name: "unknown-openshift", assigned: true, want: ids{-1, -1}},
		{name: "container", container: &api.SecurityContext{RunAsUser: id(10), RunAsGroup: id(20)}, want: ids{10, 20}},
		{name: "pod", pod: &api.PodSecurityContext{RunAsUser: id(10), RunAsGroup: id(20)}, want: ids{10, 20}},
		{name: "container-over-pod", pod: &api.PodSecurityContext{RunAsUser: id(10), RunAsGroup: id(20)},
			container: &api.SecurityContext{RunAsUser: id(11)}, want: ids{11, 20}},
		{name: "no-gid", container: &api.SecurityContext{RunAsUser: id(10)}, want: ids{10, -1}},
		{name: "openshift-assigned", container: &api.SecurityContext{RunAsUser: id(1000650000)}, assigned: true, want: ids{1000650000, -1}},
		{name: "root", container: &api.SecurityContext{RunAsUser: id(0)}, want: ids{65532, 65532}, note: "root"},
		{name: "root-openshift", container: &api.SecurityContext{RunAsUser: id(0)}, assigned: true, want: ids{-1, -1}, note: "root"},
		{name: "istio-default", container: &api.SecurityContext{RunAsUser: id(1337)}, want: ids{65532, 65532}, note: "runs as 65532"},
		{name: "linkerd-default", container: &api.SecurityContext{RunAsUser: id(2102)}, want: ids{65532, 65532}, note: "runs as 65532"},
		{name: "proxy-gid", container: &api.SecurityContext{RunAsUser: id(10), RunAsGroup: id(1337)}, want: ids{65532, 65532}, note: "gid"},
		{name: "proxy-own-uid", container: &api.SecurityContext{RunAsUser: id(500)},
			proxies: []api.Container{proxy("istio-proxy", id(500), id(501))}, want: ids{65532, 65532}, note: "mesh proxy"},
		{name: "proxy-has-default", proxies: []api.Container{proxy("linkerd-proxy", id(65532), id(65531))}, want: ids{65530, 65530}},
		{name: "proxy-from-pod-context", pod: &api.PodSecurityContext{RunAsUser: id(10)},
			proxies: []api.Container{{Name: "istio-proxy"}}, want: ids{65532, 65532}, note: "mesh proxy"},
		{name: "other-sidecar", container: &api.SecurityContext{RunAsUser: id(500)},
			proxies: []api.Container{proxy("helper", id(500), nil)}, want: ids{500, -1}},
	} {
		for _, native := range []bool{false, true} {
			name := tt.name
			pod := &api.Pod{Spec: api.PodSpec{SecurityContext: tt.pod, Containers: []api.Container{{Name: "app", SecurityContext: tt.container}}}}
			if native {
				name += "-native"
				pod.Spec.InitContainers = tt.proxies
			} else {
				pod.Spec.Containers = append(pod.Spec.Containers, tt.proxies...)
			}
			t.Run(name, func(t *testing.T) {
				got := chooseIdentity(pod, &pod.Spec.Containers[0], tt.assigned)
				plain := ids{-1, -1}
				if got.uid != nil {
					plain.UID = *got.uid
				}
				if got.gid != nil {
					plain.GID = *got.gid
				}
				if plain != tt.want {
					t.Errorf("got %+v, want %+v", plain, tt.want)
				}
				if !strings.Contains(got.note, tt.note) || tt.note == "" && got.note != "" {
					t.Errorf("note %q, want one with %q", got.note, tt.note)
				}
			})
		}
	}
}

// TestChooseIdentityInMeshes: pod specs as the meshes' injectors leave them.
func TestChooseIdentityInMeshes(t *testing.T) {
	always := api.ContainerRestartPolicyAlways
	container := func(name string, uid, gid *int64) api.Container {
		return api.Container{Name: name, SecurityContext: &api.SecurityContext{RunAsUser: uid, RunAsGroup: gid}}
	}
	sidecar := func(name string, uid, gid *int64) api.Container {
		c := container(name, uid, gid)
		c.RestartPolicy = &always
		return c
	}
	istioInit := container("istio-init", id(0), id(0))
	for _, tt := range []struct {
		name        string
		init, proxy []api.Container // proxy stands beside the app
		app         api.Container
		uid, gid    int64 // -1 = not set
		bypass      bool  // the note says so
	}{
		{name: "istio-classic", init: []api.Container{istioInit}, proxy: []api.Container{container("istio-proxy", id(1337), id(1337))},
			app: container("app", id(1000), id(1000)), uid: 1000, gid: 1000},
		{name: "istio-classic-app-as-proxy", init: []api.Container{istioInit}, proxy: []api.Container{container("istio-proxy", id(1337), id(1337))},
			app: container("app", id(1337), id(1337)), uid: 65532, gid: 65532, bypass: true},
		{name: "istio-native", init: []api.Container{istioInit, sidecar("istio-proxy", id(1337), id(1337))},
			app: container("app", id(1000), nil), uid: 1000, gid: -1},
		{name: "istio-native-openshift", init: []api.Container{sidecar("istio-proxy", id(1000650001), id(1000650001))},
			app: container("app", id(1000650001), nil), uid: 65532, gid: 65532, bypass: true},
		{name: "istio-native-gid-alone", init: []api.Container{sidecar("istio-proxy", id(1000650001), id(1000650002))},
			app: container("app", id(1000), id(1000650002)), uid: 65532, gid: 65532, bypass: true},
		{name: "istio-tproxy", init: []api.Container{istioInit}, proxy: []api.Container{container("istio-proxy", id(0), id(1337))},
			app: container("app", id(1000), id(1000)), uid: 1000, gid: 1000},
		{name: "istio-tproxy-gid-alone", init: []api.Container{istioInit}, proxy: []api.Container{container("istio-proxy", id(0), id(1337))},
			app: container("app", id(1000), id(1337)), uid: 65532, gid: 65532, bypass: true},
		{name: "proxy-in-group-0", proxy: []api.Container{container("istio-proxy", id(500), id(0))},
			app: container("app", id(1000), nil), uid: 65532, gid: 65532, bypass: true},
		{name: "linkerd-classic", init: []api.Container{container("linkerd-init", id(65534), nil)}, proxy: []api.Container{container("linkerd-proxy", id(2102), id(2102))},
			app: container("app", id(1000), id(1000)), uid: 1000, gid: 1000},
		{name: "linkerd-native-app-as-proxy", init: []api.Container{container("linkerd-init", id(65534), nil), sidecar("linkerd-proxy", id(2102), nil)},
			app: container("app", id(2102), nil), uid: 65532, gid: 65532, bypass: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pod := &api.Pod{Spec: api.PodSpec{InitContainers: tt.init, Containers: append([]api.Container{tt.app}, tt.proxy...)}}
			got := chooseIdentity(pod, &pod.Spec.Containers[0], false)
			plain := func(p *int64) int64 {
				if p == nil {
					return -1
				}
				return *p
			}
			if plain(got.uid) != tt.uid || plain(got.gid) != tt.gid {
				t.Errorf("uid %d gid %d, want %d %d", plain(got.uid), plain(got.gid), tt.uid, tt.gid)
			}
			if strings.Contains(got.note, "bypass") != tt.bypass {
				t.Errorf("note %q", got.note)
			}
		})
	}
}

func TestServes(t *testing.T) {
	base := func(edit func(from *api.Container, s *AgentSpec, i *identity)) *api.EphemeralContainer {
		from, s, i := &api.Container{Name: "app", Env: []api.EnvVar{{Name: "A", Value: "1"}}}, spec(), identity{uid: id(10)}
		if edit != nil {
			edit(from, &s, &i)
		}
		s, err := s.complete()
		if err != nil {
			t.Fatal(err)
		}
		ec := newContainer(from, s, i)
		ec.Name = agentPrefix + "1"
		return ec
	}
	type edit = func(*api.Container, *AgentSpec, *identity)
	netRawToo := edit(func(_ *api.Container, s *AgentSpec, _ *identity) { s.NetRaw = true })
	for _, tt := range []struct {
		name       string
		have, want edit
		ok         bool
	}{
		{"same", nil, nil, true},
		{"more-power", netRawToo, nil, true},
		{"less-power", nil, netRawToo, false},
		{"image", nil, func(_ *api.Container, s *AgentSpec, _ *identity) { s.Image += "2" }, false},
		{"program", func(_ *api.Container, s *AgentSpec, _ *identity) { s.Image, s.Binaries = TargetImage, binaries() },
			func(_ *api.Container, s *AgentSpec, _ *identity) {
				s.Image, s.Binaries = TargetImage, binaries()[:1]
			}, false},
		{"client", nil, func(_ *api.Container, s *AgentSpec, _ *identity) { s.ClientKey = "AA" + s.ClientKey[2:] }, false},
		{"ttl", nil, func(_ *api.Container, s *AgentSpec, _ *identity) { s.IdleTTL = time.Minute }, false},
		{"container", nil, func(c *api.Container, _ *AgentSpec, _ *identity) { c.Name = "other" }, false},
		{"env", nil, func(c *api.Container, _ *AgentSpec, _ *identity) { c.Env = nil }, false},
		{"uid", nil, func(_ *api.Container, _ *AgentSpec, i *identity) { i.uid = id(11) }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := serves(base(tt.have), base(tt.want)); got != tt.ok {
				t.Errorf("serves = %v, want %v", got, tt.ok)
			}
		})
	}
	t.Run("rewritten-by-admission", func(t *testing.T) {
		have := base(nil)
		have.Image = "mirror.example.org/borrownet-agent:1"
		have.Env = append(have.Env, api.EnvVar{Name: "INJECTED", Value: "x"})
		if !serves(have, base(nil)) {
			t.Error("an agent that admission rewrote is not taken again")
		}
	})
	t.Run("not-ours", func(t *testing.T) {
		have := base(nil)
		have.Name = "debugger-x"
		if serves(have, base(nil)) {
			t.Error("a stranger's container is taken for an agent")
		}
	})
}

func TestSpecComplete(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*AgentSpec)
		want string
	}{
		{"no-image", func(s *AgentSpec) { s.Image = "" }, "no agent image"},
		{"digest", func(s *AgentSpec) { s.Image, s.Binaries = TargetImage, []Binary{{Arch: "amd64", Size: 1, SHA256: "x"}} }, "SHA-256"},
		{"spaces", func(s *AgentSpec) { s.Image += " " }, "spaces"},
		{"key", func(s *AgentSpec) { s.ClientKey = "x" }, "public key"},
		{"ttl", func(s *AgentSpec) { s.IdleTTL = time.Millisecond }, "shorter"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := spec()
			tt.edit(&s)
			_, err := s.complete()
			wantError(t, err, tt.want, "")
		})
	}
}
