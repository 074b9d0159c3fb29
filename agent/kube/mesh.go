package kube

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/borrownet/borrownet/agent/kube/api"
)

// Mesh is what a pod's spec says about its service mesh.
type Mesh struct {
	Proxy string  `json:"proxy,omitempty"` // name of the sidecar's container; "" = it has none
	Envoy bool    `json:"envoy,omitempty"` // the sidecar is an Envoy of Istio
	UIDs  []int64 `json:"uids,omitempty"`  // what the rules exempt: the proxy's own connections
	GIDs  []int64 `json:"gids,omitempty"`
	// Asked is the label or annotation that asks for a sidecar, which the pod may
	// not have got.
	Asked string `json:"asked,omitempty"`
	// Excluded are the settings that take connections out of the mesh, Inbound those
	// that take ports of the pod itself out.
	Excluded []Exclusion `json:"excluded,omitempty"`
	Inbound  []Exclusion `json:"inbound,omitempty"`
}

// Serves reports whether the pod's proxy stands before a port of the pod, as far
// as the spec tells.
func (m Mesh) Serves(port uint16) bool {
	return m.Proxy != "" && !slices.ContainsFunc(m.Inbound, func(e Exclusion) bool { return e.hasPort(port) != e.Except })
}

func (e Exclusion) hasPort(port uint16) bool {
	return slices.ContainsFunc(e.Ports, func(r [2]uint16) bool { return r[0] <= port && port <= r[1] })
}

// Exclusion is one setting of a pod that takes connections out of its mesh.
type Exclusion struct {
	Setting string         `json:"setting"` // as it is written in the pod, key and value
	Except  bool           `json:"except"`  // it names what stays in
	Ports   [][2]uint16    `json:"ports,omitempty"`
	CIDRs   []netip.Prefix `json:"cidrs,omitempty"`
}

// Excludes returns the setting that takes a connection to dst out of the mesh,
// or "".
func (m Mesh) Excludes(dst netip.AddrPort) string {
	for _, e := range m.Excluded {
		port := e.hasPort(dst.Port())
		cidr := slices.ContainsFunc(e.CIDRs, func(p netip.Prefix) bool { return p.Contains(dst.Addr()) })
		if (port || cidr) != e.Except {
			return e.Setting
		}
	}
	return ""
}

const istioAnnotations = "traffic.sidecar.istio.io/"

// asking are the labels and annotations with which a pod asks for a sidecar.
var asking = []struct{ key, value string }{
	{"sidecar.istio.io/inject", "true"},
	{"istio.io/rev", ""}, // any revision
	{"linkerd.io/inject", "enabled"},
}

// meshOf reads pod's mesh.
func meshOf(pod *api.Pod) Mesh {
	var m Mesh
	for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
		if slices.Contains(proxyContainers(), c.Name) {
			m.Proxy = c.Name
			m.Envoy = c.Name == istioProxy
		}
	}
	if m.Proxy == "" {
		m.Asked = askedFor(pod)
		return m
	}
	m.UIDs, m.GIDs = proxyIDs(pod)
	m.Excluded = exclusions(pod)
	m.Inbound = inboundExclusions(pod)
	return m
}

// askedFor returns the label or annotation of pod that asks for a sidecar.
func askedFor(pod *api.Pod) string {
	for _, a := range asking {
		for _, set := range []map[string]string{pod.Labels, pod.Annotations} {
			if v, ok := set[a.key]; ok && (a.value == "" || v == a.value) {
				return a.key + "=" + v
			}
		}
	}
	return ""
}

// exclusions reads the annotations of pod and the arguments of the container
// that writes the rules: those have the settings of the whole mesh as well.
func exclusions(pod *api.Pod) []Exclusion {
	var out []Exclusion
	add := func(setting, value string, except bool, parse func(string) (Exclusion, bool)) {
		e, ok := parse(value)
		if !ok || except && (value == "*" || value == "") {
			return
		}
		e.Setting, e.Except = setting, except
		out = append(out, e)
	}
	for _, s := range []struct {
		name   string
		except bool
		parse  func(string) (Exclusion, bool)
	}{
		{"excludeOutboundPorts", false, parsePorts},
		{"excludeOutboundIPRanges", false, parseCIDRs},
		{"includeOutboundIPRanges", true, parseCIDRs},
	} {
		if v, ok := pod.Annotations[istioAnnotations+s.name]; ok {
			add(fmt.Sprintf("annotation %s%s: %q", istioAnnotations, s.name, v), v, s.except, s.parse)
		}
	}
	if v, ok := pod.Annotations["config.linkerd.io/skip-outbound-ports"]; ok {
		add(fmt.Sprintf("annotation config.linkerd.io/skip-outbound-ports: %q", v), v, false, parsePorts)
	}
	for _, c := range pod.Spec.InitContainers {
		if c.Name != "istio-init" {
			continue
		}
		for flag, value := range initFlags(c.Args) {
			switch flag {
			case "-o":
				add("istio-init's -o "+value, value, false, parsePorts)
			case "-x":
				add("istio-init's -x "+value, value, false, parseCIDRs)
			case "-i":
				add("istio-init's -i "+value, value, true, parseCIDRs)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Exclusion) int { return cmp.Compare(a.Setting, b.Setting) })
	return out
}

// inboundExclusions reads what takes ports of pod out of the mesh.
func inboundExclusions(pod *api.Pod) []Exclusion {
	var out []Exclusion
	add := func(setting, value string, except bool) {
		if e, ok := parsePorts(value); ok && !(except && value == "*") {
			e.Setting, e.Except = setting, except
			out = append(out, e)
		}
	}
	for name, except := range map[string]bool{"excludeInboundPorts": false, "includeInboundPorts": true} {
		if v, ok := pod.Annotations[istioAnnotations+name]; ok {
			add(fmt.Sprintf("annotation %s%s: %q", istioAnnotations, name, v), v, except)
		}
	}
	if v, ok := pod.Annotations["config.linkerd.io/skip-inbound-ports"]; ok {
		add(fmt.Sprintf("annotation config.linkerd.io/skip-inbound-ports: %q", v), v, false)
	}
	for _, c := range pod.Spec.InitContainers {
		if c.Name != "istio-init" {
			continue
		}
		flags := initFlags(c.Args)
		add("istio-init's -d "+flags["-d"], flags["-d"], false)
		add("istio-init's -b "+flags["-b"], flags["-b"], true)
	}
	slices.SortStableFunc(out, func(a, b Exclusion) int { return cmp.Compare(a.Setting, b.Setting) })
	return out
}

// initFlags returns the flags of istio-iptables that stand alone before a value.
func initFlags(args []string) map[string]string {
	flags := make(map[string]string)
	for i := 0; i+1 < len(args); i++ {
		if strings.HasPrefix(args[i], "-") && !strings.HasPrefix(args[i+1], "-") {
			flags[args[i]] = args[i+1]
		}
	}
	return flags
}

// parsePorts parses a list of ports and ranges of ports.
func parsePorts(list string) (Exclusion, bool) {
	var e Exclusion
	for item := range strings.SplitSeq(list, ",") {
		first, last, ok := strings.Cut(strings.TrimSpace(item), "-")
		if !ok {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		if err1 == nil && err2 == nil {
			e.Ports = append(e.Ports, [2]uint16{uint16(from), uint16(to)})
		}
	}
	return e, len(e.Ports) > 0
}

// parseCIDRs parses a list of networks and addresses. "*" is all of them.
func parseCIDRs(list string) (Exclusion, bool) {
	var e Exclusion
	for item := range strings.SplitSeq(list, ",") {
		item = strings.TrimSpace(item)
		if item == "*" {
			e.CIDRs = append(e.CIDRs, netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"))
		} else if p, err := netip.ParsePrefix(item); err == nil {
			e.CIDRs = append(e.CIDRs, p.Masked())
		} else if a, err := netip.ParseAddr(item); err == nil {
			e.CIDRs = append(e.CIDRs, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return e, len(e.CIDRs) > 0
}
