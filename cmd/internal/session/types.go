package session

import (
	"net/netip"
	"time"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/cmd/internal/fault"
	"github.com/borrownet/borrownet/dnsproxy"
	"github.com/borrownet/borrownet/hook"
	"github.com/borrownet/borrownet/hook/view"
)

// Request says what a person wants to borrow. It crosses the daemon's socket.
type Request struct {
	Name      string        `json:"name,omitempty"` // of the session; "" = the target's
	Ref       string        `json:"ref"`            // pod, TYPE/NAME or bare name
	Container string        `json:"container,omitempty"`
	Kube      kube.Flags    `json:"kube"`
	Image     string        `json:"image"`
	Binaries  []kube.Binary `json:"binaries,omitempty"` // for an Image of kube.TargetImage
	Hook      Rung          `json:"hook,omitempty"`     // "" = hook.Auto
	Publish   Publish       `json:"publish,omitzero"`
	Mirror    []Mirror      `json:"mirror,omitempty"`
	// RemoteLocalhost are TCP ports of localhost that are the pod's for programs.
	RemoteLocalhost []uint16 `json:"remoteLocalhost,omitempty"`
	// Metadata are addresses of metadata services that programs may reach from the
	// pod, besides those that hand out an identity of the pod's own.
	Metadata []netip.Addr `json:"metadata,omitempty"`
	// PodMounts are paths of the pod whose files programs see though they are below
	// directories of this machine.
	PodMounts []string `json:"podMounts,omitempty"`
	// Local are destinations in the laptop's own network: not through the pod.
	Local []netip.Prefix `json:"local,omitempty"`
	// LocalNames are domains, as ParseDomain returns them, whose names the laptop's resolver is asked for.
	LocalNames []string `json:"localNames,omitempty"`
	// Hosts are the addresses of names that nobody is asked for.
	Hosts     map[string][]netip.Addr `json:"hosts,omitempty"`
	Redirects []Redirect              `json:"redirects,omitempty"`
	// Docker asks for a network namespace that containers can join; nil = none.
	Docker *Docker `json:"docker,omitempty"`
	// Select says which mirrored requests the local program gets.
	Select Selection `json:"select,omitzero"`
	// ReadOnly lets no HTTP request out of the pod that could change something. Deny are
	// destinations that programs may not connect to, as ParseDenial takes them.
	ReadOnly bool     `json:"readOnly,omitempty"`
	Deny     []string `json:"deny,omitempty"`
	// MirrorProxy tells programs on the laptop's loopback who the client of a mirrored
	// flow is, by the PROXY protocol.
	MirrorProxy bool          `json:"mirrorProxy,omitempty"`
	IdleTTL     time.Duration `json:"idleTTL"`
	HardTTL     time.Duration `json:"hardTTL"`
	// Direct asks for the link over UDP where the pod can be reached from here.
	Direct bool `json:"direct,omitempty"`
	// Stay keeps the session at its pod: when that goes the session is lost.
	Stay bool `json:"stay,omitempty"`
}

// ParseDomain returns text, a domain, as Request.LocalNames has it.
func ParseDomain(text string) (string, error) { return dnsproxy.ParseDomain(text) }

// Rung is how programs get into a session.
type Rung = hook.Rung

// State is where a session is in its life.
type State string

// The states. Connecting leads to Ready, Ready and Reconnecting alternate, and from
// either the session may have to leave its pod; Lost is the end.
const (
	Connecting   State = "connecting"   // being set up
	Ready        State = "ready"        // the data path works
	Reconnecting State = "reconnecting" // no carrier; flows wait
	Reattaching  State = "reattaching"  // the pod or its agent is gone, flows are reset: another is looked for
	Lost         State = "lost"         // the agent is gone for good
)

// Target is what a session has borrowed.
type Target struct {
	Ref       string       `json:"ref"` // as it was asked for
	Context   string       `json:"context"`
	Namespace string       `json:"namespace"`
	Pod       string       `json:"pod"`
	Container string       `json:"container"`
	Node      string       `json:"node"`
	PodIPs    []netip.Addr `json:"podIPs"`
}

// Agent describes the agent of a session.
type Agent struct {
	Container string    `json:"container"` // the ephemeral container's name
	Version   string    `json:"version"`
	Reused    bool      `json:"reused"`             // parked one taken again
	Expires   time.Time `json:"expires,omitzero"`   // its hard end
	Ping      string    `json:"ping,omitempty"`     // why ICMP echo does not work, or ""
	TCPFlows  *int64    `json:"tcpFlows,omitempty"` // open now; nil when it does not answer
	// Usage is what the agent takes of its pod; zero when it does not answer, or is too old to tell.
	Usage wire.Usage `json:"usage,omitzero"`
	// Drops counts what the agent refused or dropped since its start, by reason.
	Drops map[string]uint64 `json:"drops,omitempty"`
}

// Traffic counts the session's bytes and packets exactly.
type Traffic struct {
	BytesIn  uint64            `json:"bytesIn"`         // link to laptop
	BytesOut uint64            `json:"bytesOut"`        // laptop to link
	Flows    int               `json:"flows"`           // known to the router now
	Drops    map[string]uint64 `json:"drops,omitempty"` // by reason
}

// Status is what `status` shows.
type Status struct {
	Session   string         `json:"session"`
	State     State          `json:"state"`
	Problem   *fault.Error   `json:"problem,omitempty"` // why it is not ready
	Target    Target         `json:"target"`
	Hook      Rung           `json:"hook"`                     // never hook.Auto
	HookNote  string         `json:"hookNote,omitempty"`       // why it is not a better one
	Device    string         `json:"device,omitempty"`         // tun or veth; "" = none
	Carrier   string         `json:"carrier,omitempty"`        // of calls: channel, spdy, websocket, attach or direct; "" = none now
	RoundTrip time.Duration  `json:"roundTripNanos,omitempty"` // of a control request just now; 0 = no answer
	Redials   uint64         `json:"redials"`
	Since     time.Time      `json:"since"`
	Files     []FileStatus   `json:"files,omitempty"`
	Agent     Agent          `json:"agent"`
	Traffic   Traffic        `json:"traffic"`
	DNS       dnsproxy.Stats `json:"dns"`
	Mesh      *Mesh          `json:"mesh,omitempty"`  // nil = the agent cannot tell
	Moved     *Move          `json:"moved,omitempty"` // how it came to this pod, if it was at another before
	Mirror    *MirrorStatus  `json:"mirror,omitempty"`

	Cloud     kube.Cloud       `json:"cloud"`
	Metadata  []netip.Addr     `json:"metadata,omitempty"`  // allowed because somebody asked
	Container *ContainerStatus `json:"container,omitempty"` // nil = containers cannot join

	RemoteLocalhost []uint16        `json:"remoteLocalhost,omitempty"`
	Local           []netip.Prefix  `json:"local,omitempty"`
	LocalNames      []string        `json:"localNames,omitempty"`
	Redirects       []Redirect      `json:"redirects,omitempty"`
	Publish         Publish         `json:"publish,omitzero"`
	Ports           []PublishedPort `json:"ports,omitempty"` // of programs, on the laptop's loopback

	Guard *GuardStatus `json:"guard,omitempty"` // nil: what goes to the pod is not looked into

	// NotDirect says why the link is not over UDP although that was asked for.
	NotDirect string `json:"notDirect,omitempty"`

	// BulkCarrier is that of flows that send much; "" = none now, they use Carrier.
	BulkCarrier string `json:"bulkCarrier,omitempty"`
}

// Place is what a program needs to run in a session.
type Place struct {
	Session   string       `json:"session"`
	Hook      Rung         `json:"hook"`             // what a program gets that asks for none
	Socket    string       `json:"socket"`           // of the helper that makes sockets, or of the relay
	Broker    string       `json:"broker"`           // socket for the preload library
	Ports     string       `json:"ports,omitempty"`  // socket by which ports are published; "" = not needed
	Addrs     []netip.Addr `json:"addrs,omitempty"`  // the session's own
	Remote    []uint16     `json:"remote,omitempty"` // ports of localhost that are the pod's
	Pod       string       `json:"pod"`
	Namespace string       `json:"namespace"`
	Hostname  string       `json:"hostname"`          // the pod's
	Files     []view.Bind  `json:"files,omitempty"`   // copies of the pod's volumes, and where they belong
	Scratch   string       `json:"scratch,omitempty"` // an empty directory beside them
	Google    bool         `json:"google,omitempty"`  // the pod has an identity at Google
	Env       []string     `json:"env"`               // the container's: names that its spec declares, values as the agent told
}
