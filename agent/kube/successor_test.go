package kube

import (
	"errors"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/borrownet/borrownet/agent/kube/api"
)

func controlledBy(kind, name string) func(*api.Pod) {
	yes := true
	return func(p *api.Pod) {
		p.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: name, Controller: &yes}}
	}
}

func TestSuccessor(t *testing.T) {
	rollout := func(p *api.Pod) {
		controlledBy("Rollout", "web")(p)
		p.Labels = map[string]string{"app": "web"}
	}
	for _, tt := range []struct {
		name         string
		lost         Target
		deny         string
		want, reason string
		gone         bool
	}{
		{name: "own-pod-lives", lost: Target{Pod: "api-7d4b-a", UID: "uid-api-7d4b-a", Workload: "deploy/api"}, want: "api-7d4b-a"},
		{name: "own-pod-unready", lost: Target{Pod: "api-7d4b-c", UID: "uid-api-7d4b-c", Workload: "deploy/api"}, want: "api-7d4b-b"},
		{name: "deleted", lost: Target{Pod: "api-7d4b-x", UID: "x", Workload: "deploy/api"}, want: "api-7d4b-b"},
		{name: "terminating", lost: Target{Pod: "api-7d4b-d", UID: "uid-api-7d4b-d", Workload: "deploy/api"}, want: "api-7d4b-b"},
		{name: "workload-unreadable", lost: Target{Pod: "api-7d4b-x", UID: "x", Workload: "deploy/api"}, deny: "get deployments", want: "api-7d4b-b"},
		{name: "foreign-kind", lost: Target{Pod: "web-x", UID: "x", Workload: "rollout/web"}, want: "web-1"},
		{name: "stateful-same-name", lost: Target{Pod: "set-1", UID: "old", Workload: "sts/set"}, want: "set-1"},
		{name: "stateful-other-name", lost: Target{Pod: "set-9", UID: "old", Workload: "sts/set"}, reason: "it has no pods"},
		{name: "no-pods", lost: Target{Pod: "zero-x", UID: "x", Workload: "deploy/zero"}, reason: "it has no pods"},
		{name: "bare-pod-lives", lost: Target{Pod: "db-0", UID: "uid-db-0"}, want: "db-0"},
		{name: "bare-pod-replaced", lost: Target{Pod: "db-0", UID: "other"}, reason: "no longer exists", gone: true},
		{name: "bare-pod-gone", lost: Target{Pod: "nobody", UID: "x"}, reason: "no longer exists", gone: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeAPI(t)
			deployPods(f)
			f.addPod("web-1", rollout)
			for _, n := range []string{"set-0", "set-1"} {
				f.addPod(n, func(p *api.Pod) {
					controlledBy("StatefulSet", "set")(p)
					p.Labels = map[string]string{"app": "set"}
				})
			}
			f.addWorkload("sts", "set", map[string]string{"app": "set"})
			if tt.deny != "" {
				f.deny[tt.deny] = true
			}
			tt.lost.Namespace = "shop"
			got, err := f.client().Successor(t.Context(), &tt.lost)
			switch {
			case tt.reason != "" && (err == nil || !strings.Contains(err.Error(), tt.reason) || errors.Is(err, ErrGone) != tt.gone):
				t.Errorf("got %v, want %q", err, tt.reason)
			case tt.reason == "" && (err != nil || got.Pod != tt.want || !got.Ready):
				t.Errorf("got %+v, %v, want %s", got, err, tt.want)
			}
		})
	}
}

func TestFate(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		edit       func(*api.Pod)
		ready      bool
	}{
		{name: "lives", ready: true, edit: func(*api.Pod) {}},
		{name: "unready", edit: notReady},
		{name: "replaced", want: "pod api was replaced by another of that name", edit: func(p *api.Pod) { p.UID = types.UID("other") }},
		{name: "deleted", want: "pod api is being deleted", ready: true, edit: func(p *api.Pod) { now := metav1.Now(); p.DeletionTimestamp = &now }},
		{name: "evicted-by-api", want: "pod api is being deleted (EvictionByEvictionAPI: Eviction API: evicting)", ready: true, edit: func(p *api.Pod) {
			now := metav1.Now()
			p.DeletionTimestamp = &now
			p.Status.Conditions = append(p.Status.Conditions, api.PodCondition{
				Type: api.DisruptionTarget, Status: api.ConditionTrue, Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting",
			})
		}},
		{name: "evicted", want: "pod api was evicted: The node was low on resource: memory.", ready: true, edit: func(p *api.Pod) {
			p.Status.Phase, p.Status.Reason, p.Status.Message = api.PodFailed, "Evicted", "The node was low on resource: memory."
		}},
		{name: "failed", want: "pod api has ended: Failed (NodeLost)", ready: true, edit: func(p *api.Pod) {
			p.Status.Phase, p.Status.Reason = api.PodFailed, "NodeLost"
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeAPI(t)
			f.addPod("api", tt.edit)
			got, err := f.client().Fate(t.Context(), &Target{Namespace: "shop", Pod: "api", UID: "uid-api"})
			if err != nil || got.Gone != tt.want || tt.want == "" && got.Ready != tt.ready {
				t.Errorf("got %+v, %v, want %q", got, err, tt.want)
			}
		})
	}
	t.Run("gone", func(t *testing.T) {
		got, err := newFakeAPI(t).client().Fate(t.Context(), &Target{Namespace: "shop", Pod: "api", UID: "u"})
		if err != nil || got.Gone != "pod api no longer exists" {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}
