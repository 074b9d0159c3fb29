package kube

import (
	"slices"
	"testing"
)

func TestReplicas(t *testing.T) {
	for _, tt := range []struct {
		name, ref string
		workload  string
		pods      []string
	}{
		{"workload", "deploy/api", "deploy/api", []string{"api-7d4b-b", "api-7d4b-a"}},
		{"one-of-them", "pod/api-7d4b-a", "deploy/api", []string{"api-7d4b-a", "api-7d4b-b"}},
		{"bare-pod", "pod/db-0", "", []string{"db-0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeAPI(t)
			deployPods(f)
			workload, pods, err := f.client().Replicas(t.Context(), tt.ref)
			if err != nil || workload != tt.workload || !slices.Equal(pods, tt.pods) {
				t.Errorf("got %q, %q, %v, want %q, %q", workload, pods, err, tt.workload, tt.pods)
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		if _, _, err := newFakeAPI(t).client().Replicas(t.Context(), "deploy/nobody"); err == nil {
			t.Error("no error")
		}
	})
}
