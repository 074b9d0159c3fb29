package agent

import (
	"net/netip"
	"testing"
)

func TestPolicy(t *testing.T) {
	addrs := func(texts ...string) (out []netip.Addr) {
		for _, s := range texts {
			out = append(out, netip.MustParseAddr(s))
		}
		return out
	}
	p := Policy{
		HostIPs:     addrs("192.0.2.1", "2001:db8::1"),
		PodIPs:      addrs("198.51.100.7", "2001:db8::7"),
		Nameservers: addrs("169.254.20.10", "127.0.0.53", "fe80::53"),
		Metadata:    addrs("169.254.170.23", "fd00:ec2::23"),
	}
	for to, want := range map[string]string{
		"203.0.113.9:80":      "",
		"[2001:db8:9::9]:443": "",
		"203.0.113.9:10250":   "", // somebody's service

		"127.0.0.1:15000":          "pod's loopback", // Envoy's administration
		"127.255.255.254:80":       "pod's loopback",
		"[::1]:15000":              "pod's loopback",
		"[::ffff:127.0.0.1]:15000": "pod's loopback",
		"0.0.0.0:15000":            "unspecified address", // Linux takes it for the loopback
		"[::]:15020":               "unspecified address",
		"[::ffff:0.0.0.0]:15020":   "unspecified address",

		"198.51.100.7:15000":          "pod's mesh proxy",
		"198.51.100.7:15020":          "pod's mesh proxy",
		"[::ffff:198.51.100.7]:15020": "pod's mesh proxy",
		"[2001:db8::7]:15020":         "pod's mesh proxy",
		"198.51.100.7:4191":           "pod's mesh proxy",
		"198.51.100.7:8080":           "", // the pod's own service
		"203.0.113.9:15021":           "", // another pod's

		"192.0.2.1:10250":          "kubelet",
		"[::ffff:192.0.2.1]:10250": "kubelet",
		"[2001:db8::1]:10250":      "kubelet",
		"192.0.2.1:443":            "",

		"169.254.169.254:80":     "link-local address",
		"169.254.170.23:80":      "", // allowed, as is the next
		"[fd00:ec2::23]:80":      "",
		"169.254.170.2:80":       "link-local address",
		"[fe80::1%eth0]:80":      "link-local address",
		"100.100.100.200:80":     "cloud metadata",
		"168.63.129.16:80":       "cloud metadata",
		"[fd00:ec2::254]:80":     "cloud metadata",
		"[fd20:ce::254]:80":      "cloud metadata",
		"224.0.0.251:5353":       "multicast or broadcast",
		"[ff02::1]:1":            "multicast or broadcast",
		"255.255.255.255:67":     "multicast or broadcast",
		"169.254.20.10:53":       "", // the node's DNS cache, which is the pod's name server
		"169.254.20.10:80":       "link-local address",
		"127.0.0.53:53":          "",
		"[::ffff:127.0.0.53]:53": "",
		"127.0.0.53:5353":        "pod's loopback",
		"[fe80::53%eth0]:53":     "",
	} {
		if got := p.Refuses(netip.MustParseAddrPort(to)); got != want {
			t.Errorf("%s: refused as %q, want %q", to, got, want)
		}
	}
	if got := p.Refuses(netip.AddrPort{}); got != "unspecified address" {
		t.Errorf("no address: refused as %q", got)
	}
}
