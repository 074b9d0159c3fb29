package session

import (
	"maps"
	"net/netip"
	"strings"

	"github.com/borrownet/borrownet/dnsproxy"
)

// Redirect has this machine answer what programs of the session call a Service for. The
// cluster is unaffected.
type Redirect struct {
	Name string         `json:"name"`           // NAME, or NAME.NAMESPACE and longer
	Port uint16         `json:"port,omitempty"` // of the Service; 0 = all that no other Redirect is for
	To   netip.AddrPort `json:"to"`
}

// redirectNet is where the addresses of redirected names are. It is for benchmarks of
// network devices (RFC 2544): neither clusters nor laptops have it.
var redirectNet = netip.MustParsePrefix("198.18.254.0/24")

// redirects gives redirected names addresses of their own and knows where these lead.
// Its methods work on nil: nothing is redirected.
type redirects struct {
	list  []Redirect
	addrs map[string]netip.Addr // by name
	to    map[netip.AddrPort]netip.AddrPort
}

func newRedirects(list []Redirect) *redirects {
	r := &redirects{list: list, addrs: map[string]netip.Addr{}, to: map[netip.AddrPort]netip.AddrPort{}}
	next := redirectNet.Addr()
	for _, one := range list {
		a, ok := r.addrs[one.Name]
		if !ok {
			next = next.Next()
			a = next
			r.addrs[one.Name] = a
		}
		r.to[netip.AddrPortFrom(a, one.Port)] = one.To
	}
	return r
}

// nets are the addresses that the laptop answers for.
func (r *redirects) nets() []netip.Prefix {
	if r == nil || len(r.list) == 0 {
		return nil
	}
	return []netip.Prefix{redirectNet}
}

// target returns where dst leads, and whether it is an address of a redirected name. A
// port that leads nowhere is closed: the target is not valid.
func (r *redirects) target(dst netip.AddrPort) (to netip.AddrPort, redirected bool) {
	if r == nil || len(r.list) == 0 || !redirectNet.Contains(dst.Addr()) {
		return netip.AddrPort{}, false
	}
	to, ok := r.to[dst]
	if !ok {
		to = r.to[netip.AddrPortFrom(dst.Addr(), 0)]
	}
	return to, true
}

// hosts adds to others the names that programs of a pod in namespace may call the
// Services by.
func (r *redirects) hosts(others map[string][]netip.Addr, namespace string, pod dnsproxy.ResolvConf) map[string][]netip.Addr {
	out := maps.Clone(others)
	if r == nil || len(r.list) == 0 {
		return out
	}
	if out == nil {
		out = map[string][]netip.Addr{}
	}
	for name, a := range r.addrs {
		for _, called := range callNames(name, namespace, clusterDomain(pod)) {
			out[called] = []netip.Addr{a}
		}
	}
	return out
}

// clusterDomain is the one that the pod's search list names.
func clusterDomain(pod dnsproxy.ResolvConf) string {
	for _, d := range pod.Search {
		if domain, ok := strings.CutPrefix(d, "svc."); ok {
			return domain
		}
	}
	return "cluster.local"
}

// callNames are the names of a Service, which name begins: in a pod's search list they
// all mean the same.
func callNames(name, namespace, domain string) []string {
	labels := strings.SplitN(strings.TrimSuffix(name, "."), ".", 3)
	if len(labels) > 2 && labels[2] != "svc" && !strings.HasPrefix(labels[2], "svc.") {
		return []string{name} // no Service of the cluster
	}
	service, of := labels[0], namespace
	if len(labels) > 1 {
		of = labels[1]
	}
	long := service + "." + of
	out := []string{long, long + ".svc", long + ".svc." + domain}
	if of == namespace {
		out = append(out, service)
	}
	return out
}
