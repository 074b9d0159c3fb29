package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/borrownet/borrownet/cmd/internal/session"
	"github.com/borrownet/borrownet/hook"
)

func TestPerReplica(t *testing.T) {
	req := session.Request{Ref: "api", Hook: session.Rung(hook.Auto), RemoteLocalhost: []uint16{15000}, Mirror: []session.Mirror{{Port: 8080, To: 3000}}}
	type short struct {
		Name, Ref string
		Hook      session.Rung
		Stay      bool
		Remote    int
		Mirror    int
	}
	for _, tt := range []struct {
		name, session, workload string
		pods                    []string
		want                    []short
	}{
		{"workload", "", "deploy/api", []string{"api-7d4b-b", "api-7d4b-a"}, []short{
			{"api-b", "pod/api-7d4b-b", session.Rung(hook.Auto), true, 1, 1}, {"api-a", "pod/api-7d4b-a", session.Rung(hook.None), true, 0, 1}}},
		{"named", "mine", "sts/db", []string{"db-0"}, []short{{"mine-0", "pod/db-0", session.Rung(hook.Auto), true, 1, 1}}},
		{"bare", "", "", []string{"single"}, []short{{"single", "pod/single", session.Rung(hook.Auto), true, 1, 1}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req.Name = tt.session
			names, reqs := perReplica(req, tt.workload, tt.pods)
			var got []short
			for i, r := range reqs {
				if names[i] != r.Name {
					t.Errorf("session %s is called %s", r.Name, names[i])
				}
				got = append(got, short{r.Name, r.Ref, r.Hook, r.Stay, len(r.RemoteLocalhost), len(r.Mirror)})
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
