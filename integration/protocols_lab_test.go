//go:build lab

package integration

import (
	"os"
	"strings"
	"testing"
)

// nodeHTTP2 asks for the URL in the first argument with Node's own HTTP/2.
const nodeHTTP2 = `
const session = require('http2').connect(process.argv[1]);
session.on('error', e => { console.error(e); process.exit(1); });
const stream = session.request({':path': '/'});
stream.setEncoding('utf8');
stream.on('data', chunk => process.stdout.write(chunk));
stream.on('end', () => session.close());
`

// TestProtocolsAsInThePod calls by every protocol, on the laptop and from inside the pod:
// the server sees the same, which in a mesh has the pod's identity in it.
func TestProtocolsAsInThePod(t *testing.T) {
	up(t, "api")
	api := inAPI(t)
	const streams = "status ok\nserver stream ok\nclient stream ok\nboth streams ok\nunary ok"
	plain := "HTTP/2.0"
	if os.Getenv("LAB_MESH") != "" {
		plain = "HTTP/1.1" // what a sidecar speaks with the app behind port 80
	}
	for _, tt := range []struct{ name, call, to, said, proto string }{
		{"http", "get", "http://orders/a?b=c", "200 OK HTTP/1.1", "HTTP/1.1"},
		{"http2", "h2c", "http://orders:8081/", "200 OK HTTP/2.0", "HTTP/2.0"},
		{"http2_to_port_80", "h2c", "http://orders/", "200 OK HTTP/2.0", plain},
		{"grpc", "grpc", "orders:9090", streams, "HTTP/2.0"},
		{"grpc_full_name", "grpc", "orders.shop.svc.cluster.local:9090", streams, "HTTP/2.0"},
		{"websocket", "ws", "ws://orders/ws", "101 Switching Protocols, 3 messages echoed", "HTTP/1.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, s := api.same(t, tt.call, tt.to)
			if got.Code != 0 || got.Said != tt.said || s.Proto != tt.proto {
				t.Errorf("got %+v, want %q and %s", got, tt.said, tt.proto)
			}
			s.wantSeen(t, "orders", spiffe("api"))
		})
	}
	t.Run("tcp", func(t *testing.T) {
		if got, _ := api.same(t, "tcp", "ledger:7000"); got.Code != 0 || got.Said != "hello" {
			t.Errorf("got %+v", got)
		}
	})
	for name, argv := range map[string][]string{
		"curl_http2": {"curl", "-sS", "--max-time", "20", "--http2-prior-knowledge", "http://orders:8081/"},
		"node_http2": {"node", "-e", nodeHTTP2, "http://orders:8081"},
	} {
		t.Run(name, func(t *testing.T) {
			r := command{argv: append([]string{"borrownet", "run", "--"}, argv...)}.run(t)
			if r.code != 0 {
				t.Fatal(r)
			}
			var s seen
			decode(t, r.stdout, &s)
			if s.Proto != "HTTP/2.0" {
				t.Errorf("orders was spoken to in %s", s.Proto)
			}
			s.wantSeen(t, "orders", spiffe("api"))
		})
	}
}

// TestNamesAsInThePod resolves and calls by every kind of name.
func TestNamesAsInThePod(t *testing.T) {
	mesh := os.Getenv("LAB_MESH") != ""
	up(t, "api")
	api := inAPI(t)
	type row struct {
		name     string
		call, to string
		code     int
		app      string // that answers, if one does
		account  string // whom it sees in a mesh
	}
	tests := []row{
		{name: "headless", call: "get", to: "http://orders-pods:8080/", app: "orders", account: spiffe("api")},
		{name: "headless_tcp", call: "tcp", to: "ledger-pods:7000"},
		{name: "headless_addresses", call: "lookup", to: "ledger-pods"},
		{name: "external_name_of_a_service", call: "get", to: "http://warehouse/", app: "orders", account: spiffe("api")},
		{name: "addresses", call: "lookup", to: "orders"},
		{name: "full_name_addresses", call: "lookup", to: "orders.shop.svc.cluster.local."},
		{name: "no_such_service", call: "lookup", to: "no-such-app", code: 1},
		{name: "no_such_name", call: "lookup", to: "nowhere.shop.svc.cluster.local.", code: 1},
		{name: "no_upstream", call: "lookup", to: "www.example.org", code: 1},
	}
	if mesh { // only there the lab has a partner
		tests = append(tests,
			row{name: "external_name", call: "get", to: "http://partner/", app: "caller"},
			row{name: "external", call: "get", to: "http://partner.example.org/", app: "caller"},
			row{name: "outside_of_the_mesh", call: "get", to: "http://partner.outside/", app: "caller"},
			row{name: "external_name_addresses", call: "lookup", to: "partner"},
		)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, s := api.same(t, tt.call, tt.to)
			if got.Code != tt.code || got.Said == "" {
				t.Errorf("got %+v, want exit code %d", got, tt.code)
			}
			if tt.app != "" {
				s.wantSeen(t, tt.app, tt.account)
			}
		})
	}
	// Without endpoints: refused by the cluster, 503 by a sidecar.
	t.Run("no_endpoints", func(t *testing.T) {
		got, _ := api.same(t, "get", "http://void/")
		if unavailable := strings.HasPrefix(got.Said, "503 "); unavailable != mesh {
			t.Errorf("got %+v in a mesh: %v", got, mesh)
		}
	})
}
