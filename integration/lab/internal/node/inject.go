package node

import (
	"bytes"
	"fmt"
	"strings"

	"sigs.k8s.io/yaml"
)

// injectorConfig is the ConfigMap that has the templates of sidecars.
const injectorConfig = "istio-sidecar-injector"

// What the chart's template asks for, and what is put in its place.
const (
	ifPlugin = ".Values.pilot.cni.enabled"
	ifNFT    = ".Values.global.nativeNftables"
)

// withoutPlugin are the templates besides the chart's own "sidecar", which leaves redirect
// rules to the CNI plugin. A pod gets one by the annotation inject.istio.io/templates.
var withoutPlugin = []struct{ name, nft string }{
	{"sidecar-init", "false"}, // istio-init writes rules of iptables
	{"sidecar-nft", "true"},   // istio-init writes rules of nftables
}

// addTemplates adds to Istio's objects what a mesh without a CNI plugin is made of:
// the same templates, as they turn out in one.
func addTemplates(objects []byte) ([]byte, error) {
	const mark = "\n---\n"
	docs := bytes.Split(objects, []byte(mark))
	for i, doc := range docs {
		if !bytes.Contains(doc, []byte("name: "+injectorConfig+"\n")) || !bytes.Contains(doc, []byte("kind: ConfigMap\n")) {
			continue
		}
		var err error
		if docs[i], err = withTemplates(doc); err != nil {
			return nil, fmt.Errorf("ConfigMap %s: %w", injectorConfig, err)
		}
		return bytes.Join(docs, []byte(mark)), nil
	}
	return nil, fmt.Errorf("there is no ConfigMap %s", injectorConfig)
}

func withTemplates(doc []byte) ([]byte, error) {
	var object map[string]any
	if err := yaml.Unmarshal(doc, &object); err != nil {
		return nil, err
	}
	data, _ := object["data"].(map[string]any)
	text, _ := data["config"].(string)
	var config map[string]any
	if err := yaml.Unmarshal([]byte(text), &config); err != nil {
		return nil, fmt.Errorf("its config: %w", err)
	}
	templates, _ := config["templates"].(map[string]any)
	sidecar, _ := templates["sidecar"].(string)
	for _, asked := range []string{ifPlugin, ifNFT} {
		if !strings.Contains(sidecar, asked) {
			return nil, fmt.Errorf("template sidecar does not ask for %s", asked)
		}
	}
	for _, m := range withoutPlugin {
		templates[m.name] = strings.NewReplacer(ifPlugin, "false", ifNFT, m.nft).Replace(sidecar)
	}
	b, err := yaml.Marshal(config)
	if err != nil {
		return nil, err
	}
	data["config"] = string(b)
	return yaml.Marshal(object)
}
