package kube

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/borrownet/borrownet/agent/kube/api"
)

func born(minute int) metav1.Time { return metav1.NewTime(time.Unix(1700000000+int64(minute)*60, 0)) }

func notReady(p *api.Pod) { p.Status.Conditions[0].Status = api.ConditionFalse }

func deployPods(f *fakeAPI) {
	owner := func(p *api.Pod) {
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "api-7d4b", Controller: &yes}}
		p.Labels[templateHash] = "7d4b"
	}
	f.addPod("api-7d4b-a", func(p *api.Pod) { owner(p); p.CreationTimestamp = born(1) })
	f.addPod("api-7d4b-b", func(p *api.Pod) { owner(p); p.CreationTimestamp = born(2) })
	f.addPod("api-7d4b-c", func(p *api.Pod) { owner(p); p.CreationTimestamp = born(3); notReady(p) })
	f.addPod("api-7d4b-d", func(p *api.Pod) {
		owner(p)
		p.CreationTimestamp = born(4)
		now := metav1.Now()
		p.DeletionTimestamp = &now
	})
	f.addPod("db-0", func(p *api.Pod) { p.Labels = map[string]string{"app": "db"} })
	f.addWorkload("deploy", "api", map[string]string{"app": "api"})
	f.addWorkload("svc", "api", map[string]string{"app": "api"})
	f.addWorkload("svc", "front", map[string]string{"app": "api"})
	f.addWorkload("sts", "mixed", map[string]string{"app": "db"})
	f.addWorkload("svc", "mixed", map[string]string{"app": "api"})
	f.addWorkload("deploy", "zero", map[string]string{"app": "none"})
	f.addWorkload("svc", "external", nil)
}

func TestResolve(t *testing.T) {
	for _, tt := range []struct {
		name, ref, container     string
		pod, gotContainer, owner string
		wantErr, wantHint        string
	}{
		{name: "pod", ref: "db-0", pod: "db-0", gotContainer: "app"},
		{name: "pod-typed", ref: "pod/api-7d4b-a", pod: "api-7d4b-a", owner: "deploy/api"},
		{name: "pods-upper-case", ref: "Pods/db-0", pod: "db-0"},
		{name: "deploy-newest-ready", ref: "deploy/api", pod: "api-7d4b-b", owner: "deploy/api"},
		{name: "deployment-group", ref: "deployments.apps/api", pod: "api-7d4b-b", owner: "deploy/api"},
		{name: "service", ref: "svc/front", pod: "api-7d4b-b", owner: "deploy/api"},
		{name: "bare-same-pods", ref: "api", pod: "api-7d4b-b", owner: "deploy/api"},
		{name: "bare-service", ref: "front", pod: "api-7d4b-b", owner: "deploy/api"},
		{name: "bare-ambiguous", ref: "mixed", wantErr: "ambiguous", wantHint: "--pod sts/mixed"},
		{name: "no-pods", ref: "zero", wantErr: "it has no pods", wantHint: "get deploy/zero"},
		{name: "no-selector", ref: "svc/external", wantErr: "it has no pods"},
		{name: "unknown", ref: "ap", wantErr: "no such pod, workload or service", wantHint: "did you mean: deploy/api"},
		{name: "unknown-typed", ref: "sts/nothing", wantErr: "no such", wantHint: "kubectl --kubeconfig"},
		{name: "unknown-type", ref: "ingress/x", wantErr: "no type that has pods", wantHint: "deploy"},
		{name: "bad-name", ref: "No_Such", wantErr: "neither NAME nor TYPE/NAME"},
		{name: "too-many-slashes", ref: "deploy/a/b", wantErr: "neither NAME nor TYPE/NAME"},
		{name: "container", ref: "db-0", container: "app", pod: "db-0", gotContainer: "app"},
		{name: "unknown-container", ref: "db-0", container: "x", wantErr: "no such container", wantHint: "one of: app"},
		{name: "terminating", ref: "api-7d4b-d", wantErr: "terminating", wantHint: "--watch"},
		{name: "static", ref: "static", wantErr: "static pod"},
		{name: "windows", ref: "windows", wantErr: "Windows"},
		{name: "pending", ref: "pending", wantErr: "Pending (app: ErrImagePull)", wantHint: "describe pod pending"},
		{name: "done", ref: "done", wantErr: "not running: it is Succeeded"},
		{name: "job-done", ref: "job/done", wantErr: "none of its pods is running"},
		{name: "annotated", ref: "annotated", pod: "annotated", gotContainer: "second"},
		{name: "proxy-first", ref: "proxied", pod: "proxied", gotContainer: "app"},
		{name: "sidecar", ref: "sidecar", container: "helper", pod: "sidecar", gotContainer: "helper"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeAPI(t)
			deployPods(f)
			oddPods(f)
			got, err := f.client().Resolve(context.Background(), tt.ref, tt.container)
			if tt.wantErr != "" {
				wantError(t, err, tt.wantErr, tt.wantHint)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.Pod != tt.pod || got.Workload != tt.owner {
				t.Errorf("got pod %s of %q, want %s of %q", got.Pod, got.Workload, tt.pod, tt.owner)
			}
			if tt.gotContainer != "" && got.Container != tt.gotContainer {
				t.Errorf("got container %s, want %s", got.Container, tt.gotContainer)
			}
		})
	}
}

func oddPods(f *fakeAPI) {
	other := map[string]string{"app": "odd"}
	f.addPod("static", func(p *api.Pod) {
		p.Labels = other
		p.Annotations = map[string]string{api.MirrorPodAnnotationKey: "x"}
	})
	f.addPod("windows", func(p *api.Pod) { p.Labels = other; p.Spec.OS = &api.PodOS{Name: api.Windows} })
	f.addPod("pending", func(p *api.Pod) {
		p.Labels = other
		p.Status.Phase = api.PodPending
		p.Status.ContainerStatuses = []api.ContainerStatus{{Name: "app", State: waiting("ErrImagePull", "")}}
	})
	f.addPod("done", func(p *api.Pod) {
		p.Labels = map[string]string{"job": "done"}
		p.Status.Phase = api.PodSucceeded
	})
	f.addWorkload("job", "done", map[string]string{"job": "done"})
	two := []api.Container{{Name: "istio-proxy"}, {Name: "app"}, {Name: "second"}}
	f.addPod("annotated", func(p *api.Pod) {
		p.Labels, p.Spec.Containers = other, two
		p.Annotations = map[string]string{defaultContainer: "second"}
	})
	f.addPod("proxied", func(p *api.Pod) { p.Labels, p.Spec.Containers = other, two })
	always := api.ContainerRestartPolicyAlways
	f.addPod("sidecar", func(p *api.Pod) {
		p.Labels = other
		p.Spec.InitContainers = []api.Container{{Name: "helper", RestartPolicy: &always}}
	})
}

func TestResolveTarget(t *testing.T) {
	f := newFakeAPI(t)
	deployPods(f)
	got, err := f.client().Resolve(context.Background(), "api", "")
	if err != nil {
		t.Fatal(err)
	}
	want := &Target{
		Context: "lab", Namespace: "shop", Pod: "api-7d4b-b", UID: "uid-api-7d4b-b", Container: "app", Node: "node-1",
		Workload: "deploy/api", Hostname: "api-7d4b-b", Ready: true, HostIP: netip.MustParseAddr("192.0.2.1"),
		PodIPs: []netip.Addr{netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8::7")},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("target (-want +got):\n%s", diff)
	}
}

func TestResolveUnknownNamespace(t *testing.T) {
	f := newFakeAPI(t)
	c := f.client()
	c.namespace = "nowhere"
	_, err := c.Resolve(context.Background(), "api", "")
	wantError(t, err, "no namespace nowhere", "get namespaces")
}

func TestResolveForbidden(t *testing.T) {
	for _, tt := range []struct{ deny, ref, want string }{
		{"get pods", "db-0", `user jane may not get pods in namespace shop`},
		{"list pods", "deploy/api", `may not list pods in namespace shop`},
		{"list pods", "api", `may not list pods in namespace shop`},
		{"get services", "svc/front", `may not get services in namespace shop`},
		{"get services", "nothing", `may not get services in namespace shop`},
	} {
		t.Run(strings.ReplaceAll(tt.deny+"/"+tt.ref, " ", "-"), func(t *testing.T) {
			f := newFakeAPI(t)
			deployPods(f)
			f.deny[tt.deny] = true
			_, err := f.client().Resolve(context.Background(), tt.ref, "")
			wantError(t, err, tt.want, "borrownet rbac -n shop --workloads --subject user:jane | kubectl --kubeconfig")
		})
	}
	t.Run("pods-only", func(t *testing.T) {
		for _, ref := range []string{"api", "deploy/api"} {
			f := newFakeAPI(t)
			deployPods(f)
			for _, k := range kinds() {
				f.deny["get "+k.resource] = true
			}
			got, err := f.client().Resolve(context.Background(), ref, "")
			if err != nil || got.Pod != "api-7d4b-b" || got.Workload != "deploy/api" {
				t.Errorf("%s: got %v, %v", ref, got, err)
			}
			f.deny["list pods"] = true
			_, err = f.client().Resolve(context.Background(), "api", "")
			wantError(t, err, "may not list pods in namespace shop", "borrownet rbac -n shop --workloads")
		}
	})
	// With the Role of RBAC a name that is not there is just that.
	t.Run("role-of-ours", func(t *testing.T) {
		for ref, want := range map[string]string{
			"nothing": "there is no such pod, workload or service", "deploy/other": "no pod belongs to it", "svc/other": "there is no such pod, workload or service",
		} {
			f := newFakeAPI(t)
			deployPods(f)
			for _, k := range kinds() {
				f.deny["get "+k.resource] = k.resource != "services"
			}
			_, err := f.client().Resolve(context.Background(), ref, "")
			wantError(t, err, want, "")
			if strings.Contains(err.Error(), "RBAC") {
				t.Errorf("%s: error %v blames rights", ref, err)
			}
		}
	})
	t.Run("lookup-denied-but-found", func(t *testing.T) {
		f := newFakeAPI(t)
		deployPods(f)
		f.deny["get deployments"] = true
		got, err := f.client().Resolve(context.Background(), "front", "")
		if err != nil || got.Pod != "api-7d4b-b" {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

// wantError checks that err is an *Error with the texts in reason and hint.
func wantError(t *testing.T, err error, reason, hint string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got error %v (%T), want an *Error with %q", err, err, reason)
	}
	if !strings.Contains(e.Error(), reason) {
		t.Errorf("error %q, want one with %q", e, reason)
	}
	if !strings.Contains(e.Hint, hint) || e.Hint == "" && hint != "" {
		t.Errorf("hint %q, want one with %q (error %q)", e.Hint, hint, e)
	}
}

func TestFindKind(t *testing.T) {
	for _, tt := range []struct{ word, want string }{
		{"po", "pods"}, {"pod", "pods"}, {"deploy", "deployments"}, {"Deployment", "deployments"}, {"deployments.apps", "deployments"},
		{"deployment.v1.apps", "deployments"}, {"sts", "statefulsets"}, {"ds", "daemonsets"}, {"rs", "replicasets"},
		{"job", "jobs"}, {"jobs.batch", "jobs"}, {"svc", "services"}, {"service", "services"}, {"rc", "replicationcontrollers"},
		{"deployments.batch", ""}, {"cronjob", ""}, {"", ""},
	} {
		k, ok := findKind(tt.word)
		if k.resource != tt.want || ok != (tt.want != "") {
			t.Errorf("findKind(%q) = %q, %v, want %q", tt.word, k.resource, ok, tt.want)
		}
	}
}
