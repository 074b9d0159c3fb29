// Package cluster is the Kubernetes side of the lab: its certificates, what is
// applied to it at the start, and how to tell that it is ready. It talks to the
// API server with plain HTTP, since a client library would double the start.
package cluster

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/borrownet/borrownet/integration/lab/internal/spec"
)

// mastersGroup is the superuser group of Kubernetes.
const mastersGroup = "system:masters"

// lifetime of every certificate: longer than any lab lives.
const lifetime = 30 * 24 * time.Hour

// An Authority signs the certificates of one lab.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	// PEM is the authority's own certificate.
	PEM []byte
}

// A Pair is a certificate and its key, in PEM.
type Pair struct{ Cert, Key []byte }

// NewAuthority makes a fresh one, kept in memory only.
func NewAuthority() (*Authority, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "lab-ca"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(lifetime),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &Authority{cert: cert, key: key, PEM: pemBlock("CERTIFICATE", der)}, nil
}

// Issue signs a certificate for a user or component cn of the groups, valid for
// the names and addresses in sans.
func (a *Authority) Issue(cn string, groups []string, sans ...string) (Pair, error) {
	key, err := newKey()
	if err != nil {
		return Pair{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return Pair{}, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: cn, Organization: groups},
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(lifetime),
	}
	for _, s := range sans {
		if ip := net.ParseIP(s); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, s)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		return Pair{}, fmt.Errorf("sign certificate of %s: %w", cn, err)
	}
	keyPEM, err := marshalKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{Cert: pemBlock("CERTIFICATE", der), Key: keyPEM}, nil
}

// WritePKI writes the files that the flags of the control plane name to dir.
func (a *Authority) WritePKI(dir string) error {
	for _, c := range []struct {
		file, cn string
		groups   []string
		sans     []string
	}{
		{"apiserver", "kube-apiserver", nil, []string{
			"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
			"localhost", "127.0.0.1", spec.KubeIP, spec.NodeIP,
		}},
		{"apiserver-kubelet", "apiserver-kubelet-client", []string{mastersGroup}, nil},
	} {
		p, err := a.Issue(c.cn, c.groups, c.sans...)
		if err != nil {
			return err
		}
		if err := writePair(dir, c.file, p); err != nil {
			return err
		}
	}
	return writeServiceAccountKey(dir)
}

// WriteNode writes what a machine needs to be a node to the directories pki and
// kubeconfig of dir.
func (a *Authority) WriteNode(dir string, m spec.Machine) error {
	pki := filepath.Join(dir, "pki")
	if err := writeFile(filepath.Join(pki, "ca.crt"), a.PEM); err != nil {
		return err
	}
	user, groups := "system:node:"+m.Name, []string{"system:nodes"}
	serving, err := a.Issue(user, groups, m.Name, m.IP)
	if err != nil {
		return err
	}
	if err := writePair(pki, "kubelet", serving); err != nil {
		return err
	}
	return a.writeKubeconfigs(filepath.Join(dir, "kubeconfig"), []account{
		{"kubelet", user, groups},
		{"proxy", "system:kube-proxy", nil},
	})
}

func writePair(dir, name string, p Pair) error {
	if err := writeFile(filepath.Join(dir, name+".crt"), p.Cert); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, name+".key"), p.Key)
}

// writeServiceAccountKey writes the pair that signs and checks pods' tokens.
func writeServiceAccountKey(dir string) error {
	key, err := newKey()
	if err != nil {
		return err
	}
	private, err := marshalKey(key)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, "sa.key"), private); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, "sa.pub"), pemBlock("PUBLIC KEY", public))
}

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return key, nil
}

func marshalKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pemBlock("EC PRIVATE KEY", der), nil
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func writeFile(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}
