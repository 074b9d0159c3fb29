package engine

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
)

// Spec is a container that is to be made.
type Spec struct {
	Image      string
	Cmd        []string          `json:",omitempty"`
	User       string            `json:",omitempty"`
	Labels     map[string]string `json:",omitempty"`
	StopSignal string            `json:",omitempty"`
	// ExposedPorts has the keys of HostConfig.PortBindings.
	ExposedPorts map[string]struct{} `json:",omitempty"`
	HostConfig   HostConfig
}

// HostConfig is the part of a Spec that is about this machine.
type HostConfig struct {
	AutoRemove     bool
	CapAdd         []string          `json:",omitempty"`
	CapDrop        []string          `json:",omitempty"`
	Devices        []Device          `json:",omitempty"`
	Dns            []string          `json:",omitempty"` //nolint:revive // the API's spelling
	DnsSearch      []string          `json:",omitempty"` //nolint:revive // the API's spelling
	Memory         int64             `json:",omitempty"`
	Mounts         []Mount           `json:",omitempty"`
	PidsLimit      int64             `json:",omitempty"`
	PortBindings   map[string][]Port `json:",omitempty"`
	ReadonlyRootfs bool
	SecurityOpt    []string          `json:",omitempty"`
	Sysctls        map[string]string `json:",omitempty"`
}

// Device is a device of this machine that a container may use.
type Device struct {
	PathOnHost, PathInContainer, CgroupPermissions string
}

// Mount is a file or directory of this machine that a container sees.
type Mount struct {
	Type, Source, Target string
	ReadOnly             bool
}

// Port is a port of this machine.
type Port struct {
	HostIp, HostPort string //nolint:revive // the API's spelling
}

// Publish makes the container's TCP port one of this machine too.
func (s *Spec) Publish(host netip.AddrPort, port uint16) {
	key := strconv.Itoa(int(port)) + "/tcp"
	if s.ExposedPorts == nil {
		s.ExposedPorts, s.HostConfig.PortBindings = map[string]struct{}{}, map[string][]Port{}
	}
	s.ExposedPorts[key] = struct{}{}
	s.HostConfig.PortBindings[key] = append(s.HostConfig.PortBindings[key], Port{HostIp: host.Addr().String(), HostPort: strconv.Itoa(int(host.Port()))})
}

// Container is a container that there is.
type Container struct {
	ID    string `json:"Id"`
	Names []string
}

// Details are what a look at one container shows.
type Details struct {
	ID    string `json:"Id"`
	Name  string
	State struct {
		Status   string
		Running  bool
		ExitCode int
		Error    string
	}
	Config struct {
		Image  string
		Labels map[string]string
	}
}

// Create makes a container and returns its id.
func (c *Client) Create(ctx context.Context, name string, spec Spec) (string, error) {
	var out Container
	err := c.do(ctx, http.MethodPost, "/containers/create", url.Values{"name": {name}}, spec, &out)
	return out.ID, err
}

// Start starts a container.
func (c *Client) Start(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodPost, "/containers/"+id+"/start", nil, nil, nil)
}

// Inspect looks at a container, by its id or its name.
func (c *Client) Inspect(ctx context.Context, id string) (Details, error) {
	var out Details
	return out, c.do(ctx, http.MethodGet, "/containers/"+id+"/json", nil, nil, &out)
}

// Containers lists the containers with a label, those that do not run too.
func (c *Client) Containers(ctx context.Context, label string) ([]Container, error) {
	query := labelled(label)
	query.Set("all", "1")
	var out []Container
	return out, c.do(ctx, http.MethodGet, "/containers/json", query, nil, &out)
}

// Remove ends a container and removes it. One that is gone, or about to be, is
// fine.
func (c *Client) Remove(ctx context.Context, id string) error {
	err := c.do(ctx, http.MethodDelete, "/containers/"+id, url.Values{"force": {"1"}, "v": {"1"}}, nil, nil)
	if IsRefused(err, http.StatusNotFound) || IsRefused(err, http.StatusConflict) {
		return nil
	}
	return err
}
