// Package spec is what the stages of a lab tell each other: its fixed
// addresses, and the file in its state directory that says what to run.
package spec

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Addresses of the cluster. They live in private network namespaces, so any
// number of labs may use them at once.
const (
	NodeIP    = "10.77.0.1"
	NodeIP6   = "fd10:77::1"
	SvcCIDR   = "10.96.0.0/16"
	SvcCIDR6  = "fd10:96::/112"
	KubeIP    = "10.96.0.1" // the Service kubernetes
	DNSIP     = "10.96.0.10"
	APIPort   = "6443"
	APIServer = "https://" + NodeIP + ":" + APIPort
	// BlackHole swallows what pods send there; Unreachable is refused by ICMP.
	BlackHole    = "192.0.2.1/32"
	BlackHole6   = "2001:db8:0:1::/64"
	Unreachable  = "198.51.100.0/24"
	Unreachable6 = "2001:db8:0:2::/64"
)

// A Machine is a node of the cluster.
type Machine struct {
	Name              string
	IP, IP6           string
	PodCIDR, PodCIDR6 string
}

// The machines that there are. The first has the control plane, and the laptop beside it.
var (
	First  = Machine{Name: "lab", IP: NodeIP, IP6: NodeIP6, PodCIDR: "10.244.0.0/24", PodCIDR6: "fd10:244::/64"}
	Second = Machine{Name: "lab-2", IP: "10.77.0.2", IP6: "fd10:77::2", PodCIDR: "10.244.1.0/24", PodCIDR6: "fd10:244:0:1::/64"}
)

// The laptop and its only wire, and the wire beside it.
const (
	LaptopIP      = "10.77.1.2/24"
	LaptopGateway = "10.77.1.1"
	LaptopWire    = "lap0" // its name on the node
	SecondWire    = "two0" // that of the wire to the second node
	// DeadNameserver is in the laptop's resolv.conf and answers nothing.
	DeadNameserver = "192.0.2.53"
	UserName       = "dev"
	UserID         = 1100
	Namespace      = "shop"
)

// AgentImage is what the laptop's BORROWNET_AGENT_IMAGE says.
const AgentImage = "lab.local/borrownet-agent:1"

// A Spec says what to run and from where. All paths are the host's.
type Spec struct {
	ID     string   `json:"id"`
	Dir    string   `json:"dir"` // state directory
	Cgroup string   `json:"cgroup"`
	Kit    string   `json:"kit"`    // directory of the lab's binaries and images
	Images []string `json:"images"` // more image tars to import
	// Mesh says that namespace shop is in a service mesh.
	Mesh bool `json:"mesh"`
	// Flux says that a GitOps controller keeps the sample workloads.
	Flux bool `json:"flux"`
	// Docker says that the laptop has a Docker engine.
	Docker bool `json:"docker"`
	// NodeFirst says that what is on other machines in a real cluster, the laptop
	// and the control plane, gets the processor time that the node leaves.
	NodeFirst bool `json:"nodeFirst"`
	// Nodes is how many the cluster has: 1 or 2.
	Nodes int `json:"nodes"`
	// Joins says that this is the second machine, which the first one runs.
	Joins bool `json:"joins"`

	Checkout   string `json:"checkout"`   // source tree, on the laptop at the same path
	GoRoot     string `json:"goRoot"`     // Go distribution, or empty
	ModCache   string `json:"modCache"`   // read-only for the laptop, or empty
	BuildCache string `json:"buildCache"` // kept between labs, owned by the laptop's user
	// Tools are directories of other interpreters the laptop should have, to
	// be put on its PATH with /bin appended.
	Tools []string `json:"tools"`

	Begun time.Time `json:"begun"`
}

const file = "spec.json"

// PIDFile has the pid of the second machine's process 1, as the first numbers it, while its power is on.
const PIDFile = "pid"

// Save writes the spec into its state directory.
func (s Spec) Save() error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.Dir, file), b, 0o600)
}

// Load reads the spec from a state directory.
func Load(dir string) (Spec, error) {
	var s Spec
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("read %s: %w", file, err)
	}
	return s, nil
}

// Path joins elements to the state directory.
func (s Spec) Path(elem ...string) string {
	return filepath.Join(append([]string{s.Dir}, elem...)...)
}

// Machine returns the one that the spec is about.
func (s Spec) Machine() Machine {
	if s.Joins {
		return Second
	}
	return First
}

// OfSecond returns the spec of the second machine of this lab. Its directory is below the
// first one's, and its control group, which the first one makes, within the first one's.
func (s Spec) OfSecond() Spec {
	s.Joins = true
	s.Dir = s.Path("second")
	s.Cgroup = "second"
	return s
}

// MeshKit joins elements to the directory of what only a meshed lab has.
func (s Spec) MeshKit(elem ...string) string {
	return filepath.Join(append([]string{s.Kit, "mesh"}, elem...)...)
}

// FluxKit joins elements to the directory of what only a lab with Flux has.
func (s Spec) FluxKit(elem ...string) string {
	return filepath.Join(append([]string{s.Kit, "flux"}, elem...)...)
}

// Since returns how long the start has taken up to now.
func (s Spec) Since() time.Duration { return time.Since(s.Begun) }
