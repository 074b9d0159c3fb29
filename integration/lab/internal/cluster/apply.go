package cluster

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"slices"

	"sigs.k8s.io/yaml"
)

//go:embed manifests
var manifests embed.FS

// resources maps the kinds that the manifests use to the names in URLs.
var resources = map[string]string{
	"Namespace":          "namespaces",
	"ServiceAccount":     "serviceaccounts",
	"ConfigMap":          "configmaps",
	"Secret":             "secrets",
	"Service":            "services",
	"Deployment":         "deployments",
	"Role":               "roles",
	"RoleBinding":        "rolebindings",
	"ClusterRole":        "clusterroles",
	"ClusterRoleBinding": "clusterrolebindings",

	"CustomResourceDefinition":       "customresourcedefinitions",
	"MutatingWebhookConfiguration":   "mutatingwebhookconfigurations",
	"ValidatingWebhookConfiguration": "validatingwebhookconfigurations",
	"PeerAuthentication":             "peerauthentications",
	"GitRepository":                  "gitrepositories",
	"Kustomization":                  "kustomizations",
}

type object struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`

	json []byte
}

// Groups of embedded manifests.
const (
	System    = "system"    // namespaces, rights and DNS
	Workloads = "workloads" // the sample pods and their Services
	Mesh      = "mesh"      // what the lab sets in a mesh, and the pods outside of it
	Flux      = "flux"      // the GitOps controller
	GitOps    = "gitops"    // what it is told to keep as it is in the source
	Bare      = "bare"      // a pod that is in the source only
)

// Apply creates every object of a group of embedded manifests, file by file in
// the order of their names.
func (c *Client) Apply(ctx context.Context, group string) error {
	files, err := fs.Glob(manifests, path.Join("manifests", group, "*.yaml"))
	if err != nil {
		return err
	}
	slices.Sort(files)
	for _, file := range files {
		b, err := manifests.ReadFile(file)
		if err != nil {
			return err
		}
		if err := c.Create(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

// Create creates the objects of a YAML stream. Those that exist stay as they are.
func (c *Client) Create(ctx context.Context, stream []byte) error {
	for _, doc := range bytes.Split(stream, []byte("\n---\n")) {
		o, err := parseObject(doc)
		if err != nil {
			return err
		}
		collection, err := o.collection()
		if err != nil {
			return err
		}
		var status *statusError
		_, err = c.do(ctx, http.MethodPost, collection, o.json)
		if err != nil && !(errors.As(err, &status) && status.code == http.StatusConflict) {
			return fmt.Errorf("create %s %s: %w", o.Kind, o.Metadata.Name, err)
		}
	}
	return nil
}

func parseObject(doc []byte) (object, error) {
	var o object
	b, err := yaml.YAMLToJSONStrict(doc)
	if err != nil {
		return o, err
	}
	if err := json.Unmarshal(b, &o); err != nil {
		return o, err
	}
	if o.Metadata.Name == "" {
		return o, errors.New("an object has no name")
	}
	o.json = b
	return o, nil
}

// collection is the path that a new object is posted to.
func (o object) collection() (string, error) {
	resource := resources[o.Kind]
	if resource == "" {
		return "", fmt.Errorf("kind %s of %s is not known to the lab", o.Kind, o.Metadata.Name)
	}
	base := "/apis/" + o.APIVersion
	if o.APIVersion == "v1" {
		base = "/api/v1"
	}
	if o.Metadata.Namespace != "" {
		base += "/namespaces/" + o.Metadata.Namespace
	}
	return base + "/" + resource, nil
}
