package kube

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/borrownet/borrownet/agent/kube/api"
)

// Cloud says which identities a pod has at clouds, by what the API server says
// of it.
type Cloud struct {
	Identities []CloudIdentity `json:"identities,omitempty"`
	// Unknown is why it is not known whether there is one more, or "".
	Unknown string `json:"unknown,omitempty"`
}

// CloudIdentity is one that is the pod's own: other pods of its node and the
// node itself have others.
type CloudIdentity struct {
	System  string `json:"system"`            // how it is had, for people
	Account string `json:"account,omitempty"` // role or account; "" = the cluster does not say
	By      string `json:"by"`                // what it was recognised by
	// Endpoints are the addresses at which the node hands it out, telling pods
	// apart. Without any it is had from afar, with a token.
	Endpoints []netip.Addr `json:"endpoints,omitempty"`
}

// The systems.
const (
	eksPodIdentity = "EKS Pod Identity"
	eksIRSA        = "EKS IRSA"
	googleIdentity = "GKE workload identity"
	azureIdentity  = "Azure workload identity"
)

// The endpoints that tell pods apart.
var (
	eksAgent4   = netip.MustParseAddr("169.254.170.23")
	eksAgent6   = netip.MustParseAddr("fd00:ec2::23")
	googleInfo4 = netip.MustParseAddr("169.254.169.254")
	googleInfo6 = netip.MustParseAddr("fd20:ce::254")
)

// Marks of Google's system. The label is on nodes whose metadata server tells
// pods apart; on others it is the node's own.
const (
	googleNodeLabel  = "iam.gke.io/gke-metadata-server-enabled"
	googleAnnotation = "iam.gke.io/gcp-service-account"
)

// eksURI is the variable that tells AWS's libraries where to ask.
const eksURI = "AWS_CONTAINER_CREDENTIALS_FULL_URI"

// Google reports whether the pod has an identity at Google.
func (c Cloud) Google() bool {
	return slices.ContainsFunc(c.Identities, func(id CloudIdentity) bool { return id.System == googleIdentity })
}

// Endpoints are all addresses at which the pod's identities are handed out.
func (c Cloud) Endpoints() []netip.Addr {
	var out []netip.Addr
	for _, id := range c.Identities {
		out = append(out, id.Endpoints...)
	}
	return out
}

// cloudOf recognises the identities of a container by what the spec of its pod
// shows, and of Google's by its ServiceAccount: that one shows nowhere else.
func (c *Client) cloudOf(ctx context.Context, pod *api.Pod, ct *api.Container) Cloud {
	var out Cloud
	for _, find := range []func(*api.Pod, *api.Container) (CloudIdentity, bool){eksPodIdentityOf, irsaOf, azureOf} {
		if id, ok := find(pod, ct); ok {
			out.Identities = append(out.Identities, id)
		}
	}
	id, ok, unknown := c.googleOf(ctx, pod)
	if ok {
		out.Identities = append(out.Identities, id)
	}
	out.Unknown = unknown
	return out
}

func eksPodIdentityOf(pod *api.Pod, ct *api.Container) (CloudIdentity, bool) {
	id := CloudIdentity{System: eksPodIdentity}
	if v, ok := variable(ct, eksURI); ok && v != "" {
		u, err := url.Parse(v)
		if err != nil {
			return id, false
		}
		a, err := netip.ParseAddr(u.Hostname())
		if err != nil || a != eksAgent4 && a != eksAgent6 {
			return id, false // something else that speaks the same protocol
		}
		id.By, id.Endpoints = "variable "+eksURI, []netip.Addr{a}
		return id, true
	}
	if id.By = tokenFor(pod, ct, "pods.eks.amazonaws.com"); id.By == "" {
		return id, false
	}
	id.Endpoints = []netip.Addr{eksAgent4, eksAgent6}
	return id, true
}

func irsaOf(pod *api.Pod, ct *api.Container) (CloudIdentity, bool) {
	id := CloudIdentity{System: eksIRSA, By: "variable AWS_WEB_IDENTITY_TOKEN_FILE"}
	id.Account, _ = variable(ct, "AWS_ROLE_ARN")
	if _, ok := variable(ct, "AWS_WEB_IDENTITY_TOKEN_FILE"); !ok {
		id.By = tokenFor(pod, ct, "sts.amazonaws.com")
	}
	return id, id.By != ""
}

func azureOf(pod *api.Pod, ct *api.Container) (CloudIdentity, bool) {
	id := CloudIdentity{System: azureIdentity, By: "variable AZURE_FEDERATED_TOKEN_FILE"}
	id.Account, _ = variable(ct, "AZURE_CLIENT_ID")
	if _, ok := variable(ct, "AZURE_FEDERATED_TOKEN_FILE"); !ok {
		id.By = tokenFor(pod, ct, "api://AzureADTokenExchange")
	}
	return id, id.By != ""
}

// googleOf recognises pods whose metadata server tells them from their node: they
// were placed on nodes that have such a one, or somebody gave their ServiceAccount
// an account at Google. Pods that have the node's network are told from nothing.
// Who may not read ServiceAccounts hears of it on clusters where it matters.
func (c *Client) googleOf(ctx context.Context, pod *api.Pod) (id CloudIdentity, ok bool, unknown string) {
	id = CloudIdentity{System: googleIdentity, Endpoints: []netip.Addr{googleInfo4, googleInfo6}}
	if pod.Spec.HostNetwork {
		return id, false, ""
	}
	if pod.Spec.NodeSelector[googleNodeLabel] == "true" {
		id.By = "the pod's node selector " + googleNodeLabel
		return id, true, ""
	}
	name := cmp.Or(pod.Spec.ServiceAccountName, "default")
	var account api.ServiceAccount
	err := c.do(ctx, request{verb: "get", resource: "serviceaccounts", namespace: pod.Namespace, name: name}, &account)
	switch {
	case err == nil:
		id.Account, id.By = account.Annotations[googleAnnotation], "annotation "+googleAnnotation+" of ServiceAccount "+name
		return id, id.Account != "", ""
	case !c.isGoogle(ctx):
		return id, false, ""
	case apierrors.IsForbidden(err):
		return id, false, fmt.Sprintf("you may not get serviceaccounts in namespace %s, and ServiceAccount %s may have an account at Google", pod.Namespace, name)
	}
	return id, false, fmt.Sprintf("read ServiceAccount %s: %v", name, err)
}

// variable returns the value of a variable that ct declares: "" unless it is
// written in the spec itself.
func variable(ct *api.Container, name string) (value string, ok bool) {
	i := slices.IndexFunc(ct.Env, func(v api.EnvVar) bool { return v.Name == name })
	if i < 0 {
		return "", false
	}
	return ct.Env[i].Value, true
}

// tokenFor names the volume of ct that has a token for audience, or returns "".
func tokenFor(pod *api.Pod, ct *api.Container, audience string) string {
	for _, v := range pod.Spec.Volumes {
		if v.Projected == nil || !slices.ContainsFunc(ct.VolumeMounts, func(m api.VolumeMount) bool { return m.Name == v.Name }) {
			continue
		}
		if slices.ContainsFunc(v.Projected.Sources, func(s api.VolumeProjection) bool {
			return s.ServiceAccountToken != nil && s.ServiceAccountToken.Audience == audience
		}) {
			return "token for " + audience + " in volume " + v.Name
		}
	}
	return ""
}

// isGoogle reports whether the cluster is one of Google's, by its version.
func (c *Client) isGoogle(ctx context.Context) bool {
	version, err := c.Version(ctx)
	return err == nil && strings.Contains(version, "-gke.")
}
