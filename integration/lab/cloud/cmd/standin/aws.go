package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// trust says who may have a role with a token, as the role's trust policy does;
// associations, which role the agent on the node gives to whom.
var (
	trust        = map[string]string{"arn:aws:iam::123456789012:role/irsa": "system:serviceaccount:shop:cloudy"}
	associations = map[string]string{"system:serviceaccount:shop:cloudy": "arn:aws:iam::123456789012:role/pod-identity"}
)

// credentials are temporary ones.
type credentials struct {
	AccessKeyID string `json:"AccessKeyId"`
	Secret      string `json:"SecretAccessKey"`
	Token       string `json:"Token"`
	Expiration  string `json:"Expiration"`
	role        string
}

// aws is STS and the agent of EKS Pod Identity.
type aws struct {
	cluster *cluster

	mu     sync.Mutex
	issued map[string]credentials // by access key
}

func newAWS(c *cluster) *aws { return &aws{cluster: c, issued: map[string]credentials{}} }

// issue makes credentials for a role.
func (a *aws) issue(role string) credentials {
	c := credentials{
		AccessKeyID: "ASIA" + rand.Text()[:16], Secret: rand.Text() + rand.Text()[:14], Token: rand.Text() + rand.Text(),
		Expiration: time.Now().Add(time.Hour).UTC().Format(time.RFC3339), role: role,
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.issued[c.AccessKeyID] = c
	return c
}

// sts answers the two actions that the clients use. https://docs.aws.amazon.com/STS/latest/APIReference
func (a *aws) sts(w http.ResponseWriter, r *http.Request) {
	switch r.FormValue("Action") {
	case "AssumeRoleWithWebIdentity":
		a.assume(w, r)
	case "GetCallerIdentity":
		a.whoami(w, r)
	default:
		refuse(w, http.StatusBadRequest, "InvalidAction", r.FormValue("Action"))
	}
}

func (a *aws) assume(w http.ResponseWriter, r *http.Request) {
	id, err := a.cluster.verify(r.Context(), r.FormValue("WebIdentityToken"), "sts.amazonaws.com")
	if err != nil {
		refuse(w, http.StatusBadRequest, "InvalidIdentityToken", err.Error())
		return
	}
	role := r.FormValue("RoleArn")
	if trust[role] != id.subject {
		refuse(w, http.StatusForbidden, "AccessDenied", id.subject+" is not authorized to perform: sts:AssumeRoleWithWebIdentity")
		return
	}
	c := a.issue(role)
	answer(w, "AssumeRoleWithWebIdentity", fmt.Sprintf(
		"<Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken><Expiration>%s</Expiration></Credentials>"+
			"<AssumedRoleUser><Arn>%s</Arn><AssumedRoleId>AROA:x</AssumedRoleId></AssumedRoleUser>",
		c.AccessKeyID, c.Secret, c.Token, c.Expiration, assumed(role)))
}

// whoami names the role of credentials. That the caller has the secret it takes
// from the session's token; it does not check the signature.
func (a *aws) whoami(w http.ResponseWriter, r *http.Request) {
	_, rest, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	key, _, _ := strings.Cut(rest, "/")
	a.mu.Lock()
	c, ok := a.issued[key]
	a.mu.Unlock()
	if !ok || r.Header.Get("X-Amz-Security-Token") != c.Token {
		refuse(w, http.StatusForbidden, "InvalidClientTokenId", "the security token included in the request is invalid")
		return
	}
	answer(w, "GetCallerIdentity", "<Arn>"+assumed(c.role)+"</Arn><UserId>AROA:x</UserId><Account>123456789012</Account>")
}

// podIdentity is the agent on the node: the token says which pod asks, and the
// address that it comes from must be that pod's.
func (a *aws) podIdentity(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/v1/credentials" {
		http.NotFound(w, r)
		return
	}
	id, err := a.cluster.verify(r.Context(), r.Header.Get("Authorization"), "pods.eks.amazonaws.com")
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p, err := a.cluster.podAt(r.Context(), caller(r))
	if err != nil || p.Metadata.UID != id.podUID {
		http.Error(w, fmt.Sprintf("%s is not the pod of the token: %v", caller(r), err), http.StatusForbidden)
		return
	}
	role := associations[id.subject]
	if role == "" {
		http.Error(w, id.subject+" has no association", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(a.issue(role))
}

func assumed(role string) string {
	_, name, _ := strings.Cut(role, ":role/")
	return "arn:aws:sts::123456789012:assumed-role/" + name + "/x"
}

func answer(w http.ResponseWriter, action, result string) {
	w.Header().Set("Content-Type", "text/xml")
	fmt.Fprintf(w, `<%[1]sResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><%[1]sResult>%[2]s</%[1]sResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></%[1]sResponse>`, action, result)
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>1</RequestId></ErrorResponse>`,
		code, strings.NewReplacer("&", "&amp;", "<", "&lt;").Replace(message))
}
