package node

import (
	"context"
	"os"

	"github.com/borrownet/borrownet/integration/lab/internal/cluster"
	"github.com/borrownet/borrownet/integration/lab/internal/spec"
)

// installFlux creates Flux's kinds and its kustomize-controller, which nothing has to
// wait for yet.
func installFlux(ctx context.Context, s spec.Spec, client *cluster.Client) error {
	kinds, err := os.ReadFile(s.FluxKit("flux-kinds.yaml"))
	if err != nil {
		return err
	}
	if err := client.Create(ctx, kinds); err != nil {
		return err
	}
	// The controller looks for them once, when it starts.
	if err := cluster.Wait(ctx, limit, "the kinds of Flux", client.ServesFlux); err != nil {
		return err
	}
	if err := client.StoreSource(ctx); err != nil {
		return err
	}
	return client.Apply(ctx, cluster.Flux)
}
