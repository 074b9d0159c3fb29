package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"

	"github.com/coreos/go-oidc/v3/oidc"
	"k8s.io/client-go/rest"
)

// issuer is that of the lab's API server.
const issuer = "https://kubernetes.default.svc.cluster.local"

// cluster is what the stand-ins ask the API server.
type cluster struct {
	base string
	http *http.Client
	keys oidc.KeySet
}

// newCluster keeps ctx for as long as keys are fetched.
func newCluster(ctx context.Context) (*cluster, error) {
	cfg, err := rest.InClusterConfig()
	if err != nil {
		return nil, err
	}
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, err
	}
	ctx = oidc.ClientContext(ctx, client)
	return &cluster{base: cfg.Host, http: client, keys: oidc.NewRemoteKeySet(ctx, cfg.Host+"/openid/v1/jwks")}, nil
}

// identity is what the API server signed about a pod.
type identity struct {
	subject, podUID string
}

// verify checks a token as clouds do: signature by the cluster's published keys,
// issuer, audience and expiry.
func (c *cluster) verify(ctx context.Context, token, audience string) (identity, error) {
	got, err := oidc.NewVerifier(issuer, c.keys, &oidc.Config{ClientID: audience, SupportedSigningAlgs: []string{oidc.RS256, oidc.ES256}}).Verify(ctx, token)
	if err != nil {
		return identity{}, err
	}
	var claims struct {
		Kubernetes struct {
			Pod struct {
				UID string `json:"uid"`
			} `json:"pod"`
		} `json:"kubernetes.io"`
	}
	if err := got.Claims(&claims); err != nil {
		return identity{}, err
	}
	if claims.Kubernetes.Pod.UID == "" {
		return identity{}, errors.New("the token is bound to no pod")
	}
	return identity{got.Subject, claims.Kubernetes.Pod.UID}, nil
}

// pod is what the stand-ins need to know of one.
type pod struct {
	Metadata struct {
		Namespace string `json:"namespace"`
		UID       string `json:"uid"`
	} `json:"metadata"`
	Spec struct {
		ServiceAccountName string `json:"serviceAccountName"`
		HostNetwork        bool   `json:"hostNetwork"`
	} `json:"spec"`
	Status struct {
		PodIPs []struct {
			IP string `json:"ip"`
		} `json:"podIPs"`
	} `json:"status"`
}

// podAt returns the pod that has an address for itself.
func (c *cluster) podAt(ctx context.Context, ip string) (pod, error) {
	var list struct {
		Items []pod `json:"items"`
	}
	if err := c.get(ctx, "/api/v1/pods?"+url.Values{"fieldSelector": {"status.phase=Running"}}.Encode(), &list); err != nil {
		return pod{}, err
	}
	for _, p := range list.Items {
		if !p.Spec.HostNetwork && slices.ContainsFunc(p.Status.PodIPs, func(a struct {
			IP string `json:"ip"`
		}) bool {
			return a.IP == ip
		}) {
			return p, nil
		}
	}
	return pod{}, fmt.Errorf("no pod has the address %s", ip)
}

// annotation returns one of the ServiceAccount of a pod, or "".
func (c *cluster) annotation(ctx context.Context, p pod, name string) (string, error) {
	var account struct {
		Metadata struct {
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
	}
	err := c.get(ctx, "/api/v1/namespaces/"+p.Metadata.Namespace+"/serviceaccounts/"+p.Spec.ServiceAccountName, &account)
	return account.Metadata.Annotations[name], err
}

func (c *cluster) get(ctx context.Context, path string, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return fmt.Errorf("GET %s: %s: %s", path, resp.Status, text)
	}
	return json.NewDecoder(resp.Body).Decode(out)
}
