package kube

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/borrownet/borrownet/agent/kube/api"
	"github.com/borrownet/borrownet/agent/wire"
)

// fakeAPI is an API server that knows the few endpoints the package uses.
type fakeAPI struct {
	t   *testing.T
	srv *httptest.Server

	serving sync.WaitGroup // requests that are being answered; what is hijacked, or HTTP/2, srv does not wait for

	mu        sync.Mutex
	over      bool // no request is answered any more
	rv        int
	pods      map[string]*api.Pod // by namespace/name
	deleted   []*api.Pod
	objects   map[string]any // by URL path
	watchers  []chan []byte
	calls     []string                                      // "verb resource[/sub]" and flags, in order
	deny      map[string]bool                               // "verb resource[/sub]" refused by RBAC
	ssarOff   bool                                          // access reviews are forbidden too
	refuse    func(dry bool) *metav1.Status                 // admission of ephemeral containers
	kubelet   func(p *api.Pod, container string)            // what becomes of an added agent; runs locked
	logs      map[string]string                             // by container
	intercept func(http.ResponseWriter, *http.Request) bool // true = answered
}

func newFakeAPI(t *testing.T) *fakeAPI {
	t.Helper()
	f := &fakeAPI{
		t: t, rv: 100, pods: map[string]*api.Pod{}, objects: map[string]any{}, deny: map[string]bool{}, logs: map[string]string{},
	}
	f.kubelet = func(p *api.Pod, container string) { f.setState(p, container, running()) }
	f.objects["/api/v1/namespaces/shop"] = &api.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
	f.srv = httptest.NewUnstartedServer(http.HandlerFunc(f.serve))
	f.srv.EnableHTTP2 = true
	f.srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	f.srv.StartTLS()
	t.Cleanup(func() {
		f.mu.Lock()
		for _, w := range f.watchers {
			close(w)
		}
		f.watchers = nil
		f.mu.Unlock()
		f.srv.CloseClientConnections()
		f.srv.Close()
		f.mu.Lock()
		f.over = true
		f.mu.Unlock()
		f.serving.Wait()
	})
	return f
}

// kubeconfig writes a kubeconfig for the server and returns its path.
func (f *fakeAPI) kubeconfig(user string) string {
	f.t.Helper()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.srv.Certificate().Raw})
	return writeKubeconfig(f.t, f.srv.URL, "certificate-authority-data: "+base64.StdEncoding.EncodeToString(ca), user)
}

func writeKubeconfig(t *testing.T, server, cluster, user string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: lab
contexts: [{name: lab, context: {cluster: c, user: u, namespace: shop}}]
clusters: [{name: c, cluster: {server: %q, %s}}]
users: [{name: u, user: {%s}}]
`, server, cluster, user)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (f *fakeAPI) client() *Client {
	f.t.Helper()
	c, err := New(Flags{Kubeconfig: f.kubeconfig("token: secret")})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	n := 0
	c.suffix = func() string { n++; return strconv.Itoa(n) }
	return c
}

// addPod puts a pod into the cluster, running and ready unless edit says otherwise.
func (f *fakeAPI) addPod(name string, edit func(*api.Pod)) *api.Pod {
	p := &api.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", UID: types.UID("uid-" + name), Labels: map[string]string{"app": "api"}},
		Spec:       api.PodSpec{NodeName: "node-1", Containers: []api.Container{{Name: "app", Image: "registry.example.org/app:1"}}},
		Status: api.PodStatus{
			Phase: api.PodRunning, HostIP: "192.0.2.1", PodIP: "198.51.100.7",
			PodIPs:     []api.PodIP{{IP: "198.51.100.7"}, {IP: "2001:db8::7"}},
			Conditions: []api.PodCondition{{Type: api.PodReady, Status: api.ConditionTrue}},
		},
	}
	if edit != nil {
		edit(p)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rv++
	p.ResourceVersion = strconv.Itoa(f.rv)
	f.pods[p.Namespace+"/"+p.Name] = p
	return p
}

func (f *fakeAPI) addWorkload(k, name string, labels map[string]string) {
	kd, ok := findKind(k)
	if !ok {
		f.t.Fatalf("no kind %s", k)
	}
	path := "/api/v1/namespaces/shop/" + kd.resource + "/" + name
	var selector any = map[string]any{"matchLabels": labels}
	if kd.group != "" {
		path = "/apis/" + kd.group + "/v1/namespaces/shop/" + kd.resource + "/" + name
	}
	if kd.flat {
		selector = labels
	}
	f.objects[path] = map[string]any{"metadata": map[string]any{"name": name}, "spec": map[string]any{"selector": selector}}
}

func running() api.ContainerState {
	return api.ContainerState{Running: &api.ContainerStateRunning{StartedAt: metav1.NewTime(time.Unix(1700000000, 0))}}
}

func waiting(reason, message string) api.ContainerState {
	return api.ContainerState{Waiting: &api.ContainerStateWaiting{Reason: reason, Message: message}}
}

func terminated(code int32, reason, message string) api.ContainerState {
	return api.ContainerState{Terminated: &api.ContainerStateTerminated{ExitCode: code, Reason: reason, Message: message}}
}

// setState gives an ephemeral container a state and tells the watchers. f.mu is held.
func (f *fakeAPI) setState(p *api.Pod, container string, s api.ContainerState) {
	if st := statusOf(p, container); st != nil {
		st.State = s
	} else {
		p.Status.EphemeralContainerStatuses = append(p.Status.EphemeralContainerStatuses, api.ContainerStatus{Name: container, State: s})
	}
	f.rv++
	p.ResourceVersion = strconv.Itoa(f.rv)
	f.notify("MODIFIED", p)
}

// notify tells the watchers. f.mu is held.
func (f *fakeAPI) notify(kind string, object any) {
	b, err := json.Marshal(map[string]any{"type": kind, "object": object})
	if err != nil {
		f.t.Error(err)
	}
	for _, w := range f.watchers {
		w <- b
	}
}

// remove takes p out of the cluster and tells the watchers, later ones too. f.mu is held.
func (f *fakeAPI) remove(p *api.Pod) {
	delete(f.pods, p.Namespace+"/"+p.Name)
	f.rv++
	p.ResourceVersion = strconv.Itoa(f.rv)
	f.deleted = append(f.deleted, p)
	f.notify("DELETED", p)
}

// enter notes that a request is being answered; leave with f.serving.Done.
func (f *fakeAPI) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.over {
		f.serving.Add(1)
	}
	return !f.over
}

func hello() string {
	b, err := json.Marshal(wire.Hello{Borrownet: "agent", Protocol: wire.Protocol, Version: "1.0", PublicKey: "key", Port: 40000})
	if err != nil {
		panic(err)
	}
	return string(b) + "\n"
}

func status(code int, reason metav1.StatusReason, message string) *metav1.Status {
	return &metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Code: int32(code), Reason: reason, Message: message}
}

func (f *fakeAPI) reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if s, ok := v.(*metav1.Status); ok {
		w.WriteHeader(int(s.Code))
	}
	if err := json.NewEncoder(w).Encode(v); err != nil {
		f.t.Log(err)
	}
}

// serve routes a request. Paths are /api/v1/namespaces/NS/RESOURCE[/NAME[/SUB]].
func (f *fakeAPI) serve(w http.ResponseWriter, r *http.Request) {
	if !f.enter() {
		return
	}
	defer f.serving.Done()
	if f.intercept != nil && f.intercept(w, r) {
		return
	}
	if r.Header.Get("Authorization") != "Bearer secret" {
		f.reply(w, status(401, metav1.StatusReasonUnauthorized, "Unauthorized"))
		return
	}
	parts := append(strings.Split(strings.Trim(r.URL.Path, "/"), "/"), "", "", "", "", "", "", "")
	rest := parts[2:]
	if parts[0] == "apis" {
		rest = parts[3:]
	}
	ns := ""
	if rest[0] == "namespaces" && rest[2] != "" {
		ns, rest = rest[1], rest[2:]
	}
	resource, name, sub := rest[0], rest[1], rest[2]
	verb := map[string]string{"GET": "get", "POST": "create", "PATCH": "patch"}[r.Method]
	if verb == "get" && name == "" {
		verb = "list"
	}
	if r.URL.Query().Get("watch") != "" {
		verb = "watch"
	}
	call := strings.TrimSuffix(verb+" "+resource+"/"+sub, "/")
	f.mu.Lock()
	defer f.mu.Unlock()
	mark := call
	if r.URL.Query().Get("dryRun") != "" {
		mark += " dry-run"
	}
	f.calls = append(f.calls, mark)
	if f.deny[call] {
		f.reply(w, status(403, metav1.StatusReasonForbidden, fmt.Sprintf(`%s %q is forbidden: User "jane" cannot %s resource %q in API group "" in the namespace %q`,
			resource, name, verb, strings.TrimPrefix(call, verb+" "), ns)))
		return
	}
	pod := f.pods[ns+"/"+name]
	switch {
	case resource == "selfsubjectaccessreviews":
		f.review(w, r)
	case resource == "selfsubjectreviews":
		f.reply(w, map[string]any{"status": map[string]any{"userInfo": map[string]any{"username": "jane"}}})
	case resource != "pods":
		if o := f.objects[r.URL.Path]; o != nil {
			f.reply(w, o)
			return
		}
		f.reply(w, status(404, metav1.StatusReasonNotFound, resource+` "`+name+`" not found`))
	case verb == "list":
		f.list(w, r, ns)
	case verb == "watch":
		f.watch(w, r)
	case pod == nil:
		f.reply(w, status(404, metav1.StatusReasonNotFound, `pods "`+name+`" not found`))
	case sub == "":
		f.reply(w, pod)
	case sub == "log":
		f.log(w, r, pod)
	case sub == "ephemeralcontainers":
		f.attach(w, r, pod)
	default:
		f.reply(w, status(404, metav1.StatusReasonNotFound, "the server could not find the requested resource"))
	}
}

func (f *fakeAPI) review(w http.ResponseWriter, r *http.Request) {
	var ssar api.SelfSubjectAccessReview
	if err := json.NewDecoder(r.Body).Decode(&ssar); err != nil || f.ssarOff {
		f.reply(w, status(403, metav1.StatusReasonForbidden, "no reviews"))
		return
	}
	a := ssar.Spec.ResourceAttributes
	ssar.Status.Allowed = !f.deny[strings.TrimSuffix(a.Verb+" "+a.Resource+"/"+a.Subresource, "/")]
	f.reply(w, ssar)
}

func (f *fakeAPI) list(w http.ResponseWriter, r *http.Request, ns string) {
	var out api.PodList
	selector, err := metav1.ParseToLabelSelector(r.URL.Query().Get("labelSelector"))
	if err != nil {
		f.t.Error(err)
	}
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		f.t.Error(err)
	}
	for _, p := range f.pods {
		if (ns == "" || p.Namespace == ns) && (r.URL.Query().Get("labelSelector") == "" || s.Matches(labels.Set(p.Labels))) {
			out.Items = append(out.Items, *p)
		}
	}
	f.reply(w, out)
}

// watch streams changes until the request ends. f.mu is held on entry and exit.
func (f *fakeAPI) watch(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name=")
	events := make(chan []byte, 100)
	missed := func(kind string, p *api.Pod) {
		rv, _ := strconv.Atoi(p.ResourceVersion)
		since, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
		if p.Name != name || rv <= since {
			return
		}
		b, err := json.Marshal(map[string]any{"type": kind, "object": p})
		if err != nil {
			f.t.Error(err)
		}
		events <- b
	}
	for _, p := range f.pods {
		missed("MODIFIED", p)
	}
	for _, p := range f.deleted {
		missed("DELETED", p)
	}
	f.watchers = append(f.watchers, events)
	f.mu.Unlock()
	defer f.mu.Lock()
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
	for {
		select {
		case b, ok := <-events:
			if !ok {
				return
			}
			_, _ = w.Write(append(b, '\n'))
			w.(http.Flusher).Flush()
		case <-r.Context().Done():
			f.mu.Lock()
			f.watchers = slices.DeleteFunc(f.watchers, func(c chan []byte) bool { return c == events })
			f.mu.Unlock()
			return
		}
	}
}

// log serves a container's output; follow holds the stream open while it runs.
func (f *fakeAPI) log(w http.ResponseWriter, r *http.Request, pod *api.Pod) {
	container := r.URL.Query().Get("container")
	s := statusOf(pod, container)
	if s == nil || s.State.Waiting != nil {
		f.reply(w, status(400, metav1.StatusReasonBadRequest, `container "`+container+`" in pod is waiting to start: ContainerCreating`))
		return
	}
	text, follow := f.logs[container], r.URL.Query().Get("follow") != "" && s.State.Running != nil
	if _, ok := f.logs[container]; !ok {
		text = hello()
	}
	f.mu.Unlock()
	defer f.mu.Lock()
	_, _ = io.WriteString(w, text)
	w.(http.Flusher).Flush()
	if follow {
		<-r.Context().Done()
	}
}

func (f *fakeAPI) attach(w http.ResponseWriter, r *http.Request, pod *api.Pod) {
	if got := r.Header.Get("Content-Type"); got != strategicMerge || r.URL.Query().Get("fieldManager") != FieldManager {
		f.t.Errorf("patch with content type %q and query %s", got, r.URL.RawQuery)
	}
	dry := r.URL.Query().Get("dryRun") != ""
	var patch api.Pod
	if err := json.NewDecoder(r.Body).Decode(&patch); err != nil || len(patch.Spec.EphemeralContainers) != 1 {
		f.t.Errorf("patch: %v, %d containers", err, len(patch.Spec.EphemeralContainers))
	}
	if f.refuse != nil {
		if s := f.refuse(dry); s != nil {
			f.reply(w, s)
			return
		}
	}
	after := *pod
	after.Spec.EphemeralContainers = append(slices.Clip(pod.Spec.EphemeralContainers), patch.Spec.EphemeralContainers[0])
	if !dry {
		f.rv++
		after.ResourceVersion = strconv.Itoa(f.rv)
		*pod = after
	}
	f.reply(w, &after)
	if !dry {
		f.kubelet(pod, patch.Spec.EphemeralContainers[0].Name)
	}
}

// mutations returns the calls that changed something.
func (f *fakeAPI) mutations() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, c := range f.calls {
		if strings.HasPrefix(c, "patch") && !strings.HasSuffix(c, "dry-run") {
			n++
		}
	}
	return n
}

func toYAML(t *testing.T, v any) []byte {
	t.Helper()
	b, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
