//go:build lab

package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestDoctor asks a real API server: what it says must agree with what up would do,
// and nothing may change.
func TestDoctor(t *testing.T) {
	versions := func() string {
		return kubectl(t, "get", "pods", "-n", "shop", "-o", "jsonpath={.items[*].metadata.resourceVersion}")
	}
	before := versions()
	waitFor(t, "the pods rest", patience, func() bool { // the node tells of what an earlier test has ended
		<-time.After(5 * time.Second)
		last := before
		before = versions()
		return before == last
	})
	r := mustBorrownet(t, "doctor", "-n", "shop", "--pod", "deploy/orders")
	for _, want := range []string{
		"ok    hook ", "ok    api server   https://10.77.0.1:6443, Kubernetes v1.", "ok    rights       all that is needed in namespace shop",
		"ok    target       pod shop/orders-", "accepted by the API server in a dry run", " 0 failures\n",
	} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("it does not say %q: %v", want, r)
		}
	}
	if after := versions(); after != before {
		t.Errorf("pods have changed: %s, before %s", after, before)
	}

	all := verbs(t)
	for i, v := range all {
		config := userWith(t, fmt.Sprintf("doctor-%d", i), append(append([]verb(nil), all[:i]...), all[i+1:]...))
		r := borrownet(t, "doctor", "-n", "shop", "-o", "json", "--kubeconfig", config)
		var checks []struct{ Name, State, Found, Hint string }
		if err := json.Unmarshal([]byte(r.stdout), &checks); err != nil {
			t.Fatalf("%v: %v", err, r)
		}
		named := false
		for _, c := range checks {
			named = named || c.Name == "rights" && c.State == "fail" && strings.Contains(c.Found, v.verb+" "+v.resource) && strings.Contains(c.Hint, "borrownet rbac -n shop")
		}
		if r.code != 12 || !named {
			t.Errorf("without %s %s: %v", v.verb, v.resource, r)
		}
	}

	if r := borrownet(t, "doctor", "-n", "shop", "--pod", "no-such-app"); r.code != 11 || !strings.Contains(r.stdout, "fail  target ") {
		t.Errorf("no such pod: %v", r)
	}
}
