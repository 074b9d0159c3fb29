package demo

import (
	"github.com/borrownet/borrownet/agent/kube"
)

// Offers says what can be borrowed in a namespace and who does, as a cluster would
// that keeps nothing from the user.
func (w *World) Offers(namespace string) (*kube.Offers, error) {
	if namespace != Namespace && namespace != kube.AllNamespaces {
		return nil, noNamespace("pods", namespace)
	}
	out := &kube.Offers{
		Context: Context, Namespaces: []kube.Surrounding{{Name: Namespace, PodSecurity: "default", RightsKnown: true}},
	}
	for _, t := range w.Targets() {
		out.Targets = append(out.Targets, kube.Offer{
			Namespace: t.Namespace, Ref: t.Workload, Pods: 1, Ready: 1, PodNames: []string{t.Pod}, Nodes: []string{t.Node}, Container: t.Container, Containers: []string{t.Container},
			Borrowers: w.borrowers(t),
		})
	}
	return out, nil
}

// borrowers are the agents in the target's pod that run.
func (w *World) borrowers(t *kube.Target) []kube.Borrower {
	w.mu.Lock()
	defer w.mu.Unlock()
	served := map[string]bool{}
	for _, container := range w.carriers {
		served[container] = true
	}
	var out []kube.Borrower
	for _, r := range w.agents {
		if r.ended || r.pod.uid != t.UID {
			continue
		}
		b := kube.Borrower{Pod: t.Pod, UID: t.UID, Container: r.container, ClientKey: r.spec.ClientKey, State: kube.Parked, Since: r.started}
		if served[r.container] {
			b.State = kube.Borrowed
		}
		out = append(out, b)
	}
	return out
}
