//go:build lab

package integration

import (
	"strings"
	"testing"
)

// routes sends some of what is for orders elsewhere, by what the caller's sidecar alone
// can see.
const routes = `apiVersion: v1
kind: Service
metadata: {name: canary, namespace: shop}
spec:
  selector: {app: web}
  ports: [{name: http-web, port: 80, targetPort: 8080}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: orders, namespace: shop}
spec:
  hosts: [orders]
  http:
  - match: [{headers: {x-lane: {exact: canary}}}]
    route: [{destination: {host: canary}}]
  - match: [{uri: {prefix: /teapot}}]
    directResponse: {status: 418, body: {string: short and stout}}
  - match: [{uri: {prefix: /old/}}]
    rewrite: {uri: /new/}
    route: [{destination: {host: orders}}]
  - match: [{uri: {prefix: /split}}]
    route:
    - {destination: {host: orders}, weight: 50}
    - {destination: {host: canary}, weight: 50}
  - route: [{destination: {host: orders}}]
`

// TestMeshRoutes calls a Service that a VirtualService routes by header, path and weight.
func TestMeshRoutes(t *testing.T) {
	needMesh(t)
	up(t, "api")
	api := inAPI(t)
	kubectl(t, "apply", "-f", writeFile(t, routes))
	teapot := func() bool { return strings.HasPrefix(api.inside(t, "get", "http://orders/teapot").stdout, "418") }
	t.Cleanup(func() {
		kubectl(t, "-n", "shop", "delete", "virtualservice/orders", "service/canary")
		waitFor(t, "the sidecar forgets the routes", patience, func() bool { return !teapot() })
	})
	waitFor(t, "the sidecar knows the routes and the canary", patience, settled(func() bool {
		return teapot() && api.inside(t, "get", "http://canary/").code == 0
	}))
	// The canary's pod is web, whose app says that it is api.
	for _, tt := range []struct {
		name      string
		args      []string
		app, path string
	}{
		{"default", []string{"get", "http://orders/"}, "orders", "/"},
		{"header", []string{"get", "http://orders/", "X-Lane:canary"}, "api", "/"},
		{"header_http2", []string{"h2c", "http://orders/", "X-Lane:canary"}, "api", "/"},
		{"other_header", []string{"get", "http://orders/", "X-Lane:slow"}, "orders", "/"},
		{"rewrite", []string{"get", "http://orders/old/shoes"}, "orders", "/new/shoes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, s := api.same(t, tt.args...)
			if s.App != tt.app || got.Seen["path"] != tt.path {
				t.Errorf("got %+v, want %s and %s", got, tt.app, tt.path)
			}
			by := "orders"
			if tt.app == "api" {
				by = "web"
			}
			if uri, to := s.identity(t); uri != spiffe("api") || to != spiffe(by) {
				t.Errorf("%s was seen by %s", uri, to)
			}
		})
	}
	t.Run("direct_response", func(t *testing.T) {
		if got, _ := api.same(t, "get", "http://orders/teapot"); !strings.HasSuffix(got.Said, "short and stout") {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("weights", func(t *testing.T) {
		// All on one side: once in 2^63 runs.
		r := borrownet(t, "run", "--session", "api", "--", "curl", "-sS", "--max-time", "40", "http://orders/split?[1-64]")
		for _, app := range []string{"orders", "api"} {
			if n := strings.Count(r.stdout, `"app": "`+app+`"`); n == 0 {
				t.Errorf("none of 64 calls was answered by %s: %v", app, r)
			}
		}
	})
}
