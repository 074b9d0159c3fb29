// Package wire defines what a borrownet client and its agent say to each other
// outside the tunnel's packets: the agent's hello line on standard output, the
// fixed addresses of both ends on the link, and the messages of the control API
// that the agent serves over HTTP inside the tunnel.
//
// Every message is JSON. Readers ignore fields they do not know; a change that
// old readers would misunderstand raises [Protocol].
package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"
	"unicode"
)

// Protocol is the version of everything in this package and of the link's
// framing. Client and agent work together only if theirs are equal.
const Protocol = 2

// MTU is the largest IP packet on the link, in bytes: a multiple of 16 whose
// WireGuard message (32 bytes more) still fits the 16-bit frame length.
const MTU = 65440

// ControlPort is the TCP port of the control API on the agent's address.
const ControlPort = 80

// MaxFiles bounds an answer with files, in bytes: a Secret has 1 MiB at most, a
// projected volume has several sources.
const MaxFiles = 16 << 20

// MaxMessage bounds one control message or hello line, in bytes.
const MaxMessage = 1 << 20

// AgentAddr and ClientAddr are the addresses of the agent's and the client's
// network stacks on the link. They lie in 192.0.0.0/29 (RFC 7335), which no
// cluster can route, so they never hide a real destination.
var (
	AgentAddr  = netip.AddrFrom4([4]byte{192, 0, 0, 1})
	ClientAddr = netip.AddrFrom4([4]byte{192, 0, 0, 2})
)

// LoopbackAddr stands for the pod's loopback on the link: the client's own stack
// reaches there the ports of it that the agent was started for.
var LoopbackAddr = netip.AddrFrom4([4]byte{192, 0, 0, 3})

// Paths of the control API.
const (
	PathInfo  = "/v1/info"  // GET: Info
	PathStats = "/v1/stats" // GET: Stats
	PathMesh  = "/v1/mesh"  // GET: Mesh, found out now; with MeshEnvoy its Identity too
	PathStop  = "/v1/stop"  // POST: the agent answers, then ends
	PathFiles = "/v1/files" // GET ?root=PATH&have=VERSION: Files
	// POST ?addr=ADDRESS of the pod: Direct. 403: the agent was started without DirectFlag.
	PathDirect = "/v1/direct"
)

// DirectFlag is the agent's argument without which it opens no port for a direct path.
const DirectFlag = "--direct"

// HeaderClient is the header of control requests in which the client says who it is:
// USER@HOST. Nothing depends on it: it is for people who read the agent's log.
const HeaderClient = "Borrownet-Client"

// Messages of the agent's log that say whose the pod is. Sessions take turns, so
// the last one holds.
const (
	LogSessionStarts = "session starts"
	LogSessionEnds   = "session ends"
	LogClient        = "client" // of the session that has started last, as "who"
)

// ClientName returns what is shown of a client's name: a bounded number of
// characters that can drive no terminal.
func ClientName(said string) string {
	const limit = 128
	name := strings.Map(func(r rune) rune {
		if r <= ' ' || r == 0x7f || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, said)
	return strings.ToValidUTF8(name[:min(len(name), limit)], "")
}

// MeshEnvoy is the query of PathMesh for a pod whose proxy is an Envoy.
const MeshEnvoy = "proxy=envoy"

// Hello is the first line that an agent prints on standard output. The client
// reads it through pods/log, so the API server vouches for it.
type Hello struct {
	Borrownet string `json:"borrownet"` // always "agent"
	Protocol  int    `json:"protocol"`
	Version   string `json:"version"`
	PublicKey string `json:"publicKey"` // WireGuard, base64
	Port      uint16 `json:"port"`      // TCP on 127.0.0.1 of the pod
}

// ErrNotHello reports a line that is not an agent's hello.
var ErrNotHello = errors.New("not an agent's hello line")

// ParseHello parses one line of an agent's output.
func ParseHello(line []byte) (Hello, error) {
	var h Hello
	if len(line) > MaxMessage || json.Unmarshal(line, &h) != nil || h.Borrownet != "agent" {
		return Hello{}, ErrNotHello
	}
	if h.Protocol != Protocol {
		return h, fmt.Errorf("agent %s speaks protocol %d, this client speaks %d", h.Version, h.Protocol, Protocol)
	}
	if h.PublicKey == "" || h.Port == 0 {
		return Hello{}, ErrNotHello
	}
	return h, nil
}

// Info describes the agent and its pod. It does not change while the agent
// lives, except for Expires.
type Info struct {
	Protocol int          `json:"protocol"`
	Version  string       `json:"version"`
	Hostname string       `json:"hostname"`
	Addrs    []netip.Addr `json:"addrs"`   // the pod's addresses, without loopback and link-local ones
	Resolv   string       `json:"resolv"`  // text of the pod's resolv.conf(5)
	Env      []string     `json:"env"`     // the container's environment, KEY=value
	Ping     string       `json:"ping"`    // "" when ICMP echo works, else why it does not
	Expires  time.Time    `json:"expires"` // hard end of the agent
}

// Files are all files of one volume of the pod.
type Files struct {
	Version string   `json:"version"`           // changes with the content
	Files   []File   `json:"files,omitempty"`   // empty if the client has this version
	Skipped []string `json:"skipped,omitempty"` // what could not be read, each with its reason
	Denied  bool     `json:"denied,omitempty"`  // some of it for lack of permission
}

// File is one of them.
type File struct {
	Name string `json:"name"` // relative to the volume, with slashes
	Data []byte `json:"data"`
}

// Direct says where the client may knock for a direct path.
type Direct struct {
	Port        uint16 `json:"port"`        // UDP
	Certificate []byte `json:"certificate"` // SHA-256 of the one that the port shows
}

// Stats are the agent's counters since its start.
type Stats struct {
	TCPFlows    int64             `json:"tcpFlows"`    // open now
	TCPOpened   uint64            `json:"tcpOpened"`   // connected to their destination
	TCPFailed   uint64            `json:"tcpFailed"`   // dial failed; the program got that errno
	UDPSockets  int64             `json:"udpSockets"`  // open now
	UDPSent     uint64            `json:"udpSent"`     // datagrams into the pod's network
	UDPReceived uint64            `json:"udpReceived"` // datagrams out of it
	Echoes      uint64            `json:"echoes"`      // ICMP echo requests sent
	Denied      map[string]uint64 `json:"denied"`      // refused by policy, by reason
	Dropped     map[string]uint64 `json:"dropped"`     // packets dropped, by reason
	Usage       Usage             `json:"usage"`       // of the agent's process
}

// Usage is what a process has taken since its start. It is zero where nobody knows.
type Usage struct {
	CPU      time.Duration `json:"cpuNanos"` // user's and system's
	Waits    uint64        `json:"waits"`    // times that a thread gave its processor up to wait
	Resident int64         `json:"resident"` // bytes in memory now
}

// Mesh says how a connection left the pod just now, and as whom.
type Mesh struct {
	Path     Path     `json:"path"`
	Identity Identity `json:"identity"`
	UID      int      `json:"uid"` // of the agent
	GID      int      `json:"gid"`
}

// Path is what became of a connection that the agent made as a probe.
type Path struct {
	To        netip.AddrPort `json:"to,omitzero"`       // where it was to go
	Connected bool           `json:"connected"`         // connect() succeeded
	Via       netip.AddrPort `json:"via,omitzero"`      // the listener in the pod that took it instead; zero = none did
	Owner     *int64         `json:"owner,omitempty"`   // uid of who took it; nil = unknown
	Problem   string         `json:"problem,omitempty"` // why it is not known
}

// Identity is what a proxy presents to its peers.
type Identity struct {
	ID      string    `json:"id,omitempty"`      // SPIFFE ID in its certificate; "" = unknown
	Expires time.Time `json:"expires,omitzero"`  // of the certificate
	Problem string    `json:"problem,omitempty"` // why it is unknown
}

// Decode reads one control message from r into v.
func Decode(r io.Reader, v any) error { return decode(r, v, MaxMessage) }

// DecodeFiles reads an answer with files from r.
func DecodeFiles(r io.Reader) (Files, error) {
	var f Files
	return f, decode(r, &f, MaxFiles)
}

func decode(r io.Reader, v any, limit int64) error {
	d := json.NewDecoder(io.LimitReader(r, limit))
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("decode control message: %w", err)
	}
	return nil
}
