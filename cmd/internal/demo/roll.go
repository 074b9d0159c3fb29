package demo

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/borrownet/borrownet/agent/kube"
)

// maxRolled bounds the pods that a world replaces: each has an address of its own.
const maxRolled = 50

// Roll replaces the pod of deploy/api, as a rollout does: the new one has another name
// and another address, and agents in the old one end. It returns the new pod's name.
func (w *World) Roll() (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return "", net.ErrClosed
	}
	if w.rolled == maxRolled {
		return "", fmt.Errorf("%d pods were replaced already", w.rolled)
	}
	i := slices.IndexFunc(w.pods, func(p *pod) bool { return p.workload == "deploy/api" })
	old := w.pods[i]
	w.rolled++
	addrs := []netip.Addr{later(apiAddr, 100+w.rolled), later(apiAddr6, w.rolled)}
	name := "api-7d9f6c5b4-" + strings.ToLower(rand.Text()[:5])
	stack, err := w.ether.join(name, addrs...)
	if err != nil {
		return "", err
	}
	w.pods[i] = &pod{
		name: name, uid: rand.Text(), workload: old.workload, container: old.container, addrs: addrs, stack: stack, ether: w.ether, env: environment("api", name),
	}
	for _, r := range w.agents {
		if r.pod == old {
			r.kill()
		}
	}
	return name, nil
}

// later returns the address that is n further.
func later(a netip.Addr, n int) netip.Addr {
	for range n {
		a = a.Next()
	}
	return a
}

// list are the pods that there are now.
func (w *World) list() []*pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.pods)
}

// Fate looks what has become of a target, as kube.Client does.
func (w *World) Fate(t *kube.Target) kube.Fate {
	if w.pod(t.UID) == nil {
		return kube.Fate{Gone: "pod " + t.Pod + " no longer exists"}
	}
	return kube.Fate{Ready: true, Agents: w.Agents(t)}
}

// Successor finds the pod to go on with after t was lost.
func (w *World) Successor(t *kube.Target) (*kube.Target, error) {
	return w.Resolve(t.Namespace, t.Workload, t.Container)
}
