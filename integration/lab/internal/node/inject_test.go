package node

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const objects = `apiVersion: v1
kind: ServiceAccount
metadata:
  name: istiod
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: istio-sidecar-injector
data:
  values: "{}"
  config: |-
    policy: enabled
    templates:
      sidecar: |
        {{ if .Values.pilot.cni.enabled -}}
        - name: istio-validation
        {{ else -}}
        - name: istio-init
        {{ end -}}
        {{ if .Values.global.nativeNftables -}}
        - "--native-nftables"
        {{ end -}}
---
apiVersion: v1
kind: Service
metadata:
  name: istiod
`

func TestAddTemplates(t *testing.T) {
	got, err := addTemplates([]byte(objects))
	if err != nil {
		t.Fatal(err)
	}
	docs := strings.Split(string(got), "\n---\n")
	if len(docs) != 3 || !strings.Contains(docs[0], "ServiceAccount") || !strings.Contains(docs[2], "Service") {
		t.Fatalf("the other objects are not as they were:\n%s", got)
	}
	var object struct {
		Data struct{ Config, Values string }
	}
	var config struct {
		Policy    string
		Templates map[string]string
	}
	if err := yaml.Unmarshal([]byte(docs[1]), &object); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(object.Data.Config), &config); err != nil {
		t.Fatal(err)
	}
	if object.Data.Values != "{}" || config.Policy != "enabled" || len(config.Templates) != 3 || !strings.Contains(config.Templates["sidecar"], ifPlugin) {
		t.Errorf("the rest of the configuration is not as it was: %+v", config)
	}
	for name, want := range map[string][]string{"sidecar-init": {"{{ if false -}}\n- name: istio-validation", "{{ if false -}}\n- \"--native"},
		"sidecar-nft": {"{{ if false -}}\n- name: istio-validation", "{{ if true -}}\n- \"--native"}} {
		for _, w := range want {
			if !strings.Contains(config.Templates[name], w) {
				t.Errorf("template %s does not say %q:\n%s", name, w, config.Templates[name])
			}
		}
	}
}

// A chart that is made another way is not taken for one that has the variants.
func TestAddTemplatesToAnotherChart(t *testing.T) {
	for _, old := range []string{"istio-sidecar-injector", ifPlugin, ifNFT} {
		if _, err := addTemplates([]byte(strings.ReplaceAll(objects, old, "another"))); err == nil {
			t.Errorf("objects without %s are taken", old)
		}
	}
}
