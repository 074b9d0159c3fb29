package compose

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/borrownet/borrownet/cmd/internal/container"
	"github.com/borrownet/borrownet/hook/netns"
	"github.com/borrownet/borrownet/hook/view"
)

// Prefix begins the names of the services that are added.
const Prefix = "borrownet-"

// Borrowed is a service that is a pod.
type Borrowed struct {
	Service  string
	Session  string
	Instance string // tells one session of that name from the next; "" = it is not up
	Socket   string // of the session, where netns.ListenGuests listens
	Image    string // as container.Load returns it
	Resolver string
	TUN      bool              // this machine has the device
	Sysctls  map[string]string // of the namespace
	Env      []string          // the pod's, NAME=VALUE; what the file says counts more
	Files    []view.Bind       // copies of the pod's volumes
}

// moved are the keys of a service that belong to who owns its network.
var moved = []string{"ports", "expose", "networks", "hostname", "domainname", "extra_hosts", "links", "external_links", "mac_address"}

// dropped are the keys that make no sense any more: names are the session's
// business, after the engine's own.
var dropped = []string{"dns", "dns_search", "dns_opt"}

// Rewrite returns file, which a compose tool's config has printed, with the
// services of list borrowed. warnings say what of the file does not count any more.
func Rewrite(file []byte, list []Borrowed) (out []byte, warnings []string, err error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(file, &doc); err != nil {
		return nil, nil, fmt.Errorf("read what the compose tool says: %w", err)
	}
	if len(doc.Content) != 1 {
		return nil, nil, errors.New("read what the compose tool says: it is empty")
	}
	services := get(doc.Content[0], "services")
	if services == nil || services.Kind != yaml.MappingNode {
		return nil, nil, errors.New("there are no services in the compose file")
	}
	for _, b := range list {
		said, err := b.borrow(services)
		if err != nil {
			return nil, nil, err
		}
		warnings = append(warnings, said...)
	}
	var text bytes.Buffer
	enc := yaml.NewEncoder(&text)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(&doc), enc.Close()); err != nil {
		return nil, nil, err
	}
	return text.Bytes(), warnings, nil
}

// Services lists the services of a file that a compose tool's config has printed.
func Services(file []byte) ([]string, error) {
	var doc struct {
		Services map[string]yaml.Node `yaml:"services"`
	}
	if err := yaml.Unmarshal(file, &doc); err != nil {
		return nil, fmt.Errorf("read what the compose tool says: %w", err)
	}
	return slices.Sorted(maps.Keys(doc.Services)), nil
}

// Project returns the name that the file gives its project, "" if it has none.
func Project(file []byte) string {
	var doc struct {
		Name string `yaml:"name"`
	}
	if yaml.Unmarshal(file, &doc) != nil {
		return ""
	}
	return doc.Name
}

// guest is the name of the service that owns b's network.
func (b Borrowed) guest() string { return Prefix + b.Service }

// borrow moves the network of one service.
func (b Borrowed) borrow(services *yaml.Node) (warnings []string, err error) {
	s := get(services, b.Service)
	switch {
	case s == nil || s.Kind != yaml.MappingNode:
		return nil, fmt.Errorf("there is no service %s in the compose file", b.Service)
	case get(services, b.guest()) != nil:
		return nil, fmt.Errorf("service %s is in the compose file already", b.guest())
	case replicas(s) > 1:
		return nil, fmt.Errorf("service %s has %d replicas, and a pod's network can be had once", b.Service, replicas(s))
	}
	if mode := text(get(s, "network_mode")); mode != "" && mode != "bridge" {
		return nil, fmt.Errorf("service %s has network_mode %s, which is no network of its own", b.Service, mode)
	}
	for _, key := range dropped {
		if remove(s, key) != nil {
			warnings = append(warnings, fmt.Sprintf("%s of service %s does not count: names are the session's", key, b.Service))
		}
	}
	guest := b.container(s)
	remove(s, "network_mode")
	set(s, "network_mode", scalar("service:"+b.guest()))
	b.dependOnGuest(s)
	b.addEnv(s)
	b.addFiles(s)
	for name, other := range pairs(services) {
		if name != b.Service {
			b.redirect(other)
		}
	}
	set(services, b.guest(), guest)
	return warnings, nil
}

// container is the service that owns the network of s, which loses it.
func (b Borrowed) container(s *yaml.Node) *yaml.Node {
	g := mapping(
		"image", scalar(b.Image),
		"cap_drop", list("ALL"),
		"cap_add", list(container.Capabilities(b.TUN)...),
		"security_opt", list(container.SecurityOptions()...),
		"read_only", plain("true"),
		"dns", list(b.Resolver),
		"dns_search", list("."),
		"volumes", sequence(bind(b.Socket, netns.GuestSocket)),
		"labels", mapping(container.SessionLabel, scalar(b.Session), InstanceLabel, scalar(b.Instance)),
		"healthcheck", mapping(
			"test", list(append([]string{"CMD"}, container.Command(netns.GuestReady)...)...),
			// Each look starts a process: no more than the start needs.
			"interval", scalar("2s"), "timeout", scalar("10s"), "retries", plain("30")),
		"stop_grace_period", scalar("3s"),
	)
	if b.TUN {
		set(g, "devices", list(container.TUN+":"+container.TUN))
	}
	sysctls := mapping()
	for _, name := range slices.Sorted(maps.Keys(b.Sysctls)) {
		set(sysctls, name, scalar(b.Sysctls[name]))
	}
	moveSysctls(s, sysctls)
	if len(sysctls.Content) > 0 {
		set(g, "sysctls", sysctls)
	}
	for _, key := range moved {
		if v := remove(s, key); v != nil {
			set(g, key, v)
		}
	}
	if p := get(s, "profiles"); p != nil {
		set(g, "profiles", p)
	}
	b.nameNetworks(g, text(get(s, "container_name")))
	return g
}

// InstanceLabel makes the tool make the containers anew for a new session.
const InstanceLabel = "dev.borrownet.instance"

// moveSysctls moves those of the network, which is no longer s's own.
func moveSysctls(s, to *yaml.Node) {
	own := get(s, "sysctls")
	if own == nil {
		return
	}
	if own.Kind == yaml.SequenceNode { // of NAME=VALUE
		m := mapping()
		for _, item := range own.Content {
			name, value, _ := strings.Cut(item.Value, "=")
			set(m, name, scalar(value))
		}
		*own = *m
	}
	for name := range pairs(own) {
		if strings.HasPrefix(name, "net.") {
			set(to, name, remove(own, name))
		}
	}
	if len(own.Content) == 0 {
		remove(s, "sysctls")
	}
}

// nameNetworks makes the names of the service those of its guest, on every
// network.
func (b Borrowed) nameNetworks(g *yaml.Node, more string) {
	names := []string{b.Service}
	if more != "" {
		names = append(names, more)
	}
	nets := get(g, "networks")
	switch {
	case nets == nil || nets.Kind == yaml.ScalarNode: // none, or null
		nets = mapping("default", null())
	case nets.Kind == yaml.SequenceNode:
		m := mapping()
		for _, item := range nets.Content {
			set(m, item.Value, null())
		}
		nets = m
	}
	for name, how := range pairs(nets) {
		if how.Kind != yaml.MappingNode {
			how = mapping()
			set(nets, name, how)
		}
		aliases := get(how, "aliases")
		if aliases == nil || aliases.Kind != yaml.SequenceNode {
			aliases = list()
			set(how, "aliases", aliases)
		}
		for _, n := range names {
			if !slices.ContainsFunc(aliases.Content, func(a *yaml.Node) bool { return a.Value == n }) {
				aliases.Content = append(aliases.Content, scalar(n))
			}
		}
	}
	set(g, "networks", nets)
}

// dependOnGuest makes the service wait for its network: before that is there its
// packets would leave by the engine's.
func (b Borrowed) dependOnGuest(s *yaml.Node) {
	on := get(s, "depends_on")
	m := mapping()
	switch {
	case on == nil:
	case on.Kind == yaml.SequenceNode:
		for _, item := range on.Content {
			set(m, item.Value, mapping("condition", scalar("service_started")))
		}
	case on.Kind == yaml.MappingNode:
		m = on
	}
	set(m, b.guest(), mapping("condition", scalar("service_healthy")))
	set(s, "depends_on", m)
}

// addEnv gives the service the pod's variables that it does not have.
func (b Borrowed) addEnv(s *yaml.Node) {
	env := get(s, "environment")
	if env == nil || env.Kind == yaml.ScalarNode {
		env = mapping()
	}
	if env.Kind == yaml.SequenceNode { // of NAME=VALUE or NAME
		m := mapping()
		for _, item := range env.Content {
			name, value, has := strings.Cut(item.Value, "=")
			v := null()
			if has {
				v = scalar(value)
			}
			set(m, name, v)
		}
		env = m
	}
	for _, kv := range b.Env {
		name, value, _ := strings.Cut(kv, "=")
		if get(env, name) == nil {
			set(env, name, scalar(strings.ReplaceAll(value, "$", "$$")))
		}
	}
	if len(env.Content) > 0 {
		set(s, "environment", env)
	}
}

// addFiles shows the service the pod's files, but where it has something of its own.
func (b Borrowed) addFiles(s *yaml.Node) {
	volumes := get(s, "volumes")
	if volumes == nil || volumes.Kind != yaml.SequenceNode {
		volumes = sequence()
	}
	for _, f := range b.Files {
		taken := slices.ContainsFunc(volumes.Content, func(v *yaml.Node) bool { return target(v) == f.Target })
		if !taken {
			// The path is the pod's, and none of this machine's variables is in it.
			volumes.Content = append(volumes.Content, bind(f.Source, strings.ReplaceAll(f.Target, "$", "$$")))
		}
	}
	if len(volumes.Content) > 0 {
		set(s, "volumes", volumes)
	}
}

// redirect leads what another service says about b's network to where that is now.
func (b Borrowed) redirect(other *yaml.Node) {
	if mode := get(other, "network_mode"); text(mode) == "service:"+b.Service {
		mode.Value = "service:" + b.guest()
	}
	links := get(other, "links")
	if links == nil {
		return
	}
	for _, l := range links.Content {
		name, alias, has := strings.Cut(l.Value, ":")
		if name != b.Service {
			continue
		}
		if !has {
			alias = name
		}
		l.Value = b.guest() + ":" + alias
	}
}

// target is where a volume of a service is in its container.
func target(v *yaml.Node) string {
	if v.Kind == yaml.MappingNode {
		return text(get(v, "target"))
	}
	parts := strings.Split(v.Value, ":")
	return parts[min(1, len(parts)-1)]
}

// replicas is how many containers the file wants of a service.
func replicas(s *yaml.Node) int {
	for _, v := range []*yaml.Node{get(s, "scale"), get(get(s, "deploy"), "replicas")} {
		if n, err := strconv.Atoi(text(v)); err == nil {
			return n
		}
	}
	return 1
}
