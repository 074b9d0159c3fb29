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
	"slices"

	"sigs.k8s.io/yaml"
)

//go:embed manifests/*.yaml
var manifests embed.FS

// resources maps the kinds that the manifests use to the names in URLs.
var resources = map[string]string{
	"Namespace":          "namespaces",
	"ServiceAccount":     "serviceaccounts",
	"ConfigMap":          "configmaps",
	"Service":            "services",
	"Deployment":         "deployments",
	"Role":               "roles",
	"RoleBinding":        "rolebindings",
	"ClusterRole":        "clusterroles",
	"ClusterRoleBinding": "clusterrolebindings",
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

// Apply creates every object of the embedded manifests, file by file in the
// order of their names.
func (c *Client) Apply(ctx context.Context) error {
	objects, err := embedded()
	if err != nil {
		return err
	}
	for _, o := range objects {
		path, err := o.collection()
		if err != nil {
			return err
		}
		if _, err := c.do(ctx, http.MethodPost, path, o.json); err != nil {
			return fmt.Errorf("create %s %s: %w", o.Kind, o.Metadata.Name, err)
		}
	}
	return nil
}

func embedded() ([]object, error) {
	files, err := fs.Glob(manifests, "manifests/*.yaml")
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	var all []object
	for _, file := range files {
		b, err := manifests.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for _, doc := range bytes.Split(b, []byte("\n---\n")) {
			o, err := parseObject(doc)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			all = append(all, o)
		}
	}
	return all, nil
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
