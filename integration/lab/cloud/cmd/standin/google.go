package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
)

// nodeAccount is who a plain metadata server says that any caller is.
const nodeAccount = "node@lab.iam.gserviceaccount.com"

// google is the metadata server of a node: it tells pods by their addresses, as
// that of GKE's workload identity does, and takes a pod without an account for the
// node, as the plain one does with every pod.
type google struct{ cluster *cluster }

func (g *google) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Metadata-Flavor", "Google")
	if r.Header.Get("Metadata-Flavor") != "Google" || r.Header.Get("X-Forwarded-For") != "" {
		http.Error(w, "Missing Metadata-Flavor:Google header", http.StatusForbidden)
		return
	}
	account := nodeAccount
	if p, err := g.cluster.podAt(r.Context(), caller(r)); err == nil {
		name, err := g.cluster.annotation(r.Context(), p, "iam.gke.io/gcp-service-account")
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		if name != "" {
			account = name
		}
	}
	path := strings.TrimPrefix(r.URL.Path, "/computeMetadata/v1")
	own, isOwn := strings.CutPrefix(path, "/instance/service-accounts/default")
	switch {
	case path == "/", path == "":
		_, _ = io.WriteString(w, "instance/\nproject/\n")
	case path == "/project/project-id":
		_, _ = io.WriteString(w, "lab")
	case path == "/universe/universe-domain":
		_, _ = io.WriteString(w, "googleapis.com")
	case isOwn && own == "/email":
		_, _ = io.WriteString(w, account)
	case isOwn && own == "/token":
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "token of " + account, "expires_in": 3600, "token_type": "Bearer"})
	default:
		http.NotFound(w, r)
	}
}
