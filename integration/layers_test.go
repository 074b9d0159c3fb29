//go:build !lab

package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Third-party modules, by the name the table uses.
const (
	gvisor     = "gvisor.dev/gvisor"
	wireguard  = "golang.zx2c4.com/wireguard"
	kubernetes = "k8s.io"
	websocket  = "github.com/gorilla/websocket"
	spdystream = "github.com/moby/spdystream"
	miekgDNS   = "github.com/miekg/dns"
	xnet       = "golang.org/x/net"
	quicgo     = "github.com/quic-go/quic-go"
	xsys       = "golang.org/x/sys"
	xterm      = "golang.org/x/term"
	bubbletea  = "charm.land/bubbletea"
	xansi      = "github.com/charmbracelet/x/ansi"
	netlink    = "github.com/vishvananda/netlink"
	grpc       = "google.golang.org/grpc"
	cobra      = "github.com/spf13/cobra"
	pflag      = "github.com/spf13/pflag"
	yaml       = "sigs.k8s.io/yaml"
	yamlNodes  = "go.yaml.in/yaml/v3"
	gopacket   = "github.com/gopacket/gopacket"
	gocmp      = "github.com/google/go-cmp"
	testscript = "github.com/rogpeppe/go-internal"
)

// layer is what a package may import besides the standard library.
type layer struct {
	ours  []string // packages of the module; "x/..." is x and all below
	third []string
	linux []string // third-party modules for *_linux.go and *_darwin.go only
	tests []string // more packages of the module, and third-party modules, for tests only
	why   string   // said when the rule is broken
}

// layers is the import table. A package that is not in it may not exist: put it where
// it belongs and say what it may know.
var layers = map[string]layer{
	"netstack/flow":  {why: "the leaf that everything may import"},
	"netstack/relay": {ours: []string{"netstack/flow"}, why: "copies bytes between conns of any kind"},
	"netstack/direct": {
		ours: []string{"netstack/link"}, third: []string{quicgo, xnet + "/ipv4"},
		why: "the only importer of a QUIC library",
	},
	"netstack/link": {ours: []string{"netstack/flow"}, why: "framing for both ends, the agent's too"},
	"netstack/router": {
		ours: []string{"netstack/flow"},
		why:  "decides on packets; it must be testable without a stack",
	},
	"netstack/reclaim":   {why: "about the process, not about packets"},
	"netstack/fairqueue": {ours: []string{"netstack/flow"}, why: "orders packets of any form, for both ends"},
	"netstack": {
		ours: []string{"netstack/flow", "netstack/relay", "netstack/fairqueue"}, third: []string{gvisor},
		why: "knows nothing of Kubernetes, hooks or DNS",
	},
	"netstack/mirror":            {ours: []string{"netstack/flow"}, why: "what capture and replay share"},
	"netstack/mirror/mirrortest": {ours: []string{"netstack/flow", "netstack/mirror"}, why: "a test kit"},
	"netstack/reassembly":        {ours: []string{"netstack/flow", "netstack/mirror"}, why: "its streams must be testable without a network"},
	"netstack/http1":             {why: "messages in bytes, for whoever has the bytes"},
	"netstack/http2":             {third: []string{xnet}, why: "messages in bytes, for whoever has the bytes"},
	"netstack/guard":             {ours: []string{"netstack/http1", "netstack/relay"}, why: "looks into one connection"},
	"netstack/replay": {
		ours: []string{"netstack/flow", "netstack/http1", "netstack/http2", "netstack/mirror", "netstack/reassembly", "netstack/relay"},
		why:  "delivers through whatever it is given to dial with",
	},
	"netstack/leaktest":      {why: "a test kit"},
	"netstack/link/linktest": {why: "a test kit"},
	"netstack/netstacktest":  {ours: []string{"netstack", "netstack/flow"}, third: []string{gvisor}, why: "a test kit"},
	"netstack/wg": {
		ours: []string{"netstack", "netstack/fairqueue", "netstack/flow", "netstack/link"}, third: []string{wireguard},
		why: "the only importer of wireguard-go",
	},
	"dnsproxy":              {ours: []string{"netstack/flow"}, third: []string{miekgDNS, xnet}, why: "never meets the hook"},
	"dnsproxy/dnsproxytest": {ours: []string{"dnsproxy/zone"}, third: []string{miekgDNS}, why: "a test kit"},
	"dnsproxy/zone":         {third: []string{miekgDNS}, why: "a nameserver for made-up worlds"},
	"hook":                  {ours: []string{"netstack/flow", "hook/netns", "hook/supervisor"}, linux: []string{xsys}, why: "never meets DNS or Kubernetes"},
	"hook/farend":           {linux: []string{xsys}, why: "acts on sockets; decides nothing"},
	"hook/switchboard":      {ours: []string{"netstack/flow"}, why: "the contract between run and daemon"},
	"hook/view":             {linux: []string{xsys}, why: "runs in the command's first process"},
	"hook/supervisor":       {ours: []string{"hook/farend", "hook/switchboard", "hook/view", "netstack/flow"}, linux: []string{xsys}, tests: []string{"hook/netns"}, why: "small: when it dies, sockets fail"},
	"hook/broker":           {ours: []string{"hook", "hook/farend", "hook/switchboard"}, linux: []string{xsys}, why: "the contract between library and daemon"},
	"hook/hooktest":         {ours: []string{"hook/..."}, linux: []string{xsys}, why: "a test kit"},
	"hook/netns":            {ours: []string{"netstack/flow"}, linux: []string{xsys, netlink}, why: "the helper holds capabilities"},
	"agent/wire":            {why: "the contract between client and agent"},
	"agent/stdio":           {why: "the contract between client and agent, below the link"},
	"agent/stdio/stdiotest": {why: "a test kit"},
	"agent/capture":         {ours: []string{"netstack/flow"}, third: []string{xnet + "/bpf"}, linux: []string{xsys, netlink}, why: "reads other people's traffic: small, and apart"},
	"agent/image":           {why: "builds images without an engine"},
	"agent": {
		ours:  []string{"agent/capture", "agent/stdio", "agent/wire", "netstack", "netstack/direct", "netstack/wg", "netstack/link", "netstack/relay", "netstack/fairqueue", "netstack/flow"},
		linux: []string{xsys},
		why:   "runs in other people's pods: nothing it does not need",
	},
	"agent/agenttest": {ours: []string{"agent", "agent/wire", "netstack/..."}, why: "a test kit"},
	"agent/kube/api":  {third: []string{kubernetes}, why: "the part of Kubernetes' objects that agent/kube uses"},
	"agent/kube": {
		ours: []string{"agent/kube/api", "agent/wire", "agent/stdio"}, third: []string{kubernetes, websocket, spdystream, yaml, xnet},
		why: "the only importer of k8s.io",
	},
	"cmd/internal/...": {
		ours:  []string{"agent", "agent/capture", "agent/wire", "agent/image", "agent/kube", "netstack/...", "dnsproxy", "dnsproxy/zone", "hook/...", "cmd/internal/..."},
		third: []string{cobra, yaml, yamlNodes, xterm, bubbletea, xansi}, linux: []string{xsys}, tests: []string{"dnsproxy/dnsproxytest", grpc, websocket},
		why: "composes packages; libraries stay behind their packages",
	},
	"cmd/internal/compose": {
		ours: []string{"cmd/internal/container", "cmd/internal/fault", "hook/netns", "hook/view"}, third: []string{yamlNodes}, tests: []string{"cmd/internal/printable/..."},
		why: "the only importer of a YAML library that keeps what it does not know",
	},
	"cmd/internal/pcapng": {why: "a format of files; gopacket is what its tests compare with"},
	"cmd/internal/recording": {
		ours: []string{"agent/wire", "cmd/internal/pcapng", "netstack/flow", "netstack/mirror", "netstack/relay", "netstack/replay"},
		why:  "the only importer of package pcapng",
	},
	"cmd/borrownet": {
		ours: []string{"cmd/internal/...", "agent/wire", "agent/kube", "dnsproxy", "hook", "hook/netns", "hook/supervisor", "hook/switchboard", "hook/view", "netstack/reclaim", "netstack/replay"}, third: []string{cobra, pflag, xterm}, linux: []string{xsys}, tests: []string{"netstack/mirror"},
		why: "flags and text only",
	},
	"cmd/borrownet-capture": {ours: []string{"agent/capture"}, why: "has a capability"},
	"cmd/borrownet-agent":   {ours: []string{"agent", "agent/wire", "netstack/reclaim", "netstack/wg"}, why: "no logic"},
	"hack/confine":          {linux: []string{xsys}, why: "a tool of the tests"},
	"hack/mkman":            {why: "a build tool"},
	"hack/mksbom":           {why: "a build tool"},
	"hack/mkimage":          {ours: []string{"agent/image"}, why: "a build tool"},
	"hack/tiers":            {why: "runs before anything else is known to work"},
	"integration":           {ours: []string{"integration/apps/stream", "integration/labnode"}, why: "drives programs, not packages"},
	"integration/bench":     {ours: []string{"integration/apps/stream", "integration/labnode"}, third: []string{xsys}, why: "drives programs, not packages"},
	"integration/labnode":   {why: "text for whoever drives the lab"},
	"integration/hostile": {
		ours: []string{"agent", "agent/wire", "netstack/..."},
		why:  "an agent that lies: it speaks the real protocol",
	},
	"integration/containers": {
		why: "drives programs, not packages",
	},
	"integration/apps/...": {
		ours: []string{"integration/apps/..."}, third: []string{websocket, grpc},
		why: "sample apps are ordinary programs",
	},
}

// forTests may be imported by tests of any package.
var (
	testThird = []string{gocmp, testscript, gopacket, xsys, xnet}
	testOurs  = []string{"netstack/flow", "netstack/relay", "agent/wire"}
)

func within(path string, allowed []string) bool {
	return slices.ContainsFunc(allowed, func(a string) bool {
		if prefix, ok := strings.CutSuffix(a, "/..."); ok {
			a = prefix
			return path == a || strings.HasPrefix(path, a+"/")
		}
		return path == a
	})
}

func inModule(path string, modules []string) bool {
	return slices.ContainsFunc(modules, func(m string) bool { return path == m || strings.HasPrefix(path, m+"/") })
}

func layerOf(dir string) (layer, bool) {
	if l, ok := layers[dir]; ok {
		return l, true
	}
	for key, l := range layers {
		if strings.HasSuffix(key, "/...") && within(dir, []string{key}) {
			return l, true
		}
	}
	return layer{}, false
}

// isKit reports whether a package is a test kit: the last element ends in "test".
func isKit(path string) bool { return strings.HasSuffix(path, "test") }

func TestImportLayers(t *testing.T) {
	for _, f := range goFiles(t, parser.ImportsOnly) {
		if strings.HasPrefix(f.dir, "integration/lab") || strings.HasPrefix(f.dir, "hack/tools") {
			continue // modules of their own
		}
		l, ok := layerOf(f.dir)
		if !ok {
			t.Errorf("%s: package %s is not in the import table", f.name, f.dir)
			continue
		}
		for _, spec := range f.ast.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if why := refuse(f, l, path); why != "" {
				t.Errorf("%s imports %s: %s (%s: %s)", f.name, path, why, f.dir, l.why)
			}
		}
	}
}

// refuse says why a file may not import a path, or "".
func refuse(f goFile, l layer, path string) string {
	first, _, _ := strings.Cut(path, "/")
	switch {
	case path == module || strings.HasPrefix(path, module+"/"):
		ours := strings.TrimPrefix(path, module+"/")
		switch {
		case ours == f.dir:
			return "" // an external test of the package
		case isKit(ours):
			if f.test || isKit(f.dir) || strings.HasPrefix(f.dir, "hack/") {
				return ""
			}
			return "test kits are for tests"
		case within(ours, l.ours), f.test && (within(ours, testOurs) || within(ours, l.tests)):
			return ""
		}
		return "not a lower layer"
	case path == "C":
		return "no cgo"
	case !strings.Contains(first, "."):
		return "" // the standard library
	case inModule(path, l.third), f.test && (inModule(path, testThird) || inModule(path, l.tests)):
		return ""
	case inModule(path, l.linux):
		if strings.HasSuffix(f.name, "_linux.go") || strings.HasSuffix(f.name, "_darwin.go") || f.test {
			return ""
		}
		return "in *_linux.go and *_darwin.go only"
	}
	return "not one of its libraries"
}

// linked are the modules that a program must not contain, however it would come by them.
var linked = []struct {
	program string
	bad     map[string]string
}{
	{"cmd/borrownet-agent", map[string]string{
		kubernetes:                  "the agent has no credentials for the API server and shares the pod's memory",
		"sigs.k8s.io":               "the agent speaks JSON with the client, no YAML",
		websocket:                   "the agent accepts plain TCP on loopback only",
		miekgDNS:                    "names are the client's business",
		cobra:                       "two flags need no library",
		grpc:                        "for the sample apps only",
		module + "/agent/kube":      "the agent never talks to Kubernetes",
		module + "/hook":            "the hook belongs to the laptop",
		module + "/dnsproxy":        "names are the client's business",
		module + "/netstack/router": "the router belongs to the laptop",
		module + "/netstack/replay": "the replay belongs to the laptop",
		gopacket:                    "files belong to the laptop",
	}},
	{"cmd/borrownet", map[string]string{
		gopacket:                      "takes half as long to compile as borrownet does, for a format of files",
		"k8s.io/api":                  "takes longer to compile than borrownet does; agent/kube/api has what is used of it",
		"k8s.io/client-go/kubernetes": "the whole clientset costs minutes of compile time; agent/kube speaks JSON",
		grpc:                          "for the sample apps only",
		module + "/agent/agenttest":   "test kits are for tests",
	}},
}

func TestLinkedPackages(t *testing.T) {
	for _, p := range linked {
		t.Run(strings.ReplaceAll(p.program, "/", "-"), func(t *testing.T) {
			for _, path := range deps(t, p.program) {
				for bad, why := range p.bad {
					if path == bad || strings.HasPrefix(path, bad+"/") && bad != "k8s.io/client-go/kubernetes" {
						t.Errorf("links %s: %s", path, why)
					}
				}
			}
		})
	}
}

// deps returns the import paths of everything that a program links on Linux.
func deps(t *testing.T, program string) []string {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath", "./"+program)
	cmd.Dir = root
	cmd.Env = append(cmd.Environ(), "GOOS=linux", "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -deps %s: %v\n%s", program, err, stderr.String())
	}
	var paths []string
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var pkg struct{ ImportPath string }
		if err := dec.Decode(&pkg); errors.Is(err, io.EOF) {
			return paths
		} else if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, pkg.ImportPath)
	}
}
