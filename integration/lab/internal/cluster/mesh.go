package cluster

import (
	"context"
	"errors"
	"net/http"

	"github.com/borrownet/borrownet/integration/lab/internal/spec"
)

// injector is Istio's webhook that adds the sidecar to new pods.
const injector = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/istio-sidecar-injector"

// Injects reports, as nil, that pods can be made in a meshed namespace: istiod
// has written its certificate where the API server looks for it.
func (c *Client) Injects(ctx context.Context) error {
	var conf struct {
		Webhooks []struct {
			ClientConfig struct{ CABundle string }
		}
	}
	if err := c.get(ctx, injector, &conf); err != nil {
		return err
	}
	if len(conf.Webhooks) == 0 {
		return errors.New("the injector has no webhooks")
	}
	for _, w := range conf.Webhooks {
		if w.ClientConfig.CABundle == "" {
			return errors.New("the injector's webhooks have no CA bundle")
		}
	}
	return nil
}

// Enlist has pods that are made in the sample namespace from now on injected.
func (c *Client) Enlist(ctx context.Context) error {
	patch := []byte(`{"metadata":{"labels":{"istio-injection":"enabled"}}}`)
	_, err := c.do(ctx, http.MethodPatch, "/api/v1/namespaces/"+spec.Namespace, patch)
	return err
}
