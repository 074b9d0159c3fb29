//go:build lab

package integration

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// standins are what integration/lab/cloud stands in for clouds with, in the node's
// network, where the agents of clouds are. %s are a certificate and its key.
const standins = `
apiVersion: v1
kind: Namespace
metadata: {name: cloud}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: standin, namespace: cloud}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: standin}
rules:
- {apiGroups: [""], resources: [pods], verbs: [list]}
- {apiGroups: [""], resources: [serviceaccounts], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: standin}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: standin}
subjects: [{kind: ServiceAccount, name: standin, namespace: cloud}]
---
apiVersion: v1
kind: Secret
metadata: {name: entra, namespace: cloud}
type: kubernetes.io/tls
data: {tls.crt: %s, tls.key: %s}
---
apiVersion: v1
kind: Service
metadata: {name: sts, namespace: cloud}
spec: {selector: {app: standin}, ports: [{port: 80, targetPort: 8081}]}
---
apiVersion: v1
kind: Service
metadata: {name: login, namespace: cloud}
spec: {selector: {app: standin}, ports: [{port: 443, targetPort: 8443}]}
---
apiVersion: v1
kind: Pod
metadata: {name: standin, namespace: cloud, labels: {app: standin}}
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 1
  serviceAccountName: standin
  volumes: [{name: tls, secret: {secretName: entra}}]
  containers:
  - name: standin
    image: lab.local/standin:1
    imagePullPolicy: IfNotPresent
    args: [-sts, ":8081", -entra, ":8443", -cert, /tls/tls.crt, -key, /tls/tls.key, -pod-identity, "169.254.170.23:80", -pod-identity6, "[fd00:ec2::23]:80", -metadata, "169.254.169.254:80"]
    readinessProbe: {tcpSocket: {port: 8443}, periodSeconds: 1, timeoutSeconds: 10}
    volumeMounts: [{name: tls, mountPath: /tls}]
`

// cloudy is a pod as the webhooks of EKS and of Azure make it, with a ServiceAccount
// that has an account at Google.
const cloudy = `
apiVersion: v1
kind: ServiceAccount
metadata:
  name: cloudy
  namespace: shop
  annotations: {iam.gke.io/gcp-service-account: shop@lab.iam.gserviceaccount.com}
---
apiVersion: v1
kind: Pod
metadata: {name: cloudy, namespace: shop, labels: {app: cloudy}}
spec:
  terminationGracePeriodSeconds: 1
  serviceAccountName: cloudy
  securityContext: {runAsNonRoot: true, runAsUser: 10001, seccompProfile: {type: RuntimeDefault}}
  volumes:
  - {name: irsa, projected: {sources: [{serviceAccountToken: {path: token, audience: sts.amazonaws.com}}]}}
  - {name: pod-identity, projected: {sources: [{serviceAccountToken: {path: eks-pod-identity-token, audience: pods.eks.amazonaws.com}}]}}
  - {name: azure, projected: {sources: [{serviceAccountToken: {path: azure-identity-token, audience: "api://AzureADTokenExchange"}}]}}
  containers:
  - name: app
    image: lab.local/api:1
    imagePullPolicy: IfNotPresent
    env:
    - {name: AWS_REGION, value: eu-central-1}
    - {name: AWS_DEFAULT_REGION, value: eu-central-1}
    - {name: AWS_STS_REGIONAL_ENDPOINTS, value: regional}
    - {name: AWS_ENDPOINT_URL_STS, value: "http://sts.cloud"}
    - {name: AWS_ROLE_ARN, value: "arn:aws:iam::123456789012:role/irsa"}
    - {name: AWS_WEB_IDENTITY_TOKEN_FILE, value: /var/run/secrets/eks.amazonaws.com/serviceaccount/token}
    - {name: AWS_CONTAINER_CREDENTIALS_FULL_URI, value: "http://169.254.170.23/v1/credentials"}
    - {name: AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE, value: /var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token}
    - {name: AZURE_CLIENT_ID, value: 00000000-0000-0000-0000-00000000c11d}
    - {name: AZURE_TENANT_ID, value: 00000000-0000-0000-0000-000000007e1a}
    - {name: AZURE_AUTHORITY_HOST, value: "https://login.cloud.svc/"}
    - {name: AZURE_FEDERATED_TOKEN_FILE, value: /var/run/secrets/azure/tokens/azure-identity-token}
    volumeMounts:
    - {name: irsa, mountPath: /var/run/secrets/eks.amazonaws.com/serviceaccount}
    - {name: pod-identity, mountPath: /var/run/secrets/pods.eks.amazonaws.com/serviceaccount}
    - {name: azure, mountPath: /var/run/secrets/azure/tokens}
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
`

// standIn starts the stand-ins and returns the file of the authority that the one of
// Entra is to be trusted by.
func standIn(t *testing.T) string {
	t.Helper()
	onNode(t)("ip address replace 169.254.170.23/32 dev lo; ip address replace 169.254.169.254/32 dev lo; ip address replace fd00:ec2::23/128 dev lo")
	cert, key := certificate(t, "login.cloud.svc")
	encode := base64.StdEncoding.EncodeToString
	kubectl(t, "apply", "-f", writeFile(t, fmt.Sprintf(standins, encode(cert), encode(key))))
	t.Cleanup(func() {
		// The next test's must not be taken for this one, which is about to end.
		kubectl(t, "delete", "namespace/cloud", "clusterrole/standin", "clusterrolebinding/standin")
	})
	kubectl(t, "-n", "cloud", "wait", "--for=condition=Ready", "pod/standin", "--timeout=180s")
	return writeFile(t, string(cert))
}

// certificate makes one that vouches for itself.
func certificate(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	bits, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	var c, k bytes.Buffer
	if err := pem.Encode(&c, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
		t.Fatal(err)
	}
	if err := pem.Encode(&k, &pem.Block{Type: "PRIVATE KEY", Bytes: bits}); err != nil {
		t.Fatal(err)
	}
	return c.Bytes(), k.Bytes()
}

// boto3 returns where Python finds boto3.
func boto3(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(filepath.Dir(self), "boto3")
	if _, err := os.Stat(dir); err != nil {
		t.Skip("needs lab: boto3, which hack/cloud-build.sh takes from pip")
	}
	return dir
}

// TestCloudIdentity: the libraries of clouds, as they are, get the pod's roles from
// services that check who asks; the same programs with the same environment get none
// without borrownet.
func TestCloudIdentity(t *testing.T) {
	authority := standIn(t)
	awaitServices(t, fromAPI, "http://sts.cloud/", "http://login.cloud:443/") // whatever the answer is
	kubectl(t, "apply", "-f", writeFile(t, cloudy))
	kubectl(t, "apply", "-f", writeFile(t, mustBorrownet(t, "rbac", "-n", "shop", "--gke", "--name", "gke", "--subject", "user:dev").stdout))
	t.Cleanup(func() {
		kubectl(t, "-n", "shop", "delete", "pod/cloudy", "serviceaccount/cloudy", "role/gke", "rolebinding/gke", "--grace-period=1")
	})
	kubectl(t, "-n", "shop", "wait", "--for=condition=Ready", "pod/cloudy", "--timeout=180s")

	r := mustBorrownet(t, "up", "-d", "-n", "shop", "--pod", "cloudy")
	t.Cleanup(func() { command{argv: []string{"borrownet", "down", "--all", "--stop-agent"}}.run(t) })
	status := mustBorrownet(t, "status").stdout
	for _, want := range []string{
		"EKS Pod Identity (variable AWS_CONTAINER_CREDENTIALS_FULL_URI), handed out to the pod at 169.254.170.23\n",
		"EKS IRSA, arn:aws:iam::123456789012:role/irsa (variable AWS_WEB_IDENTITY_TOKEN_FILE), had with a token",
		"Azure workload identity, 00000000-0000-0000-0000-00000000c11d (variable AZURE_FEDERATED_TOKEN_FILE), had with a token",
		"GKE workload identity, shop@lab.iam.gserviceaccount.com (annotation iam.gke.io/gcp-service-account of ServiceAccount cloudy), handed out to the pod at 169.254.169.254",
	} {
		if !strings.Contains(r.stderr, "cloud identity: "+want) {
			t.Errorf("up does not say %q: %v", want, r)
		}
		if !strings.Contains(status, want) {
			t.Errorf("status does not say %q:\n%s", want, status)
		}
	}
	env := filepath.Join(t.TempDir(), "pod.sh")
	mustBorrownet(t, "run", "--env-out", env, "--format", "sh", "--", "true")

	python := []string{"python3", "-c", "import boto3; print(boto3.client('sts').get_caller_identity()['Arn'])"}
	noIRSA := []string{"--unset", "AWS_ROLE_ARN", "--unset", "AWS_WEB_IDENTITY_TOKEN_FILE"}
	irsa, podIdentity := "arn:aws:sts::123456789012:assumed-role/irsa/x\n", "arn:aws:sts::123456789012:assumed-role/pod-identity/x\n"
	for _, tt := range []struct {
		name   string
		args   []string // of run
		argv   []string
		want   string
		python bool
	}{
		{"aws_irsa", nil, []string{"cloud", "aws"}, irsa, false},
		{"aws_pod_identity", noIRSA, []string{"cloud", "aws"}, podIdentity, false},
		{"boto3_irsa", nil, python, irsa, true},
		{"boto3_pod_identity", noIRSA, python, podIdentity, true},
		{"google", nil, []string{"cloud", "google"}, "token of shop@lab.iam.gserviceaccount.com\n", false},
		{"azure", nil, []string{"cloud", "azure"}, "token of application 00000000-0000-0000-0000-00000000c11d\n", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			more := []string{"SSL_CERT_FILE=" + authority}
			if tt.python {
				more = append(more, "PYTHONPATH="+boto3(t))
			}
			argv := append(append(append([]string{"borrownet", "run"}, tt.args...), "--"), tt.argv...)
			if r := (command{argv: argv, env: more}).run(t); r.code != 0 || r.stdout != tt.want {
				t.Errorf("want %q: %v", tt.want, r)
			}
			unset := strings.ReplaceAll(strings.Join(tt.args, " "), "--unset", "unset")
			script := ". " + env + "; " + strings.ReplaceAll(unset, " unset", "; unset") + `; exec timeout 4 "$@"`
			if r := (command{argv: append([]string{"sh", "-c", script, "sh"}, tt.argv...), env: more}).run(t); r.code == 0 {
				t.Errorf("it works without borrownet: %v", r)
			}
		})
	}
	// The person's own credentials, which Google's libraries prefer.
	adc := filepath.Join(os.Getenv("HOME"), ".config", "gcloud", "application_default_credentials.json")
	t.Run("own_google_credentials", func(t *testing.T) {
		if err := os.MkdirAll(filepath.Dir(adc), 0o700); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(filepath.Dir(adc)) })
		if err := os.WriteFile(adc, []byte(`{"type": "authorized_user", "client_id": "me", "client_secret": "x", "refresh_token": "y"}`), 0o600); err != nil {
			t.Fatal(err)
		}
		r := mustBorrownet(t, "run", "--", "cloud", "google")
		if r.stdout != "token of shop@lab.iam.gserviceaccount.com\n" || !strings.Contains(r.stderr, "hidden from the command, which is the pod: "+filepath.Dir(adc)) {
			t.Error(r)
		}
		if r := borrownet(t, "run", "--local-identity", "--", "cloud", "google"); r.code == 0 {
			t.Errorf("the person's own are not taken, so the test above proves nothing: %v", r)
		}
		if r := borrownet(t, "run", "--no-files", "--", "cloud", "google"); !strings.Contains(r.stderr, "warning: Google's libraries will take your own credentials") {
			t.Errorf("not said: %v", r)
		}
	})
	t.Run("name", func(t *testing.T) {
		r := mustBorrownet(t, "run", "--", "curl", "-sS", "-m", "10", "-H", "Metadata-Flavor: Google",
			"http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/email")
		if r.stdout != "shop@lab.iam.gserviceaccount.com" {
			t.Error(r)
		}
	})
	noLeaks(t)
	noLeaksInPod(t, "cloudy")
	t.Run("in_cluster_client", func(t *testing.T) {
		r := borrownet(t, "run", "--unset", "KUBECONFIG", "--", "cloud", "pods")
		if r.code == 0 || !strings.Contains(r.stderr, `"system:serviceaccount:shop:cloudy" cannot list resource "pods"`) {
			t.Errorf("what the ServiceAccount may not: %v", r)
		}
	})
	t.Run("pod_identity_over_ipv6", podIdentityOverIPv6)
}

// podIdentityOverIPv6: on nodes that have IPv6 alone the agent of EKS Pod Identity is at
// another address, which the pod's variable names. The stand-ins run.
func podIdentityOverIPv6(t *testing.T) {
	pod := strings.ReplaceAll(cloudy, "http://169.254.170.23/", "http://[fd00:ec2::23]/")
	kubectl(t, "apply", "-f", writeFile(t, strings.ReplaceAll(pod, "kind: Pod\nmetadata: {name: cloudy,", "kind: Pod\nmetadata: {name: cloudy6,")))
	t.Cleanup(func() { kubectl(t, "-n", "shop", "delete", "pod/cloudy6", "--grace-period=1") })
	kubectl(t, "-n", "shop", "wait", "--for=condition=Ready", "pod/cloudy6", "--timeout=180s")
	mustBorrownet(t, "up", "-d", "-n", "shop", "--pod", "cloudy6")
	t.Cleanup(func() { command{argv: []string{"borrownet", "down", "cloudy6", "--stop-agent"}}.run(t) })
	const want = "EKS Pod Identity (variable AWS_CONTAINER_CREDENTIALS_FULL_URI), handed out to the pod at fd00:ec2::23\n"
	if status := mustBorrownet(t, "status", "cloudy6").stdout; !strings.Contains(status, want) {
		t.Errorf("status does not say %q:\n%s", want, status)
	}
	env := filepath.Join(t.TempDir(), "pod.sh")
	run := []string{"borrownet", "run", "--session", "cloudy6", "--unset", "AWS_ROLE_ARN", "--unset", "AWS_WEB_IDENTITY_TOKEN_FILE"}
	mustBorrownet(t, append(run[1:len(run):len(run)], "--env-out", env, "--format", "sh", "--", "true")...)
	const role = "arn:aws:sts::123456789012:assumed-role/pod-identity/x\n"
	if r := (command{argv: append(run[:len(run):len(run)], "--", "cloud", "aws")}).run(t); r.code != 0 || r.stdout != role {
		t.Error(r)
	}
	if r := (command{argv: []string{"sh", "-c", ". " + env + "; exec timeout 4 cloud aws"}}).run(t); r.code == 0 {
		t.Errorf("it works without borrownet: %v", r)
	}
	python := append(run[:len(run):len(run)], "--", "python3", "-c", "import boto3; print(boto3.client('sts').get_caller_identity()['Arn'])")
	if r := (command{argv: python, env: []string{"PYTHONPATH=" + boto3(t)}}).run(t); r.code != 0 || r.stdout != role {
		t.Error(r)
	}
	// The variable opens what it names, and not the address of the other family.
	if r := borrownet(t, "run", "--session", "cloudy6", "--", "curl", "-sS", "-m", "10", "http://169.254.170.23/v1/credentials"); r.code != 7 { // could not connect
		t.Errorf("what the pod does not name is open: %v", r)
	}
	noLeaks(t)
	noLeaksInPod(t, "cloudy6")
}

// TestNodeMetadataIsRefused: a pod whose node does not tell it from itself gets no
// identity of the node, unless somebody asks for it.
func TestNodeMetadataIsRefused(t *testing.T) {
	standIn(t)
	up(t, "api")
	email := []string{"run", "--", "curl", "-sS", "-m", "10", "-H", "Metadata-Flavor: Google",
		"http://169.254.169.254/computeMetadata/v1/instance/service-accounts/default/email"}
	if r := borrownet(t, email...); r.code != 7 { // could not connect
		t.Errorf("want a connection that fails: %v", r)
	}
	if r := borrownet(t, "run", "--", "cloud", "google"); r.code == 0 {
		t.Errorf("credentials of the node: %v", r)
	}
	if text := mustBorrownet(t, "status").stdout; !strings.Contains(text, "no identity found; metadata services, which would take programs for the node, are refused") {
		t.Errorf("status says:\n%s", text)
	}
	mustBorrownet(t, "down")
	r := mustBorrownet(t, "up", "-d", "-n", "shop", "--pod", "api", "--metadata", "169.254.169.254")
	if !strings.Contains(r.stderr, "warning: 169.254.169.254 may take programs for the pod's node") {
		t.Errorf("up does not warn: %v", r)
	}
	if r := borrownet(t, email...); r.stdout != "node@lab.iam.gserviceaccount.com" {
		t.Errorf("what was asked for: %v", r)
	}
	mustBorrownet(t, "down", "--stop-agent") // no other test takes an agent that may so much
}
