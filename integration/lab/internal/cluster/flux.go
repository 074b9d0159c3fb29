package cluster

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path"
)

const (
	fluxNamespace = "flux-system"
	archiveName   = "lab.tar.gz"
	archiveURL    = "http://127.0.0.1:9090/" + archiveName // inside of the controller's pod
	repository    = "/apis/source.toolkit.fluxcd.io/v1/namespaces/" + fluxNamespace + "/gitrepositories/lab"
	kustomization = "/apis/kustomize.toolkit.fluxcd.io/v1/namespaces/" + fluxNamespace + "/kustomizations/shop"
)

const namespaceOfFlux = `apiVersion: v1
kind: Namespace
metadata: {name: ` + fluxNamespace + `}
---
`

// StoreSource creates the archive of the Git-like source where the controller's pod
// will serve it: the sample workloads and the bare pod, each in a directory of its
// group's name.
func (c *Client) StoreSource(ctx context.Context) error {
	archive, err := archive(Workloads, Bare)
	if err != nil {
		return err
	}
	store, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata":   map[string]string{"name": "archives", "namespace": fluxNamespace},
		"binaryData": map[string][]byte{archiveName: archive},
	})
	if err != nil {
		return err
	}
	return c.Create(ctx, append([]byte(namespaceOfFlux), store...))
}

// ServesFlux reports, as nil, that the API server knows the kinds that the controller
// looks for when it starts.
func (c *Client) ServesFlux(ctx context.Context) error {
	for _, list := range []string{
		"/apis/kustomize.toolkit.fluxcd.io/v1/kustomizations",
		"/apis/source.toolkit.fluxcd.io/v1/gitrepositories",
		"/apis/source.toolkit.fluxcd.io/v1/ocirepositories",
		"/apis/source.toolkit.fluxcd.io/v1/buckets",
	} {
		if err := c.get(ctx, list, nil); err != nil {
			return err
		}
	}
	return nil
}

// Reconcile hands the sample workloads over: the controller creates them and keeps
// them as they are in the source.
func (c *Client) Reconcile(ctx context.Context) error {
	if err := c.Apply(ctx, GitOps); err != nil {
		return err
	}
	archive, err := archive(Workloads, Bare)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(archive)
	const past = "2026-01-01T00:00:00Z"
	// What source-controller writes when it has fetched a repository.
	status, err := json.Marshal(map[string]any{"status": map[string]any{
		"observedGeneration": 1,
		"conditions": []map[string]any{{
			"type": "Ready", "status": "True", "reason": "Succeeded", "message": "stored artifact",
			"observedGeneration": 1, "lastTransitionTime": past,
		}},
		"artifact": map[string]any{
			"url": archiveURL, "path": archiveName, "size": len(archive),
			"digest":         "sha256:" + hex.EncodeToString(digest[:]),
			"revision":       "main@sha1:" + hex.EncodeToString(digest[:20]),
			"lastUpdateTime": past,
		},
	}})
	if err != nil {
		return err
	}
	_, err = c.do(ctx, http.MethodPatch, repository+"/status", status)
	return err
}

// Reconciled reports, as nil, that the controller has applied the sample workloads.
func (c *Client) Reconciled(ctx context.Context) error {
	var k struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := c.get(ctx, kustomization, &k); err != nil {
		return err
	}
	for _, cond := range k.Status.Conditions {
		if cond.Type == "Ready" && cond.Status == "True" {
			return nil
		}
		if cond.Type == "Ready" {
			return fmt.Errorf("not applied: %s", cond.Message)
		}
	}
	return errors.New("not applied: the controller has said nothing yet")
}

// archive packs groups of embedded manifests, each into a directory of its name.
// The same manifests give the same bytes.
func archive(groups ...string) ([]byte, error) {
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	tw := tar.NewWriter(zw)
	for _, group := range groups {
		files, err := fs.Glob(manifests, path.Join("manifests", group, "*.yaml"))
		if err != nil {
			return nil, err
		}
		for _, file := range files { // Glob's order is that of the names
			text, err := manifests.ReadFile(file)
			if err != nil {
				return nil, err
			}
			header := &tar.Header{Name: path.Join(group, path.Base(file)), Mode: 0o644, Size: int64(len(text))}
			if err := tw.WriteHeader(header); err != nil {
				return nil, err
			}
			if _, err := tw.Write(text); err != nil {
				return nil, err
			}
		}
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	err := zw.Close()
	return b.Bytes(), err
}
