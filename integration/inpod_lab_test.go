//go:build lab

package integration

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// place is where a call is made: in the container app of a pod, or on the laptop in the
// session on that pod.
type place struct{ session, namespace, pod, container string }

// inAPI is the sample pod api, whose session has its name.
func inAPI(t *testing.T) place {
	return place{session: "api", namespace: "shop", pod: podOf(t, "api").Metadata.Name, container: "api"}
}

// outcome is what a call of the sample apps (integration/apps/internal/call) came to.
type outcome struct {
	Code int
	Said string // its lines before what the server saw; of a failed one only the cause
	Seen map[string]any
}

// volatile is what differs between two calls of the same program from the same place.
var volatile = []string{"X-Request-Id", "Sec-Websocket-Key", "X-Envoy-Attempt-Count"}

// outcomeOf takes a call's output apart and drops what no two calls have in common.
func outcomeOf(t *testing.T, r result) outcome {
	t.Helper()
	o := outcome{Code: r.code, Said: strings.TrimSpace(r.stdout)}
	if r.code != 0 {
		first, _, _ := strings.Cut(r.stderr, "\n")
		o.Said = first[strings.LastIndex(first, ": ")+1:] // the rest has addresses of the caller
		return o
	}
	head, body, ok := strings.Cut(r.stdout, "{")
	if !ok {
		return o
	}
	o.Said = strings.TrimSpace(head)
	decode(t, "{"+body, &o.Seen)
	delete(o.Seen, "remote")
	delete(o.Seen, "local") // of either family
	headers, _ := o.Seen["headers"].(map[string]any)
	for _, name := range volatile {
		delete(headers, name)
	}
	return o
}

// call makes a call on the laptop, in the session.
func (p place) call(t *testing.T, args ...string) result {
	t.Helper()
	return borrownet(t, append([]string{"run", "--session", p.session, "--", "caller"}, args...)...)
}

// inside makes a call from inside the pod.
func (p place) inside(t *testing.T, args ...string) result {
	t.Helper()
	argv := []string{"kubectl", "--kubeconfig", os.Getenv("LAB_ADMIN_KUBECONFIG"), "-n", p.namespace, "exec", p.pod, "-c", p.container, "--", "/api"}
	return command{argv: append(argv, args...)}.run(t)
}

// same makes a call from both places, wants it to come to the same, and returns the
// laptop's.
func (p place) same(t *testing.T, args ...string) (outcome, seen) {
	t.Helper()
	r := p.call(t, args...)
	inside := p.inside(t, args...)
	got, want := outcomeOf(t, r), outcomeOf(t, inside)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("call %q (-in the pod +on the laptop):\n%s\nin the pod: %v\non the laptop: %v", args, diff, inside, r)
	}
	var s seen
	if _, body, ok := strings.Cut(r.stdout, "{"); ok && r.code == 0 {
		decode(t, "{"+body, &s)
	}
	return got, s
}

// wantSeen checks that app answered and, in a mesh, whom it saw: account, or nobody that
// it could know if account is empty.
func (s seen) wantSeen(t *testing.T, app, account string) {
	t.Helper()
	if s.App != app {
		t.Errorf("app %q answered, want %q", s.App, app)
		return
	}
	if os.Getenv("LAB_MESH") == "" {
		return
	}
	if account == "" {
		if h := s.Headers["X-Forwarded-Client-Cert"]; len(h) != 0 {
			t.Errorf("%s saw %q, want nobody", app, h)
		}
		return
	}
	if uri, by := s.identity(t); uri != account || by != spiffe(app) {
		t.Errorf("%s saw %s as %s, want %s as %s", app, uri, by, account, spiffe(app))
	}
}
