//go:build docker

package containers

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// received are the requests that a container of the caller's image has answered, as its
// log tells them.
func (p *place) received(container string) (out []seenRequest) {
	p.t.Helper()
	for line := range strings.Lines(p.must("docker", "logs", container)) {
		var r seenRequest
		if json.Unmarshal([]byte(line), &r) == nil && r.Path != "" {
			out = append(out, r)
		}
	}
	return out
}

type seenRequest struct{ Path, Remote string }

// arrived waits for a request that a container has answered.
func (p *place) arrived(container, path string) seenRequest {
	p.t.Helper()
	var r seenRequest
	eventually(p.t, path+" in "+container, func() (string, bool) {
		got := p.received(container)
		i := slices.IndexFunc(got, func(r seenRequest) bool { return r.Path == path })
		if i < 0 {
			return p.must(p.bin, "status"), false
		}
		r = got[i]
		return "", true
	})
	return r
}

// ofAPI fails the test if a request does not come from the pod api.
func (p *place) ofAPI(r seenRequest) {
	p.t.Helper()
	remote, err := netip.ParseAddrPort(r.Remote)
	if err != nil || remote.Addr() != netip.MustParseAddr("192.0.2.10") && remote.Addr() != netip.MustParseAddr("2001:db8:0:1::10") {
		p.t.Errorf("%s came from %v, %v: want the address of pod api", r.Path, remote, err)
	}
}

// TestDockerMirror copies requests to a pod into a container, which sees who sent them;
// the containers' own calls and those of the session's programs go on.
func TestDockerMirror(t *testing.T) {
	p := newPlace(t)
	p.must(p.bin, "up", "--pod", "api", "--context", "demo", "-d")
	p.must(p.bin, "up", "--pod", "orders", "--context", "demo", "-d", "--docker", "--mirror", "80:8080")
	t.Cleanup(func() { p.run(p.bin, "down", "--all") })
	p.must("docker", "run", "-d", "--name", "app", "--network", "container:borrownet-orders", caller, "log")
	t.Cleanup(func() { p.run("docker", "rm", "-f", "app") })
	eventually(t, "the server in the container", func() (string, bool) {
		said, code := p.run("docker", "exec", "app", "/caller", "get", "http://127.0.0.1:8080/ready")
		return said, code == 0
	})
	for _, path := range []string{"/one", "/two", "/three"} {
		p.must(p.bin, "run", "--session", "api", "--", p.bin, "demo", "call", "http://orders"+path)
		p.ofAPI(p.arrived("app", path))
	}
	if n := len(slices.DeleteFunc(p.received("app"), func(r seenRequest) bool { return r.Path == "/ready" })); n != 3 {
		t.Errorf("%d copies of 3 requests", n)
	}
	// What the pod sends to itself comes from nobody's address: its own is the container's too.
	if got := decodeSeen(t, p.must("docker", "exec", "app", "/caller", "get", "http://orders/self")); got.App != "orders" {
		t.Errorf("the container's own call: %+v", got)
	}
	if r := p.arrived("app", "/self"); !strings.HasPrefix(r.Remote, "192.0.0.5:") {
		t.Errorf("the pod's own request came from %s", r.Remote)
	}
	// Without the container copies are the laptop's again, and nothing breaks.
	p.must("docker", "rm", "-f", "app")
	p.must(p.bin, "run", "--session", "api", "--", p.bin, "demo", "call", "http://orders/four")
	p.must("docker", "run", "-d", "--name", "app", "--network", "container:borrownet-orders", caller, "log")
	eventually(t, "the server in the next container", func() (string, bool) {
		said, code := p.run("docker", "exec", "app", "/caller", "get", "http://127.0.0.1:8080/ready")
		return said, code == 0
	})
	p.must(p.bin, "run", "--session", "api", "--", p.bin, "demo", "call", "http://orders/five")
	p.arrived("app", "/five")
	p.must("docker", "rm", "-f", "app")
	p.must(p.bin, "down", "--all")
	p.nothingLeft()
}

// TestComposeMirror copies requests to a pod into the service that borrows it.
func TestComposeMirror(t *testing.T) {
	p := newPlace(t)
	p.must(p.bin, "up", "--pod", "api", "--context", "demo", "-d")
	p.wd = filepath.Join(p.dir, "stack")
	if err := os.Mkdir(p.wd, 0o755); err != nil {
		t.Fatal(err)
	}
	p.file("version: '3.8'\nservices:\n  web: {image: " + caller + ", command: [log], stop_grace_period: 1s}\n  other: {image: " + caller + ", command: [log], stop_grace_period: 1s}\n")
	compose := func(words ...string) []string {
		return append([]string{p.bin, "compose", "--context", "demo", "--service", "web=orders", "--mirror", "web=80:8080"}, words...)
	}
	t.Cleanup(func() {
		p.run(compose("down", "-t", "1")...)
		p.run(p.bin, "down", "--all")
	})
	if said := p.must(compose("up", "-d")...); !strings.Contains(said, "mirroring port 80 of the pod to port 8080") {
		t.Errorf("up says:\n%s", said)
	}
	web, other := p.containerOf("web"), p.containerOf("other")
	for container, url := range map[string]string{web: "http://127.0.0.1:8080/ready", other: "http://web:8080/beside"} {
		eventually(t, "the server of "+container, func() (string, bool) {
			said, code := p.run("docker", "exec", container, "/caller", "get", url)
			return said, code == 0
		})
	}
	p.must(p.bin, "run", "--session", "api", "--", p.bin, "demo", "call", "http://orders/copied")
	p.ofAPI(p.arrived(web, "/copied"))
	if r := p.arrived(web, "/beside"); strings.HasPrefix(r.Remote, "192.0.") {
		t.Errorf("a service beside it came from %s", r.Remote)
	}
	if got := p.received(other); len(got) > 0 {
		t.Errorf("a service that borrows nothing got %+v", got)
	}
	p.fails(2, []string{`error: --mirror "web": not SERVICE=PORT`, "hint: "}, p.bin, "compose", "--service", "web=orders", "--mirror", "web", "ps")
	p.fails(2, []string{"service other borrows no pod", "hint: "}, p.bin, "compose", "--service", "web=orders", "--mirror", "other=80", "ps")
	p.must(compose("down", "-t", "1")...)
	p.must(p.bin, "down", "--all")
	p.nothingLeft()
}

// containerOf is the id of a service's only container, whatever the tool calls it.
func (p *place) containerOf(service string) string {
	p.t.Helper()
	ids := strings.Fields(p.must("docker", "ps", "-q", "--filter", "label=com.docker.compose.service="+service))
	if len(ids) != 1 {
		p.t.Fatalf("containers of %s: %q", service, ids)
	}
	return ids[0]
}
