package main

import (
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/cmd/internal/settings"
)

// publishNone is the value of --publish that publishes nothing.
const publishNone = "none"

// routingFlags say what does not go through the pod. They add to what
// borrownet.yaml says.
type routingFlags struct {
	publish []string
	local   []string
	remote  []uint
	to      []string // NAME[:PORT]=[HOST]:PORT

	metadata []string
	mounts   []string
}

func (r *routingFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVar(&r.publish, "publish", nil, "`HOST:PORT` publishes a program's PORT as port HOST of this machine's loopback (default: every port under its own number), none publishes nothing; may be repeated")
	f.UintSliceVar(&r.remote, "remote-localhost", nil, "`PORT` of localhost that is the pod's own for programs; may be repeated")
	f.StringSliceVar(&r.metadata, "metadata", nil, "`ADDRESS` of a metadata service, such as 169.254.169.254, that programs may reach from the pod though it may take them for its node; may be repeated")
	f.StringArrayVar(&r.mounts, "pod-mount", nil, "`PATH` below /etc, /usr, /home, /tmp or the like at which programs see the pod's files, instead of this machine's; may be repeated")
	f.StringSliceVar(&r.to, "redirect", nil, "`SERVICE=:PORT`: what programs call SERVICE for, PORT of this machine answers; SERVICE:PORT=:PORT for one port of it; may be repeated")
	f.StringSliceVar(&r.local, "local", nil, "`CIDR` that programs reach by this machine's own network, or domain whose names its resolver is asked for; may be repeated")
}

// apply puts the flags and the file's settings into req.
func (r *routingFlags) apply(req *session.Request, file settings.Routing, name string) error {
	var err error
	if req.Redirects, err = parseRedirects(file.Redirect, r.to); err != nil {
		return usage(err.Error(), name+" --redirect orders=:3000")
	}
	if req.Publish, err = parsePublish(append(file.Publish, r.publish...)); err != nil {
		return usage(err.Error(), name+" --publish 18080:8080")
	}
	if req.Local, req.LocalNames, err = parseLocal(append(file.Local, r.local...)); err != nil {
		return usage(err.Error(), name+" --local 192.0.2.0/24 --local corp.example.org")
	}
	for host, addrs := range file.Hosts {
		if _, err := session.ParseDomain(host); err != nil || strings.HasPrefix(host, "*") {
			return usage(fmt.Sprintf("hosts in %s: %q is not a host's name", settings.Name, host), "hosts: {db.example.org: 192.0.2.7}")
		}
		if req.Hosts == nil {
			req.Hosts = make(map[string][]netip.Addr)
		}
		req.Hosts[host] = addrs
	}
	if req.Metadata, err = parseMetadata(append(file.Metadata, r.metadata...)); err != nil {
		return usage(err.Error(), name+" --metadata 169.254.169.254")
	}
	for _, p := range r.mounts {
		if !path.IsAbs(p) || path.Clean(p) != p {
			return usage("--pod-mount "+p+": no clean absolute path", name+" --pod-mount /etc/app")
		}
	}
	req.PodMounts = r.mounts
	req.RemoteLocalhost = file.RemoteLocalhost
	for _, port := range r.remote {
		if port == 0 || port > 65535 {
			return usage(fmt.Sprintf("--remote-localhost %d: not a port number", port), name+" --remote-localhost 9901")
		}
		req.RemoteLocalhost = append(req.RemoteLocalhost, uint16(port))
	}
	return nil
}

// parseRedirects reads those of the file, and the flags, which come first.
func parseRedirects(file map[string]string, flags []string) ([]session.Redirect, error) {
	var out []session.Redirect
	add := func(what, name, to string) error {
		one, err := parseRedirect(name, to)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if !slices.ContainsFunc(out, func(r session.Redirect) bool { return r.Name == one.Name && r.Port == one.Port }) {
			out = append(out, one)
		}
		return nil
	}
	for _, v := range flags {
		name, to, ok := strings.Cut(v, "=")
		if !ok {
			return nil, fmt.Errorf("--redirect %q: not SERVICE=[HOST]:PORT", v)
		}
		if err := add(fmt.Sprintf("--redirect %q", v), name, to); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(file)) {
		if err := add("redirect in the file: "+name, name, file[name]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// parseRedirect reads NAME[:PORT] and [HOST]:PORT.
func parseRedirect(name, to string) (session.Redirect, error) {
	var r session.Redirect
	host, port, one := strings.Cut(name, ":")
	domain, err := session.ParseDomain(host)
	if err != nil || strings.HasPrefix(host, "*") {
		return r, fmt.Errorf("%q is not the name of a Service", host)
	}
	r.Name = strings.TrimSuffix(domain, ".")
	if one {
		if r.Port, err = parsePort(port); err != nil {
			return r, fmt.Errorf("%q is not a port number", port)
		}
	}
	if strings.HasPrefix(to, ":") {
		to = "127.0.0.1" + to
	}
	if r.To, err = netip.ParseAddrPort(to); err != nil || r.To.Port() == 0 || r.To.Addr().Zone() != "" {
		return r, fmt.Errorf("%q is not [HOST]:PORT, with HOST an IP address of this machine or its network", to)
	}
	return r, nil
}

func parsePublish(values []string) (session.Publish, error) {
	var p session.Publish
	for _, v := range values {
		if v == publishNone {
			p.None = true
			continue
		}
		host, port, ok := strings.Cut(v, ":")
		h, err1 := parsePort(host)
		q, err2 := parsePort(port)
		if !ok || err1 != nil || err2 != nil {
			return p, fmt.Errorf("--publish %q: not none, nor HOST:PORT with two port numbers", v)
		}
		if p.As == nil {
			p.As = map[uint16]uint16{}
		}
		p.As[q] = h
	}
	if p.None && p.As != nil {
		return p, fmt.Errorf("--publish none and --publish HOST:PORT exclude each other")
	}
	return p, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err == nil && n == 0 {
		err = strconv.ErrRange
	}
	return uint16(n), err
}

// parseLocal tells networks and addresses from domains.
func parseLocal(values []string) (nets []netip.Prefix, names []string, err error) {
	for _, v := range values {
		if a, err := netip.ParseAddr(v); err == nil {
			nets = append(nets, netip.PrefixFrom(a, a.BitLen()))
		} else if p, err := netip.ParsePrefix(v); err == nil {
			nets = append(nets, p.Masked())
		} else if name, err := session.ParseDomain(v); err == nil {
			names = append(names, name)
		} else {
			return nil, nil, fmt.Errorf("--local %q: not an address, a network like 192.0.2.0/24 or a domain", v)
		}
	}
	return nets, names, nil
}

// parseMetadata parses addresses of metadata services.
func parseMetadata(values []string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, v := range values {
		a, err := netip.ParseAddr(v)
		if err != nil || !wire.IsMetadata(a) {
			return nil, fmt.Errorf("--metadata %q: not the address of a metadata service", v)
		}
		out = append(out, a)
	}
	return out, nil
}

// portsText lists published ports for status.
func portsText(st session.Status) string {
	var parts []string
	for _, p := range st.Ports {
		text := fmt.Sprintf("%d/%s", p.Port, p.Proto)
		switch {
		case p.Problem != "":
			text += " not published (" + p.Problem + ")"
		case p.Host != p.Port:
			text += fmt.Sprintf(" as %d", p.Host)
		}
		parts = append(parts, text)
	}
	if st.Publish.None {
		return "not published, as asked"
	}
	return strings.Join(parts, ", ")
}

// localText lists what goes past the pod for status.
func localText(st session.Status) string {
	var parts []string
	for _, p := range st.Local {
		parts = append(parts, p.String())
	}
	for _, name := range st.LocalNames {
		parts = append(parts, strings.TrimSuffix(name, "."))
	}
	return strings.Join(parts, " ")
}

// redirectText lists whose calls this machine answers for status.
func redirectText(st session.Status) string {
	var parts []string
	for _, r := range st.Redirects {
		name := r.Name
		if r.Port != 0 {
			name += ":" + strconv.Itoa(int(r.Port))
		}
		parts = append(parts, name+" to "+r.To.String())
	}
	return strings.Join(parts, ", ")
}

// remoteText lists the ports of localhost that are the pod's for status.
func remoteText(st session.Status) string {
	var parts []string
	for _, p := range st.RemoteLocalhost {
		parts = append(parts, "localhost:"+strconv.Itoa(int(p)))
	}
	return strings.Join(parts, " ")
}
