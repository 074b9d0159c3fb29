package kube

import (
	"fmt"
	"slices"

	"github.com/borrownet/borrownet/agent/kube/api"
)

const (
	// defaultID is the agent's uid and gid where the container's own cannot be
	// had: the conventional "nonroot" of minimal images.
	defaultID = 65532
	istioID   = 1337 // default uid and gid of Istio's proxy
	linkerdID = 2102 // default uid and gid of Linkerd's proxy

	// sccRange is set on namespaces where OpenShift assigns uids: there a fixed
	// one outside the range is refused.
	sccRange = "openshift.io/sa.scc.uid-range"
)

// identity is what the agent runs as; nil = left to the cluster.
type identity struct {
	uid, gid *int64
	note     string // why it is not the container's own; empty if it is
}

// chooseIdentity returns the uid and gid for an agent that borrows from
// container. A mesh's rules exempt the proxy by its uid and gid, so an agent
// that had either would bypass the mesh: it never gets them. assigned says
// that the cluster assigns uids by itself.
func chooseIdentity(pod *api.Pod, container *api.Container, assigned bool) identity {
	uid, gid := idsOf(pod, container)
	proxyUIDs, proxyGIDs := proxyIDs(pod)
	switch {
	case uid == nil && assigned:
		return identity{}
	case uid == nil:
		return identity{uid: freeID(proxyUIDs, proxyGIDs), gid: freeID(proxyUIDs, proxyGIDs)}
	case *uid == 0:
		id := freeID(proxyUIDs, proxyGIDs)
		if assigned {
			return identity{note: "the container runs as root, the agent never does"}
		}
		return identity{id, id, fmt.Sprintf("the container runs as root, the agent never does: it runs as %d", *id)}
	case slices.Contains(proxyUIDs, *uid) || slices.Contains(proxyGIDs, gidOf(gid)):
		id := freeID(proxyUIDs, proxyGIDs)
		if assigned {
			return identity{note: "the container has the mesh proxy's uid or gid, which would bypass the mesh: the agent gets another"}
		}
		return identity{id, id, fmt.Sprintf("the container has the mesh proxy's uid or gid, which would bypass the mesh: the agent runs as %d", *id)}
	}
	return identity{uid: uid, gid: gid}
}

// idsOf returns the uid and gid that the spec gives to a container.
func idsOf(pod *api.Pod, container *api.Container) (uid, gid *int64) {
	if sc := pod.Spec.SecurityContext; sc != nil {
		uid, gid = sc.RunAsUser, sc.RunAsGroup
	}
	if sc := container.SecurityContext; sc != nil {
		if sc.RunAsUser != nil {
			uid = sc.RunAsUser
		}
		if sc.RunAsGroup != nil {
			gid = sc.RunAsGroup
		}
	}
	return uid, gid
}

// proxyIDs returns the uids and gids of the mesh proxies in pod, the usual
// ones included: the rules may have been written by something outside the pod.
func proxyIDs(pod *api.Pod) (uids, gids []int64) {
	uids, gids = []int64{istioID, linkerdID}, []int64{istioID, linkerdID}
	for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
		if !slices.Contains(proxyContainers(), c.Name) {
			continue
		}
		uid, gid := idsOf(pod, &c)
		if uid != nil {
			uids = append(uids, *uid)
		}
		if gid != nil {
			gids = append(gids, *gid)
		}
	}
	return uids, gids
}

// gidOf is the gid of a process with the agent's image: without one in the
// spec, container runtimes take 0 for a uid that the image does not know.
func gidOf(gid *int64) int64 {
	if gid == nil {
		return 0
	}
	return *gid
}

// proxyTrouble says why what goes through the pod's mesh proxy may fail now,
// or "".
func proxyTrouble(pod *api.Pod) string {
	for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
		if !slices.Contains(proxyContainers(), c.Name) {
			continue
		}
		ready := false
		for _, s := range slices.Concat(pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses) {
			ready = ready || s.Name == c.Name && s.Ready
		}
		if !ready {
			return "warning: the pod's mesh proxy " + c.Name + " is not ready: connections may fail until it is"
		}
	}
	return ""
}

// freeID returns the first id from defaultID downwards that is in no list.
func freeID(lists ...[]int64) *int64 {
	taken := slices.Concat(lists...)
	id := int64(defaultID)
	for slices.Contains(taken, id) {
		id--
	}
	return &id
}
