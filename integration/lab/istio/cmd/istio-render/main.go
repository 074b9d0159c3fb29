// Command istio-render prints the objects of Istio's own charts, which its module
// embeds, for an IstioOperator file: what `istioctl manifest generate` prints, in an
// order in which they can be created one after the other.
//
//	istio-render [-without COMPONENT] FILE
package main

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"istio.io/istio/operator/pkg/manifest"
	"istio.io/istio/operator/pkg/render"
)

// ranks orders the kinds: what others refer to comes first, webhooks last.
var ranks = map[string]int{
	"CustomResourceDefinition":       1,
	"ServiceAccount":                 2,
	"ClusterRole":                    3,
	"Role":                           3,
	"ClusterRoleBinding":             4,
	"RoleBinding":                    4,
	"ConfigMap":                      5,
	"Service":                        6,
	"Deployment":                     7,
	"MutatingWebhookConfiguration":   8,
	"ValidatingWebhookConfiguration": 8,
}

func main() {
	without := flag.String("without", "", "`component` whose objects are left out, though its values hold")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: istio-render [-without COMPONENT] FILE")
		os.Exit(2)
	}
	if err := run(os.Stdout, flag.Arg(0), *without); err != nil {
		fmt.Fprintln(os.Stderr, "istio-render:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, file, without string) error {
	sets, _, err := render.GenerateManifest([]string{file}, nil, true, nil, nil)
	if err != nil {
		return err
	}
	var all []manifest.Manifest
	for _, set := range sets {
		if !strings.EqualFold(string(set.Component), without) {
			all = append(all, set.Manifests...)
		}
	}
	slices.SortStableFunc(all, func(a, b manifest.Manifest) int {
		return cmp.Compare(ranks[a.GetKind()], ranks[b.GetKind()])
	})
	var docs []string
	for _, m := range all {
		// A document may end with the mark of the next one, which is then empty.
		if doc := strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(m.Content), "---")); doc != "" {
			docs = append(docs, doc)
		}
	}
	_, err = fmt.Fprintln(out, strings.Join(docs, "\n---\n"))
	return err
}
