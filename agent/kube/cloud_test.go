package kube

import (
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/borrownet/borrownet/agent/kube/api"
)

func TestCloud(t *testing.T) {
	env := func(pairs ...string) func(*api.Pod) {
		return func(p *api.Pod) {
			for _, kv := range pairs {
				name, value, _ := strings.Cut(kv, "=")
				p.Spec.Containers[0].Env = append(p.Spec.Containers[0].Env, api.EnvVar{Name: name, Value: value})
			}
		}
	}
	token := func(audience string, mounted bool) func(*api.Pod) {
		return func(p *api.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, api.Volume{Name: "t", VolumeSource: api.VolumeSource{Projected: &api.ProjectedVolumeSource{
				Sources: []api.VolumeProjection{{ServiceAccountToken: &api.ServiceAccountTokenProjection{Audience: audience, Path: "token"}}},
			}}})
			if mounted {
				p.Spec.Containers[0].VolumeMounts = []api.VolumeMount{{Name: "t", MountPath: "/var/run/t"}}
			}
		}
	}
	account := func(name string) func(*api.Pod) {
		return func(p *api.Pod) { p.Spec.ServiceAccountName = name }
	}
	onGoogleNode := func(p *api.Pod) { p.Spec.NodeSelector = map[string]string{googleNodeLabel: "true"} }
	inHostNetwork := func(p *api.Pod) { p.Spec.HostNetwork = true }
	const role = "arn:aws:iam::123456789012:role/shop"
	v4, v6, google := []netip.Addr{eksAgent4}, []netip.Addr{eksAgent6}, []netip.Addr{googleInfo4, googleInfo6}
	annotated := CloudIdentity{googleIdentity, "api@shop.iam.gserviceaccount.com", "annotation iam.gke.io/gcp-service-account of ServiceAccount annotated", google}

	for _, tt := range []struct {
		name    string
		edit    []func(*api.Pod)
		version string
		deny    bool // the ServiceAccount
		want    []CloudIdentity
		unknown string
	}{
		{name: "none"},
		{name: "no_right_elsewhere", deny: true, version: "v1.34.4-eks-1"},
		{name: "pod_identity", edit: []func(*api.Pod){env(eksURI + "=http://169.254.170.23/v1/credentials")},
			want: []CloudIdentity{{eksPodIdentity, "", "variable " + eksURI, v4}}},
		{name: "pod_identity6", edit: []func(*api.Pod){env(eksURI + "=http://[fd00:ec2::23]/v1/credentials")},
			want: []CloudIdentity{{eksPodIdentity, "", "variable " + eksURI, v6}}},
		{name: "pod_identity_token", edit: []func(*api.Pod){token("pods.eks.amazonaws.com", true)},
			want: []CloudIdentity{{eksPodIdentity, "", "token for pods.eks.amazonaws.com in volume t", []netip.Addr{eksAgent4, eksAgent6}}}},
		{name: "token_of_another_container", edit: []func(*api.Pod){token("pods.eks.amazonaws.com", false)}},
		// What hands out the node's identity is not opened because a pod names it.
		{name: "node_metadata", edit: []func(*api.Pod){env(eksURI + "=http://169.254.169.254/latest")}},
		{name: "garbage", edit: []func(*api.Pod){env(eksURI + "=http://[::1")}},
		{name: "irsa", edit: []func(*api.Pod){env("AWS_ROLE_ARN="+role, "AWS_WEB_IDENTITY_TOKEN_FILE=/var/run/t/token")},
			want: []CloudIdentity{{eksIRSA, role, "variable AWS_WEB_IDENTITY_TOKEN_FILE", nil}}},
		{name: "irsa_token", edit: []func(*api.Pod){token("sts.amazonaws.com", true)},
			want: []CloudIdentity{{eksIRSA, "", "token for sts.amazonaws.com in volume t", nil}}},
		{name: "azure", edit: []func(*api.Pod){env("AZURE_CLIENT_ID=1234", "AZURE_FEDERATED_TOKEN_FILE=/var/run/t/token")},
			want: []CloudIdentity{{azureIdentity, "1234", "variable AZURE_FEDERATED_TOKEN_FILE", nil}}},
		{name: "google_node", edit: []func(*api.Pod){onGoogleNode},
			want: []CloudIdentity{{googleIdentity, "", "the pod's node selector " + googleNodeLabel, google}}},
		{name: "google_account", edit: []func(*api.Pod){account("annotated")}, want: []CloudIdentity{annotated}},
		{name: "google_no_account", edit: []func(*api.Pod){account("plain")}},
		{name: "google_host_network", edit: []func(*api.Pod){account("annotated"), onGoogleNode, inHostNetwork}},
		{name: "google_no_right", edit: []func(*api.Pod){account("annotated")}, deny: true, version: "v1.34.4-gke.100",
			unknown: "you may not get serviceaccounts in namespace shop, and ServiceAccount annotated may have an account at Google"},
		{name: "two", edit: []func(*api.Pod){account("annotated"), env("AWS_WEB_IDENTITY_TOKEN_FILE=/var/run/t/token")},
			want: []CloudIdentity{{eksIRSA, "", "variable AWS_WEB_IDENTITY_TOKEN_FILE", nil}, annotated}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeAPI(t)
			accounts := "/api/v1/namespaces/shop/serviceaccounts/"
			f.objects[accounts+"default"] = &api.ServiceAccount{}
			f.objects[accounts+"plain"] = &api.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"a": "b"}}}
			f.objects[accounts+"annotated"] = &api.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{googleAnnotation: annotated.Account}}}
			f.deny["get serviceaccounts"] = tt.deny
			f.intercept = func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != "/version" {
					return false
				}
				io.WriteString(w, `{"gitVersion": "`+tt.version+`"}`)
				return true
			}
			f.addPod("api", func(p *api.Pod) {
				for _, edit := range tt.edit {
					edit(p)
				}
			})
			target, err := f.client().Resolve(t.Context(), "pod/api", "")
			if err != nil {
				t.Fatal(err)
			}
			compare := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
			if diff := cmp.Diff(Cloud{Identities: tt.want, Unknown: tt.unknown}, target.Cloud, compare); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
