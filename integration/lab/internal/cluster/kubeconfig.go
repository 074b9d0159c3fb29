package cluster

import (
	"encoding/base64"
	"fmt"
	"path/filepath"

	"github.com/borrownet/borrownet/integration/lab/internal/spec"
)

// Names of the kubeconfig files that people and tests use.
const (
	AdminConfig     = "admin"
	DeveloperConfig = "developer"
)

// An account is a user of the API server and the file that has its credentials.
type account struct {
	file, user string
	groups     []string
}

// WriteKubeconfigs writes one file per user of the control plane and of people to dir.
// The rights of the system users come from Kubernetes' own bootstrap roles, those of the
// developer from the manifests.
func (a *Authority) WriteKubeconfigs(dir string) error {
	return a.writeKubeconfigs(dir, []account{
		{AdminConfig, "admin", []string{mastersGroup}},
		{DeveloperConfig, spec.UserName, []string{"developers"}},
		{"controller-manager", "system:kube-controller-manager", nil},
		{"scheduler", "system:kube-scheduler", nil},
	})
}

func (a *Authority) writeKubeconfigs(dir string, accounts []account) error {
	for _, u := range accounts {
		p, err := a.Issue(u.user, u.groups)
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(dir, u.file), a.kubeconfig(u.user, p)); err != nil {
			return err
		}
	}
	return nil
}

func (a *Authority) kubeconfig(user string, p Pair) []byte {
	b := base64.StdEncoding.EncodeToString
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: lab
  cluster:
    server: %s
    certificate-authority-data: %s
users:
- name: %s
  user:
    client-certificate-data: %s
    client-key-data: %s
contexts:
- name: lab
  context: {cluster: lab, user: %[3]q, namespace: %[6]s}
current-context: lab
`, spec.APIServer, b(a.PEM), user, b(p.Cert), b(p.Key), spec.Namespace)
}
