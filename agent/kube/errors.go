package kube

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Error is a failure that the user can understand and do something about.
type Error struct {
	ID     string // stable name of the kind of failure, BN and four digits; may be empty
	Op     string // what was tried, e.g. "attach to"
	Object string // on what, e.g. "pod shop/api-7d4b"
	Reason string // why it failed, one sentence without a period
	Hint   string // the exact next step, may be empty
	Err    error  // cause, may be nil
}

// Error returns operation, object and reason.
func (e *Error) Error() string {
	s := e.Op
	if e.Object != "" {
		s += " " + e.Object
	}
	return s + ": " + e.Reason
}

// IDs that several failures have.
const (
	idUnreachable = "BN1003"
	idCertificate = "BN1004"
	idNotRunning  = "BN1104"
	idRight       = "BN1201"
	idNotStarted  = "BN1206"
)

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// explain turns err into an *Error. An *Error stays as it is, and so does an
// interruption by the caller.
func (c *Client) explain(op, object string, err error) error {
	var known *Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	e := &Error{Op: op, Object: object, Reason: oneLine(err.Error()), Err: err}
	var status *apierrors.StatusError
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s %s: %w", op, object, context.Canceled)
	case errors.As(err, &status):
		c.explainStatus(e, status)
	case strings.Contains(err.Error(), "getting credentials: "):
		c.explainPlugin(e)
	default:
		c.explainNetwork(e)
	}
	return e
}

// explainStatus fills e in for an answer of the API server.
func (c *Client) explainStatus(e *Error, status *apierrors.StatusError) {
	var failed *requestError
	var r request
	if errors.As(e.Err, &failed) {
		r = failed.request
	}
	e.Reason = oneLine(status.ErrStatus.Message)
	switch {
	case explainPolicy(c, e, r, status):
	case status.ErrStatus.Code == http.StatusUnauthorized:
		e.ID = "BN1005"
		e.Reason = "the API server does not accept your credentials: they are expired or invalid"
		if t, ok := certificateEnd(c.config.CertData, c.config.CertFile); ok && time.Now().After(t) {
			e.Reason = "your client certificate expired on " + t.UTC().Format(time.DateTime) + " UTC"
		}
		e.Hint = "log in to the cluster again, then check with: " + c.kubectl("", "auth whoami")
	case status.ErrStatus.Code == http.StatusForbidden:
		c.explainForbidden(e, r, status.ErrStatus.Message)
	case status.ErrStatus.Code >= http.StatusInternalServerError:
		e.Reason = "the API server failed: " + e.Reason
		e.Hint = c.kubectl("", "get --raw /readyz?verbose")
	}
}

// explainPlugin fills e in for a failed exec-auth plugin. client-go flattens
// these errors to text.
func (c *Client) explainPlugin(e *Error) {
	e.ID = "BN1006"
	plugin := "the plugin"
	if p := c.config.ExecProvider; p != nil {
		plugin = p.Command
	}
	_, cause, _ := strings.Cut(e.Err.Error(), "getting credentials: ")
	cause = oneLine(cause)
	switch {
	case strings.Contains(cause, "not found"):
		e.Reason = fmt.Sprintf("the kubeconfig gets credentials from %s, which is not installed", plugin)
		e.Hint = fmt.Sprintf("install %s and put it on PATH, then check with: %s", plugin, c.kubectl("", "auth whoami"))
		if p := c.config.ExecProvider; p != nil && p.InstallHint != "" {
			e.Hint = oneLine(p.InstallHint)
		}
	case strings.Contains(cause, "standard input"):
		e.Reason = fmt.Sprintf("%s wants to ask for credentials, but there is no terminal", plugin)
		e.Hint = "log in with " + c.kubectl("", "auth whoami") + " first, then try again"
	default:
		e.Reason = fmt.Sprintf("%s, from which the kubeconfig gets credentials, failed: %s", plugin, cause)
		e.Hint = "log in to the cluster again, then check with: " + c.kubectl("", "auth whoami")
	}
}

// explainNetwork fills e in for a server that could not be talked to.
func (c *Client) explainNetwork(e *Error) {
	var (
		dns      *net.DNSError
		op       *net.OpError
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
		server   = "the API server " + c.Server()
		where    = "is the right cluster selected and its network (VPN) up? " + c.kubectl("", "cluster-info")
	)
	switch err := e.Err; {
	case errors.As(err, &dns):
		e.ID = idUnreachable
		e.Reason, e.Hint = fmt.Sprintf("%s cannot be found: no address for %s", server, dns.Name), where
	case errors.As(err, &unknown):
		e.ID = idCertificate
		e.Reason = server + " shows a certificate that the kubeconfig's authority did not sign"
		e.Hint = "get a fresh kubeconfig, or name the authority's file with --certificate-authority"
	case errors.As(err, &hostname):
		e.ID = idCertificate
		e.Reason = fmt.Sprintf("%s shows a certificate for another name: %v", server, hostname)
		e.Hint = "name the one in the certificate with --tls-server-name"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		e.ID = idCertificate
		e.Reason = server + " shows a certificate that has expired or is not valid yet"
		e.Hint = "check this machine's clock, then tell the cluster's administrator"
	case errors.As(err, &op) && op.Op == "proxyconnect":
		e.ID = idUnreachable
		e.Reason = fmt.Sprintf("the proxy before %s cannot be reached: %v", server, op.Err)
		e.Hint = "check proxy-url in the kubeconfig, HTTPS_PROXY and NO_PROXY"
	case errors.As(err, &op) && op.Op == "dial":
		e.ID = idUnreachable
		e.Reason, e.Hint = fmt.Sprintf("%s cannot be reached: %v", server, op.Err), where
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		e.ID = idUnreachable
		e.Reason, e.Hint = server+" did not answer in time", where
	case strings.Contains(err.Error(), "expired certificate"): // the alert's type is not exported
		e.ID = "BN1005"
		e.Reason = server + " refuses the client certificate: it has expired"
		e.Hint = "get a fresh kubeconfig for this cluster"
	case errors.As(err, &op):
		e.Reason, e.Hint = fmt.Sprintf("%s broke the connection: %v", server, op.Err), where
	}
}

// certificateEnd returns when the certificate in PEM data, or else in file, ends.
func certificateEnd(data []byte, file string) (time.Time, bool) {
	if len(data) == 0 && file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return time.Time{}, false
		}
		data = b
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return time.Time{}, false
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return time.Time{}, false
	}
	return cert.NotAfter, true
}

// oneLine joins the lines of a message and bounds its length.
func oneLine(s string) string {
	const limit = 600
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return s
}
