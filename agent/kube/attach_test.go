package kube

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/borrownet/borrownet/agent/kube/api"
	"github.com/borrownet/borrownet/agent/wire"
)

func target() *Target {
	return &Target{Context: "lab", Namespace: "shop", Pod: "api-1", UID: "uid-api-1", Container: "app", Workload: "deploy/api"}
}

func attach(t *testing.T, c *Client, s AgentSpec) (*Agent, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return c.Attach(ctx, target(), s, func(step string) { t.Log(step) })
}

func TestAttach(t *testing.T) {
	f := newFakeAPI(t)
	f.addPod("api-1", nil)
	f.kubelet = func(p *api.Pod, name string) {
		f.setState(p, name, waiting("ContainerCreating", ""))
		time.AfterFunc(20*time.Millisecond, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.setState(p, name, running())
		})
	}
	c := f.client()
	first, err := attach(t, c, spec())
	if err != nil {
		t.Fatal(err)
	}
	want := &Agent{Container: "borrownet-agent-1", Hello: wire.Hello{Borrownet: "agent", Protocol: wire.Protocol, Version: "1.0", PublicKey: "key", Port: 40000}}
	if diff := cmp.Diff(want, first); diff != "" {
		t.Errorf("first agent (-want +got):\n%s", diff)
	}
	f.mu.Lock()
	patches := slices.DeleteFunc(slices.Clone(f.calls), func(s string) bool { return !strings.HasPrefix(s, "patch") })
	f.mu.Unlock()
	if diff := cmp.Diff([]string{"patch pods/ephemeralcontainers dry-run", "patch pods/ephemeralcontainers"}, patches); diff != "" {
		t.Errorf("patches (-want +got):\n%s", diff)
	}
	second, err := attach(t, c, spec())
	if err != nil {
		t.Fatal(err)
	}
	want.Reused = true
	if diff := cmp.Diff(want, second); diff != "" {
		t.Errorf("second agent (-want +got):\n%s", diff)
	}
	mirror := spec()
	mirror.NetRaw = true
	third, err := attach(t, c, mirror)
	if err != nil {
		t.Fatal(err)
	}
	if third.Reused || third.Container == first.Container || f.mutations() != 2 {
		t.Errorf("an agent without NET_RAW was taken for mirroring: %+v, %d changes", third, f.mutations())
	}
	states, err := c.Agents(context.Background(), target())
	if err != nil {
		t.Fatal(err)
	}
	started := time.Unix(1700000000, 0)
	if diff := cmp.Diff([]AgentState{
		{Namespace: "shop", Pod: "api-1", UID: "uid-api-1", Container: "borrownet-agent-1", Image: spec().Image, ClientKey: clientKey, State: StateRunning, Started: started},
		{Namespace: "shop", Pod: "api-1", UID: "uid-api-1", Container: third.Container, Image: spec().Image, ClientKey: clientKey, NetRaw: true, State: StateRunning, Started: started},
	}, states); diff != "" {
		t.Errorf("agents (-want +got):\n%s", diff)
	}
	all, err := c.ListAgents(context.Background(), "")
	if err != nil || len(all) != 2 {
		t.Errorf("ListAgents: %d agents, %v", len(all), err)
	}
}

func TestAttachReplacesEnded(t *testing.T) {
	f := newFakeAPI(t)
	p := f.addPod("api-1", nil)
	c := f.client()
	first, err := attach(t, c, spec())
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	f.setState(p, first.Container, terminated(0, "Completed", ""))
	f.mu.Unlock()
	second, err := attach(t, c, spec())
	if err != nil {
		t.Fatal(err)
	}
	if second.Reused || second.Container == first.Container {
		t.Errorf("an ended agent was taken again: %+v", second)
	}
}

func TestAttachFails(t *testing.T) {
	image := `image "registry.example.org/borrownet-agent:1"`
	becomes := func(s api.ContainerState) func(*fakeAPI) {
		return func(f *fakeAPI) { f.kubelet = func(p *api.Pod, name string) { f.setState(p, name, s) } }
	}
	refuses := func(code int, message string) func(*fakeAPI) {
		return func(f *fakeAPI) {
			f.refuse = func(dry bool) *metav1.Status {
				if !dry {
					t.Error("the pod was changed without a dry run")
				}
				return status(code, metav1.StatusReasonForbidden, message)
			}
		}
	}
	denies := func(calls ...string) func(*fakeAPI) {
		return func(f *fakeAPI) {
			for _, c := range calls {
				f.deny[c] = true
			}
		}
	}
	for _, tt := range []struct {
		name      string
		setUp     func(*fakeAPI)
		want      string
		hint      string
		mutations int
	}{
		{"err-image-pull", becomes(waiting("ErrImagePull", "no such host")), image + " cannot be pulled (ErrImagePull): no such host", "describe pod api-1", 1},
		{"backoff", becomes(waiting("ImagePullBackOff", "")), image + " cannot be pulled", "imagePullSecrets", 1},
		{"invalid-name", becomes(waiting("InvalidImageName", "")), image + " cannot be used", "REGISTRY/NAME:TAG", 1},
		{"config-error", becomes(waiting("CreateContainerConfigError", `secret "db" not found`)), `secret "db" not found`, "describe pod", 1},
		{"create-error", becomes(waiting("CreateContainerError", "boom")), "cannot start agent borrownet-agent-1", "", 1},
		{"start-error", becomes(terminated(128, "StartError", "no such file")), "ended with exit code 128 (StartError): no such file", "logs api-1", 1},
		{"last-words", func(f *fakeAPI) {
			becomes(terminated(2, "Error", ""))(f)
			f.logs["borrownet-agent-1"] = "flag provided but not defined: -x\nusage\n"
		}, "its last words: flag provided but not defined", "logs api-1 -c borrownet-agent-1", 1},
		{"not-an-agent", func(f *fakeAPI) { f.logs["borrownet-agent-1"] = strings.Repeat("hi\n", wire.MaxMessage/3+1) }, "does not speak like an agent", "logs api-1", 1},
		{"other-protocol", func(f *fakeAPI) {
			f.logs["borrownet-agent-1"] = `{"borrownet":"agent","protocol":99,"version":"9.0","publicKey":"k","port":1}` + "\n"
		}, "speaks protocol 99", "--agent-image", 1},
		{"pod-ends", func(f *fakeAPI) {
			f.kubelet = func(p *api.Pod, _ string) {
				p.Status.Phase = api.PodFailed
				f.setState(p, "x", running())
			}
		}, "not running any more: it is Failed", "", 1},
		{"pod-deleted", func(f *fakeAPI) {
			f.kubelet = func(p *api.Pod, _ string) { f.remove(p) }
		}, "the pod no longer exists", "borrownet up --pod deploy/api", 1},
		{"slow", becomes(waiting("ContainerCreating", "")), image + " is not on the node after 1s", "goes on with borrownet-agent-1", 1},
		{"replaced", func(f *fakeAPI) { f.pods["shop/api-1"].UID = "another" }, "no longer exists", "borrownet up --pod deploy/api", 0},
		{"pod-security", refuses(403, `pods "api-1" is forbidden: violates PodSecurity "restricted:latest": unrestricted capabilities`),
			`PodSecurity "restricted:latest" of namespace shop refuses it: unrestricted capabilities`, "--show-labels", 0},
		{"pod-security-agent", refuses(403, `pods "api-1" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true (container "borrownet-agent-1" must set securityContext.runAsNonRoot=true)`),
			`PodSecurity "restricted:latest" of namespace shop refuses it: runAsNonRoot != true (container "borrownet-agent-1"`, "--show-labels", 0},
		{"pod-security-mesh-init", refuses(403, podOfIstioInit),
			`the pod itself violates PodSecurity "restricted:latest" of namespace shop, by its own istio-init, istio-proxy and not by borrownet's agent`, "the mesh's CNI plugin", 0},
		{"pod-security-pod", refuses(403, `pods "api-1" is forbidden: violates PodSecurity "baseline:latest": privileged (container "app" must not set securityContext.privileged=true)`),
			`by its own app and not by borrownet's agent`, "label namespace shop --overwrite pod-security.kubernetes.io/enforce=privileged", 0},
		{"vap", refuses(422, `pods "api-1" is forbidden: ValidatingAdmissionPolicy 'no-debug' with binding 'b' denied request: no ephemeral containers`),
			`ValidatingAdmissionPolicy "no-debug" refuses it: no ephemeral containers`, "get validatingadmissionpolicy no-debug", 0},
		{"webhook", refuses(400, `admission webhook "validate.kyverno.svc-fail" denied the request: block-ephemeral-containers: not here`),
			`webhook "validate.kyverno.svc-fail" refuses it: block-ephemeral-containers`, "pods/ephemeralcontainers in namespace shop", 0},
		{"scc", refuses(403, `pods "api-1" is forbidden: unable to validate against any security context constraint: []`), "SecurityContextConstraints", "get scc", 0},
		{"other-admission", refuses(403, `pods "api-1" is forbidden: because`), "the cluster's policy refuses it", "administrator", 0},
		{"rbac-get", denies("get pods"), "user jane may not get pods", "borrownet rbac -n shop --workloads --subject user:jane | kubectl", 0},
		{"rbac-patch", denies("patch pods/ephemeralcontainers"), "may not patch pods/ephemeralcontainers in namespace shop", "borrownet rbac -n shop --workloads --subject user:jane | kubectl", 0},
		{"rbac-log", denies("get pods/log"), "may not get pods/log", "borrownet rbac -n shop --workloads --subject user:jane | kubectl", 0},
		{"rbac-watch", denies("watch pods"), "may not watch pods", "borrownet rbac -n shop --workloads --subject user:jane | kubectl", 0},
		{"rbac-portforward", denies("create pods/portforward"), "may not create pods/portforward", "borrownet rbac -n shop --workloads --subject user:jane | kubectl", 0},
		{"rbac-several", denies("get pods/log", "create pods/portforward"), "may not get pods/log, create pods/portforward", "borrownet rbac -n shop --workloads --subject user:jane | kubectl", 0},
		{"rbac-patch-no-review", func(f *fakeAPI) { f.ssarOff = true; denies("patch pods/ephemeralcontainers")(f) },
			"user jane may not patch pods/ephemeralcontainers", "--subject user:jane", 0},
		{"rbac-watch-no-review", func(f *fakeAPI) {
			f.ssarOff = true
			denies("watch pods")(f)
			becomes(waiting("ContainerCreating", ""))(f)
		}, "user jane may not watch pods", "borrownet rbac -n shop", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeAPI(t)
			f.addPod("api-1", nil)
			tt.setUp(f)
			s := spec()
			s.PullTimeout = time.Minute
			if strings.Contains(tt.want, "after 1s") {
				s.PullTimeout = time.Second
			}
			start := time.Now()
			_, err := attach(t, f.client(), s)
			wantError(t, err, tt.want, tt.hint)
			// Nothing is waited for in vain.
			if took := time.Since(start); took > time.Minute {
				t.Errorf("took %v", took)
			}
			if got := f.mutations(); got != tt.mutations {
				t.Errorf("%d changes to the pod, want %d", got, tt.mutations)
			}
			if got := errors.Is(err, ErrPlaced); got != (tt.mutations > 0) {
				t.Errorf("ErrPlaced is %v after %d changes", got, tt.mutations)
			}
		})
	}
}

// podOfIstioInit is what Kubernetes 1.34 says of a pod with istio-init.
const podOfIstioInit = `pods "api-1" is forbidden: violates PodSecurity "restricted:latest": ` +
	`unrestricted capabilities (container "istio-init" must not include "NET_ADMIN", "NET_RAW" in securityContext.capabilities.add), ` +
	`runAsNonRoot != true (container "istio-init" must not set securityContext.runAsNonRoot=false), ` +
	`runAsUser=0 (container "istio-init" must not set runAsUser=0), ` +
	`seccompProfile (pod or containers "istio-init", "istio-proxy" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")`

// Mirroring needs a capability, and that is said unless the pod would be refused anyway.
func TestAttachNetRawRefused(t *testing.T) {
	for _, tt := range []struct {
		name, message, want, hint string
		netRaw                    bool // an agent without it might be had
	}{
		{"capability", `pods "api-1" is forbidden: violates PodSecurity "restricted:latest": unrestricted capabilities`,
			`PodSecurity "restricted:latest"`, "mirroring takes CAP_NET_RAW for a moment", true},
		{"pod", podOfIstioInit, "by its own istio-init", "the mesh's CNI plugin", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeAPI(t)
			f.addPod("api-1", nil)
			f.refuse = func(bool) *metav1.Status { return status(403, metav1.StatusReasonForbidden, tt.message) }
			s := spec()
			s.NetRaw = true
			_, err := attach(t, f.client(), s)
			wantError(t, err, tt.want, tt.hint)
			if errors.Is(err, ErrNetRaw) != tt.netRaw || f.mutations() > 0 {
				t.Errorf("is an ErrNetRaw: %v, want %v; %d changes", errors.Is(err, ErrNetRaw), tt.netRaw, f.mutations())
			}
		})
	}
}

// Where adding NET_RAW is refused, as by Pod Security "baseline", it is asked for by not dropping it.
func TestAttachKeepsNetRaw(t *testing.T) {
	f := newFakeAPI(t)
	f.addPod("api-1", nil)
	asked := 0
	f.refuse = func(dryRun bool) *metav1.Status {
		if asked++; asked == 1 {
			return status(403, metav1.StatusReasonForbidden, `pods "api-1" is forbidden: violates PodSecurity "baseline:latest": non-default capabilities`)
		}
		return nil
	}
	s := spec()
	s.NetRaw = true
	a, err := attach(t, f.client(), s)
	if err != nil {
		t.Fatal(err)
	}
	agents, err := f.client().Agents(t.Context(), target())
	if err != nil || len(agents) != 1 || agents[0].Container != a.Container || !agents[0].NetRaw {
		t.Errorf("agents %+v, %v, want one that may capture", agents, err)
	}
	again, err := attach(t, f.client(), s)
	if err != nil || !again.Reused {
		t.Errorf("again: %+v, %v, want the same agent", again, err)
	}
}

// The program that is sent into the target's image has no capability, whatever is allowed.
func TestTargetImageCannotCapture(t *testing.T) {
	f := newFakeAPI(t)
	f.addPod("api-1", nil)
	s := spec()
	s.NetRaw, s.Image, s.Binaries = true, TargetImage, binaries()
	_, err := attach(t, f.client(), s)
	wantError(t, err, "without its capture helper", "--agent-image REF")
	if !errors.Is(err, ErrNetRaw) || f.mutations() > 0 {
		t.Errorf("%v, %d changes", err, f.mutations())
	}
	if _, err := f.client().Plan(t.Context(), target(), s); !errors.Is(err, ErrNetRaw) {
		t.Errorf("plan: %v, want an ErrNetRaw", err)
	}
}

// A node that has the image may take longer to start the agent.
func TestAttachSlowStart(t *testing.T) {
	f := newFakeAPI(t)
	f.addPod("api-1", nil)
	f.kubelet = func(p *api.Pod, name string) {
		f.objects["/api/v1/namespaces/shop/events"] = &api.EventList{Items: []api.Event{{
			Reason:         "Pulled",
			InvolvedObject: api.ObjectReference{UID: p.UID, FieldPath: "spec.ephemeralContainers{" + name + "}"},
		}}}
		f.setState(p, name, waiting("ContainerCreating", ""))
		time.AfterFunc(1500*time.Millisecond, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.setState(p, name, running())
		})
	}
	s := spec()
	s.PullTimeout = time.Second
	if _, err := attach(t, f.client(), s); err != nil {
		t.Fatal(err)
	}
}

// An agent that waits for its image is not added again: the next one would
// wait as well.
func TestAttachGoesOnWaiting(t *testing.T) {
	f := newFakeAPI(t)
	p := f.addPod("api-1", nil)
	f.kubelet = func(p *api.Pod, name string) { f.setState(p, name, waiting("ContainerCreating", "")) }
	s := spec()
	s.PullTimeout = time.Second
	c := f.client()
	if _, err := attach(t, c, s); err == nil {
		t.Fatal("no error")
	}
	f.mu.Lock()
	f.setState(p, "borrownet-agent-1", running())
	f.mu.Unlock()
	s.PullTimeout = 30 * time.Second
	a, err := attach(t, c, s)
	if err != nil || a.Container != "borrownet-agent-1" || f.mutations() != 1 {
		t.Errorf("got %+v, %v, %d changes", a, err, f.mutations())
	}
}

func TestAttachSurvivesWatchEnd(t *testing.T) {
	f := newFakeAPI(t)
	p := f.addPod("api-1", nil)
	f.kubelet = func(p *api.Pod, name string) { f.setState(p, name, waiting("ContainerCreating", "")) }
	watches := 0
	f.intercept = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("watch") == "" {
			return false
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		watches++
		switch watches {
		case 1: // expired at once
			f.reply(w, status(410, metav1.StatusReasonExpired, "too old resource version"))
			return true
		case 2: // expired while it ran
			if err := json.NewEncoder(w).Encode(map[string]any{"type": "ERROR", "object": status(410, metav1.StatusReasonExpired, "too old")}); err != nil {
				t.Error(err)
			}
			f.setState(p, "borrownet-agent-1", running())
			return true
		}
		return false
	}
	if _, err := attach(t, f.client(), spec()); err != nil {
		t.Fatal(err)
	}
}

func TestAttachCanceled(t *testing.T) {
	f := newFakeAPI(t)
	f.addPod("api-1", nil)
	f.kubelet = func(p *api.Pod, name string) { f.setState(p, name, waiting("ContainerCreating", "")) }
	ctx, cancel := context.WithCancel(context.Background())
	_, err := f.client().Attach(ctx, target(), spec(), func(step string) {
		if strings.HasSuffix(step, "(ContainerCreating)") {
			cancel()
		}
	})
	var e *Error
	if !errors.Is(err, context.Canceled) || errors.As(err, &e) {
		t.Errorf("error %v, want the cancellation itself", err)
	}
}

func TestPlan(t *testing.T) {
	f := newFakeAPI(t)
	f.addPod("api-1", func(p *api.Pod) {
		p.Spec.Containers[0].SecurityContext = &api.SecurityContext{RunAsUser: id(1337)}
	})
	c := f.client()
	got, err := c.Plan(context.Background(), target(), spec())
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "plan.yaml", got)
	if n := f.mutations(); n != 0 {
		t.Errorf("Plan changed the pod %d times", n)
	}
	if _, err := attach(t, c, spec()); err != nil {
		t.Fatal(err)
	}
	f.deny["patch pods/ephemeralcontainers"] = true // not needed any more
	got, err = c.Plan(context.Background(), target(), spec())
	if err != nil || !strings.Contains(string(got), "nothing would change") {
		t.Errorf("Plan with an agent there: %s, %v", got, err)
	}
}

// TestPlanShowsWhatIsStored: the API server adds fields that this client does not know.
func TestPlanShowsWhatIsStored(t *testing.T) {
	f := newFakeAPI(t)
	f.addPod("api-1", nil)
	f.intercept = func(w http.ResponseWriter, r *http.Request) bool {
		var patch struct {
			Spec struct {
				EphemeralContainers []map[string]any `json:"ephemeralContainers"`
			} `json:"spec"`
		}
		if r.Method != http.MethodPatch {
			return false
		}
		if err := json.NewDecoder(r.Body).Decode(&patch); err != nil {
			t.Error(err)
			return false
		}
		patch.Spec.EphemeralContainers[0]["addedByAdmission"] = "yes"
		f.reply(w, map[string]any{"metadata": map[string]any{"uid": "uid-api-1"}, "spec": patch.Spec})
		return true
	}
	got, err := f.client().Plan(t.Context(), target(), spec())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"addedByAdmission: \"yes\"", "--client-key", "accepted by the API server"} {
		if !strings.Contains(string(got), want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
}

// TestPlanFails: what up would fail with, and the plan all the same.
func TestPlanFails(t *testing.T) {
	for _, tt := range []struct {
		name         string
		setUp        func(*fakeAPI)
		text         []string
		reason, hint string
	}{
		{"rights", func(f *fakeAPI) { f.deny["get pods/log"], f.deny["patch pods/ephemeralcontainers"] = true, true },
			[]string{"# right to get pods/log: MISSING", "# right to patch pods/ephemeralcontainers: MISSING", "# right to watch pods: yes", "not judged", "--client-key"},
			"may not patch pods/ephemeralcontainers, get pods/log", "borrownet rbac -n shop"},
		{"no-reviews", func(f *fakeAPI) { f.ssarOff = true; f.deny["patch pods/ephemeralcontainers"] = true },
			[]string{"did not say what you may do", "refused by the API server", "--client-key"}, "user jane may not patch", "borrownet rbac -n shop"},
		{"policy", func(f *fakeAPI) {
			f.refuse = func(bool) *metav1.Status {
				return status(422, metav1.StatusReasonInvalid, `pods "api-1" is forbidden: ValidatingAdmissionPolicy 'no-debug' with binding 'b' denied request: no`)
			}
		}, []string{"refused by the API server in a dry run", "# right to get pods/log: yes", "--client-key"}, `ValidatingAdmissionPolicy "no-debug"`, "no-debug"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeAPI(t)
			f.addPod("api-1", nil)
			tt.setUp(f)
			text, err := f.client().Plan(context.Background(), target(), spec())
			wantError(t, err, tt.reason, tt.hint)
			var e *Error
			if errors.As(err, &e) && e.Op != "attach to" { // the exit code of up
				t.Errorf("operation %q, want that of Attach", e.Op)
			}
			for _, want := range tt.text {
				if !strings.Contains(string(text), want) {
					t.Errorf("no %q in:\n%s", want, text)
				}
			}
			if n := f.mutations(); n != 0 {
				t.Errorf("Plan changed the pod %d times", n)
			}
		})
	}
}

func TestProxyNotReady(t *testing.T) {
	always := api.ContainerRestartPolicyAlways
	proxy := api.Container{Name: "istio-proxy"}
	native := api.Container{Name: "istio-proxy", RestartPolicy: &always}
	state := func(ready bool) []api.ContainerStatus {
		return []api.ContainerStatus{{Name: "istio-proxy", Ready: ready}}
	}
	for _, tt := range []struct {
		name string
		edit func(*api.Pod)
		want bool
	}{
		{"no-mesh", func(*api.Pod) {}, false},
		{"classic", func(p *api.Pod) {
			p.Spec.Containers, p.Status.ContainerStatuses = append(p.Spec.Containers, proxy), state(true)
		}, false},
		{"classic-starting", func(p *api.Pod) {
			p.Spec.Containers, p.Status.ContainerStatuses = append(p.Spec.Containers, proxy), state(false)
		}, true},
		{"native", func(p *api.Pod) {
			p.Spec.InitContainers, p.Status.InitContainerStatuses = append(p.Spec.InitContainers, native), state(true)
		}, false},
		{"native-starting", func(p *api.Pod) {
			p.Spec.InitContainers, p.Status.InitContainerStatuses = append(p.Spec.InitContainers, native), state(false)
		}, true},
		{"no-status", func(p *api.Pod) { p.Spec.Containers = append(p.Spec.Containers, proxy) }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeAPI(t)
			f.addPod("api-1", tt.edit)
			var steps []string
			if _, err := f.client().Attach(context.Background(), target(), spec(), func(s string) { steps = append(steps, s) }); err != nil {
				t.Fatal(err)
			}
			got := slices.ContainsFunc(steps, func(s string) bool {
				return strings.HasPrefix(s, "warning: the pod's mesh proxy istio-proxy is not ready")
			})
			if got != tt.want {
				t.Errorf("warned %v, want %v: %q", got, tt.want, steps)
			}
		})
	}
}

func TestAttachOpenShift(t *testing.T) {
	f := newFakeAPI(t)
	p := f.addPod("api-1", nil)
	f.objects["/api/v1/namespaces/shop"] = &api.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Annotations: map[string]string{sccRange: "1000650000/10000"}}}
	if _, err := attach(t, f.client(), spec()); err != nil {
		t.Fatal(err)
	}
	if sc := p.Spec.EphemeralContainers[0].SecurityContext; sc.RunAsUser != nil || !*sc.RunAsNonRoot {
		t.Errorf("runAsUser %v, want none where the cluster assigns it", sc.RunAsUser)
	}
}
