package kube

import (
	"context"
	"slices"
)

// Replicas returns the workload that ref means, or leads to, and the names of its pods
// that are ready; first the one that Resolve takes, ready or not. A pod that belongs to
// no workload is alone, and the workload empty then.
func (c *Client) Replicas(ctx context.Context, ref string) (workload string, pods []string, err error) {
	t, err := c.Resolve(ctx, ref, "")
	if err != nil {
		return "", nil, err
	}
	pods = []string{t.Pod}
	if t.Workload == "" {
		return "", pods, nil
	}
	set, err := c.podsOfWorkload(ctx, t.Workload)
	if err != nil {
		return "", nil, err
	}
	slices.SortFunc(set.pods, byPreference)
	for _, p := range set.pods {
		if p.Name != t.Pod && c.unusable(p) == nil && isReady(p) {
			pods = append(pods, p.Name)
		}
	}
	return t.Workload, pods, nil
}
