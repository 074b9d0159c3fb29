package kube

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestVersion(t *testing.T) {
	f := newFakeAPI(t)
	answer := func(w http.ResponseWriter) {}
	f.intercept = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/version" {
			answer(w)
			return true
		}
		return false
	}
	c := f.client()

	answer = func(w http.ResponseWriter) { io.WriteString(w, `{"major":"1","gitVersion":"v1.34.4"}`) }
	if got, err := c.Version(t.Context()); got != "v1.34.4" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	answer = func(w http.ResponseWriter) { f.reply(w, status(403, metav1.StatusReasonForbidden, "no")) }
	if got, err := c.Version(t.Context()); got != "" || err != nil {
		t.Errorf("a server that keeps it to itself: %q, %v", got, err)
	}
	answer = func(w http.ResponseWriter) { f.reply(w, status(401, metav1.StatusReasonUnauthorized, "Unauthorized")) }
	_, err := c.Version(t.Context())
	if e, is := errors.AsType[*Error](err); !is || !strings.HasPrefix(e.Object, "API server https://") || e.Hint == "" {
		t.Errorf("credentials that are not taken: %#v", err)
	}
}
