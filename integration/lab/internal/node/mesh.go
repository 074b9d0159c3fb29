package node

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/borrownet/borrownet/integration/lab/internal/cluster"
	"github.com/borrownet/borrownet/integration/lab/internal/spec"
)

const (
	// meshRunDir is where Istio's plugin looks for its credentials.
	meshRunDir     = "/run/istio-cni"
	meshKubeconfig = "istio-cni-kubeconfig"
	istioNamespace = "istio-system"
)

const meshNamespace = `apiVersion: v1
kind: Namespace
metadata: {name: ` + istioNamespace + `}
---
`

// chainMeshPlugin adds Istio's plugin to the end of the CNI configuration. It
// writes the redirect rules of pods that were injected.
func chainMeshPlugin(s spec.Spec) error {
	if err := os.Symlink(s.MeshKit("istio-cni"), filepath.Join("/opt/cni/bin", "istio-cni")); err != nil {
		return err
	}
	b, err := os.ReadFile(cniConfig)
	if err != nil {
		return err
	}
	var conf map[string]any
	if err := json.Unmarshal(b, &conf); err != nil {
		return err
	}
	plugins, _ := conf["plugins"].([]any)
	conf["plugins"] = append(plugins, map[string]any{
		"type":               "istio-cni",
		"plugin_log_level":   "info",
		"cni_agent_run_dir":  meshRunDir,
		"ambient_enabled":    false,
		"pod_namespace":      istioNamespace,
		"exclude_namespaces": []string{istioNamespace, "kube-system"},
	})
	if b, err = json.Marshal(conf); err != nil {
		return err
	}
	return write(cniConfig, b)
}

// installMesh installs Istio from its own charts and sets it to accept mutual
// TLS only. Pods of the sample namespace that are made later are in the mesh.
func installMesh(ctx context.Context, s spec.Spec, client *cluster.Client, report *Reporter) error {
	kubeconfig, err := os.ReadFile(s.Path("kubeconfig", cluster.AdminConfig))
	if err != nil {
		return err
	}
	if err := write(filepath.Join(meshRunDir, meshKubeconfig), kubeconfig); err != nil {
		return err
	}
	objects, err := os.ReadFile(s.MeshKit("istio.yaml"))
	if err != nil {
		return err
	}
	if objects, err = addTemplates(objects); err != nil {
		return err
	}
	if err := client.Create(ctx, append([]byte(meshNamespace), objects...)); err != nil {
		return err
	}
	report.Step("Istio installed")
	if err := cluster.Wait(ctx, limit, "DNS and istiod", client.Deployed); err != nil {
		return err
	}
	report.Step("istiod Ready")
	// Its webhooks refuse what they cannot check yet, so this is tried until it succeeds.
	if err := cluster.Wait(ctx, limit, "the mesh's policy", func(ctx context.Context) error {
		return client.Apply(ctx, cluster.Mesh)
	}); err != nil {
		return err
	}
	if err := cluster.Wait(ctx, limit, "the sidecar injector", client.Injects); err != nil {
		return err
	}
	if err := client.Enlist(ctx); err != nil {
		return err
	}
	report.Step("mesh is STRICT")
	return nil
}
