package kube

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/borrownet/borrownet/agent/kube/api"
)

func meshPod(edit func(*api.Pod)) *api.Pod {
	always, uid, gid := api.ContainerRestartPolicyAlways, int64(1500), int64(1501)
	pod := &api.Pod{Spec: api.PodSpec{
		Containers: []api.Container{{Name: "app"}},
		InitContainers: []api.Container{{
			Name: "istio-proxy", RestartPolicy: &always, SecurityContext: &api.SecurityContext{RunAsUser: &uid, RunAsGroup: &gid},
		}},
	}}
	edit(pod)
	return pod
}

func TestMeshOf(t *testing.T) {
	m := meshOf(meshPod(func(*api.Pod) {}))
	if m.Proxy != "istio-proxy" || !m.Envoy || !slices.Contains(m.UIDs, 1500) || !slices.Contains(m.GIDs, 1501) || len(m.Excluded) != 0 {
		t.Errorf("native sidecar: %+v", m)
	}
	m = meshOf(&api.Pod{Spec: api.PodSpec{Containers: []api.Container{{Name: "linkerd-proxy"}, {Name: "app"}}}})
	if m.Proxy != "linkerd-proxy" || m.Envoy {
		t.Errorf("Linkerd: %+v", m)
	}
	plain := &api.Pod{Spec: api.PodSpec{Containers: []api.Container{{Name: "app"}}}}
	if m := meshOf(plain); m.Proxy != "" || m.Asked != "" {
		t.Errorf("in no mesh: %+v", m)
	}
	for label, value := range map[string]string{"sidecar.istio.io/inject": "true", "istio.io/rev": "canary"} {
		plain.Labels = map[string]string{label: value}
		if m := meshOf(plain); m.Asked != label+"="+value {
			t.Errorf("asks for a sidecar: %+v", m)
		}
	}
	plain.Labels = map[string]string{"sidecar.istio.io/inject": "false"}
	if m := meshOf(plain); m.Asked != "" {
		t.Errorf("asks for none: %+v", m)
	}
}

func TestMeshExcludes(t *testing.T) {
	annotated := func(key, value string) func(*api.Pod) {
		return func(p *api.Pod) { p.Annotations = map[string]string{key: value} }
	}
	initialised := func(args ...string) func(*api.Pod) {
		return func(p *api.Pod) {
			p.Spec.InitContainers = append(p.Spec.InitContainers, api.Container{Name: "istio-init", Args: args})
		}
	}
	// What istio-init gets where nothing is excluded.
	usual := []string{"istio-iptables", "-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*", "-d", "15090,15021,15020", "--log_output_level=default:info"}
	for _, tt := range []struct {
		name string
		edit func(*api.Pod)
		to   string
		want string
	}{
		{"nothing", func(*api.Pod) {}, "10.96.0.10:53", ""},
		{"port", annotated(istioAnnotations+"excludeOutboundPorts", "3306, 53"), "10.96.0.10:53", `annotation traffic.sidecar.istio.io/excludeOutboundPorts: "3306, 53"`},
		{"range_of_ports", annotated("config.linkerd.io/skip-outbound-ports", "25,50-60"), "10.96.0.10:53", `annotation config.linkerd.io/skip-outbound-ports: "25,50-60"`},
		{"other_port", annotated(istioAnnotations+"excludeOutboundPorts", "3306"), "10.96.0.10:53", ""},
		{"network", annotated(istioAnnotations+"excludeOutboundIPRanges", "192.0.2.0/24,10.96.0.0/16"), "10.96.0.10:53", `annotation traffic.sidecar.istio.io/excludeOutboundIPRanges: "192.0.2.0/24,10.96.0.0/16"`},
		{"network_ipv6", annotated(istioAnnotations+"excludeOutboundIPRanges", "2001:db8::/32"), "[2001:db8::a]:53", `annotation traffic.sidecar.istio.io/excludeOutboundIPRanges: "2001:db8::/32"`},
		{"other_network", annotated(istioAnnotations+"excludeOutboundIPRanges", "192.0.2.0/24"), "10.96.0.10:53", ""},
		{"not_included", annotated(istioAnnotations+"includeOutboundIPRanges", "192.0.2.0/24"), "10.96.0.10:53", `annotation traffic.sidecar.istio.io/includeOutboundIPRanges: "192.0.2.0/24"`},
		{"included", annotated(istioAnnotations+"includeOutboundIPRanges", "10.96.0.0/12"), "10.96.0.10:53", ""},
		{"all_included", annotated(istioAnnotations+"includeOutboundIPRanges", "*"), "10.96.0.10:53", ""},
		{"rubbish", annotated(istioAnnotations+"excludeOutboundPorts", "http"), "10.96.0.10:53", ""},
		{"istio-init", initialised(usual...), "10.96.0.10:53", ""},
		{"istio-init_ports", initialised(append(slices.Clone(usual), "-o", "53")...), "10.96.0.10:53", "istio-init's -o 53"},
		{"istio-init_networks", initialised("-i", "*", "-x", "10.96.0.0/16"), "10.96.0.10:53", "istio-init's -x 10.96.0.0/16"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := meshOf(meshPod(tt.edit)).Excludes(netip.MustParseAddrPort(tt.to)); got != tt.want {
				t.Errorf("%s is excluded by %q, want %q", tt.to, got, tt.want)
			}
		})
	}
}

// TestMeshServes: whether the proxy stands before a port of the pod.
func TestMeshServes(t *testing.T) {
	annotated := func(key, value string) func(*api.Pod) {
		return func(p *api.Pod) { p.Annotations = map[string]string{key: value} }
	}
	initArgs := func(args ...string) func(*api.Pod) {
		return func(p *api.Pod) {
			p.Spec.InitContainers = append(p.Spec.InitContainers, api.Container{Name: "istio-init", Args: args})
		}
	}
	for _, tt := range []struct {
		name string
		edit func(*api.Pod)
		want bool // of port 8080
	}{
		{"sidecar", func(*api.Pod) {}, true},
		{"no_sidecar", func(p *api.Pod) { p.Spec.InitContainers = nil }, false},
		{"excluded", annotated("traffic.sidecar.istio.io/excludeInboundPorts", "22,8080"), false},
		{"other_excluded", annotated("traffic.sidecar.istio.io/excludeInboundPorts", "22"), true},
		{"included", annotated("traffic.sidecar.istio.io/includeInboundPorts", "8080"), true},
		{"others_included", annotated("traffic.sidecar.istio.io/includeInboundPorts", "9090"), false},
		{"all_included", annotated("traffic.sidecar.istio.io/includeInboundPorts", "*"), true},
		{"linkerd", annotated("config.linkerd.io/skip-inbound-ports", "8000-8100"), false},
		{"init", initArgs("istio-iptables", "-b", "*", "-d", "15090,15021,15020"), true},
		{"init_excludes", initArgs("istio-iptables", "-b", "*", "-d", "15090,8080"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := meshOf(meshPod(tt.edit)).Serves(8080); got != tt.want {
				t.Errorf("Serves(8080) = %v, want %v", got, tt.want)
			}
		})
	}
}
