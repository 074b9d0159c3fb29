// Package kube is borrownet's only door to a Kubernetes cluster: it finds the
// pod to borrow, places the agent in it as an ephemeral container, waits for
// it, and dials the agent through the API server's port-forward.
//
// It talks JSON over client-go's HTTP transport (kubeconfig, exec plugins,
// proxies, TLS) with the types of package api, and uses no clientset. Every
// failure that a user can meet is an [*Error] with the exact next step.
//
// The package starts no goroutine of its own except those of a [Carrier],
// which end with its Close. It never changes anything in the cluster but the
// list of ephemeral containers of the target pod.
package kube

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"

	"github.com/borrownet/borrownet/agent/wire"
)

// FieldManager is the name under which the API server records our changes.
const FieldManager = "borrownet"

// Flags select cluster, user and namespace, as kubectl's flags of the same
// names do. The zero value means what kubectl means without flags.
type Flags struct {
	Kubeconfig           string // absolute; empty = $KUBECONFIG, else ~/.kube/config
	Context              string
	Cluster              string
	User                 string
	Namespace            string
	Server               string
	Token                string
	TLSServerName        string
	CertificateAuthority string
	ClientCertificate    string
	ClientKey            string
	InsecureSkipVerify   bool
	As                   string
	AsUID                string
	AsGroups             []string
	RequestTimeout       time.Duration // of one request; 0 = 30 s; streams are never cut

	// Env is the environment that $KUBECONFIG, $HOME, proxies and exec plugins
	// are read from and run with, KEY=value; nil = that of this process.
	Env []string
	// Stdin lets exec plugins ask on this process's standard input.
	Stdin bool

	Logger *slog.Logger // nil = discard
}

// Client talks to one API server as one user. It is safe for concurrent use.
type Client struct {
	context   string // name in the kubeconfig, for messages
	flags     string // what a command in a hint needs to reach the same cluster
	namespace string // default namespace
	base      *url.URL
	config    *rest.Config
	http      *http.Client      // unary requests, watches, logs
	upgrade   http.RoundTripper // HTTP/1.1 only, for SPDY upgrades
	timeout   time.Duration     // of one unary request
	log       *slog.Logger
	suffix    func() string      // makes a new agent's name unique
	prefer    [uses]atomic.Value // string: protocol of the last carrier that worked
	refusedAt atomic.Int64       // Unix nanoseconds: when port-forward was refused last
}

// Target is a running pod and the container in it to borrow from.
type Target struct {
	Context   string       `json:"context"`
	Namespace string       `json:"namespace"`
	Pod       string       `json:"pod"`
	UID       string       `json:"uid"`
	Container string       `json:"container"`
	Node      string       `json:"node"`
	Workload  string       `json:"workload"` // TYPE/NAME the pod belongs to, e.g. deploy/api; empty for a bare pod
	PodIPs    []netip.Addr `json:"podIPs"`
	Hostname  string       `json:"hostname"` // of the pod's processes
	HostIP    netip.Addr   `json:"hostIP"`   // zero if the node's address is unknown
	Ready     bool         `json:"ready"`    // the pod was, when it was looked at
	Mesh      Mesh         `json:"mesh"`
	Env       Environment  `json:"env"`    // of the container
	Mounts    []Mount      `json:"mounts"` // of the container: identity and configuration
	Cloud     Cloud        `json:"cloud"`
}

// AgentSpec is what an agent must be like.
type AgentSpec struct {
	Image       string        // TargetImage, or a reference
	Binaries    []Binary      // what may be sent if Image is TargetImage, one for each architecture
	ClientKey   string        // the client's WireGuard public key, base64
	IdleTTL     time.Duration // 0 = 15 min
	HardTTL     time.Duration // 0 = 8 h
	NetRaw      bool          // CAP_NET_RAW for a helper, for mirroring; an ErrNetRaw says that it cannot be had
	Localhost   []uint16      // TCP ports of the pod's loopback that the client may reach
	Metadata    []netip.Addr  // link-local addresses and the like that programs may reach
	Direct      bool          // the agent opens a UDP port on the pod's address for the client
	PullTimeout time.Duration // how long the node may take to get the image; 0 = 12 s
	Stdio       bool          // standard streams that take carriers; Attach sets it where port-forward is refused
}

// Agent is an agent that runs in a pod.
type Agent struct {
	Container string // name of the ephemeral container
	Hello     wire.Hello
	Reused    bool // it was there before: nothing was changed
	Stdio     bool // its standard streams take carriers too
}

// Carrier is one byte stream to an agent, over a connection of its own. Read and Write may be called at the same time; Close unblocks both.
type Carrier interface {
	io.ReadWriteCloser
	// Protocol is one of the Protocol constants.
	Protocol() string
}

// Protocols of a carrier.
const (
	ProtocolSPDY      = "spdy"
	ProtocolWebSocket = "websocket" // SPDY inside a WebSocket: what kubectl uses
	ProtocolChannel   = "channel"   // a WebSocket without SPDY
	ProtocolAttach    = "attach"    // the standard streams of the agent's container
)

// Namespace returns the namespace that is used where none is named.
func (c *Client) Namespace() string { return c.namespace }

// Context returns the name of the kubeconfig context in use.
func (c *Client) Context() string { return c.context }

// Server returns the URL of the API server.
func (c *Client) Server() string { return c.base.String() }

var _ interface {
	Resolve(ctx context.Context, ref, container string) (*Target, error)
	Attach(ctx context.Context, t *Target, spec AgentSpec, progress func(step string)) (*Agent, error)
	Plan(ctx context.Context, t *Target, spec AgentSpec) ([]byte, error)
	Dial(ctx context.Context, t *Target, a *Agent, use Use) (Carrier, error)
	DialVia(ctx context.Context, t *Target, port uint16, protocol string) (Carrier, error)
	Fate(ctx context.Context, t *Target) (Fate, error)
	Successor(ctx context.Context, t *Target) (*Target, error)
	Agents(ctx context.Context, t *Target) ([]AgentState, error)
	ListAgents(ctx context.Context, namespace string) ([]AgentState, error)
	Hello(ctx context.Context, t *Target, container string) (wire.Hello, error)
	CheckAccess(ctx context.Context, namespace string) ([]Access, error)
	Close() error
} = (*Client)(nil)
