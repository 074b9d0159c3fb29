package kube

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// New returns a client for the cluster that f selects. It reads the
// kubeconfig but does not talk to the cluster.
func New(f Flags) (*Client, error) {
	c := &Client{
		log:     f.Logger,
		timeout: f.RequestTimeout,
		suffix:  randomSuffix,
		flags:   hintFlags(f),
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.timeout <= 0 {
		c.timeout = 30 * time.Second
	}
	if err := c.loadConfig(f); err != nil {
		return nil, err
	}
	if err := c.openTransports(); err != nil {
		return nil, &Error{Op: "use", Object: "context " + c.context, Reason: oneLine(err.Error()), Err: err,
			Hint: c.kubectl("", "config view --minify")}
	}
	return c, nil
}

// Close drops idle connections. Carriers stay open.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	utilnet.CloseIdleConnectionsFor(c.upgrade)
	return nil
}

// loadConfig reads the kubeconfig and applies the flags to it.
func (c *Client) loadConfig(f Flags) error {
	rules := loadingRules(f)
	places := strings.Join(append(rules.Precedence, nonEmpty(f.Kubeconfig)...), ", ")
	raw, err := rules.Load()
	if err != nil {
		e := &Error{ID: "BN1001", Op: "read", Object: "kubeconfig " + places, Reason: oneLine(err.Error()), Err: err,
			Hint: "kubectl config view"}
		if errors.Is(err, os.ErrNotExist) {
			e.Reason = "there is no such file"
			e.Hint = "name an existing kubeconfig with --kubeconfig, or set KUBECONFIG"
		}
		return e
	}
	c.context = f.Context
	if c.context == "" {
		c.context = raw.CurrentContext
	}
	loaded := clientcmd.NewNonInteractiveClientConfig(*raw, f.Context, overrides(f), rules)
	if c.config, err = loaded.ClientConfig(); err != nil {
		return c.explainConfig(f, raw, places, err)
	}
	if c.namespace, _, err = loaded.Namespace(); err != nil {
		return c.explainConfig(f, raw, places, err)
	}
	if !validNamespace(c.namespace) {
		return &Error{Op: "use", Object: fmt.Sprintf("namespace %q", c.namespace), Reason: "that is no name of a namespace",
			Hint: "name one with -n: " + c.kubectl("", "get namespaces")}
	}
	c.config.Timeout = 0 // would cut streams; each unary request has its own
	c.config.UserAgent = "borrownet"
	c.config.Dial = newDialer().DialContext
	if p := c.config.ExecProvider; p != nil && !f.Stdin {
		p.StdinUnavailable = true
		p.StdinUnavailableMessage = "borrownet has no terminal to ask on"
	}
	c.useEnvironment(f.Env)
	return nil
}

// loadingRules say which files make up the kubeconfig.
func loadingRules(f Flags) *clientcmd.ClientConfigLoadingRules {
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: f.Kubeconfig}
	if f.Kubeconfig == "" {
		rules.Precedence = kubeconfigPaths(lookup(f.Env))
	}
	return rules
}

// Contexts returns the names of the kubeconfig's contexts, in order.
func Contexts(f Flags) ([]string, error) {
	raw, err := loadingRules(f).Load()
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	return slices.Sorted(maps.Keys(raw.Contexts)), nil
}

// explainConfig tells why a kubeconfig that could be read selects no cluster.
func (c *Client) explainConfig(f Flags, raw *clientcmdapi.Config, places string, err error) error {
	e := &Error{ID: "BN1001", Op: "read", Object: "kubeconfig " + places, Reason: oneLine(err.Error()), Err: err, Hint: "kubectl config view"}
	_, known := raw.Contexts[f.Context]
	switch {
	case len(raw.Contexts) > 0 && f.Context == "" && raw.CurrentContext == "":
		e.Reason = "it has no current context"
		e.Hint = "kubectl config use-context NAME, or give --context NAME"
	case clientcmd.IsEmptyConfig(err):
		e.Reason = "it names no cluster, or the file does not exist"
		e.Hint = "set KUBECONFIG or --kubeconfig to the file that kubectl uses for this cluster"
	case f.Context != "" && !known:
		e.ID, e.Op, e.Object = "BN1002", "use", "context "+f.Context
		e.Reason = "the kubeconfig has no such context"
		e.Hint = "kubectl config get-contexts"
	case clientcmd.IsContextNotFound(err):
		e.ID = "BN1002"
		e.Reason = fmt.Sprintf("its current context %q does not exist", raw.CurrentContext)
		e.Hint = "kubectl config get-contexts"
	}
	return e
}

// openTransports builds the HTTP clients. Upgrades need HTTP/1.1, the rest
// shares one HTTP/2 connection where the server has it.
func (c *Client) openTransports() error {
	var err error
	if c.base, _, err = rest.DefaultServerUrlFor(c.config); err != nil {
		return fmt.Errorf("server address: %w", err)
	}
	if c.http, err = rest.HTTPClientFor(c.config); err != nil {
		return err
	}
	upgrade := rest.CopyConfig(c.config)
	upgrade.NextProtos = []string{"http/1.1"}
	upgrade.Dial = corkDialer()
	c.upgrade, err = rest.TransportFor(upgrade)
	return err
}

// useEnvironment makes proxies and exec plugins see env instead of the
// environment of this process.
func (c *Client) useEnvironment(env []string) {
	if env == nil {
		return
	}
	get := lookup(env)
	if c.config.Proxy == nil {
		either := func(name string) string {
			if v := get(name); v != "" {
				return v
			}
			return get(strings.ToLower(name))
		}
		proxy := (&httpproxy.Config{
			HTTPProxy: either("HTTP_PROXY"), HTTPSProxy: either("HTTPS_PROXY"), NoProxy: either("NO_PROXY"),
		}).ProxyFunc()
		c.config.Proxy = func(r *http.Request) (*url.URL, error) { return proxy(r.URL) }
	}
	if c.config.ExecProvider == nil {
		return
	}
	exec := c.config.ExecProvider.DeepCopy()
	given := exec.Env
	exec.Env = nil
	for _, kv := range env {
		if k, v, ok := strings.Cut(kv, "="); ok {
			exec.Env = append(exec.Env, clientcmdapi.ExecEnvVar{Name: k, Value: v})
		}
	}
	exec.Env = append(exec.Env, given...) // the kubeconfig's own win
	c.config.ExecProvider = exec
}

func overrides(f Flags) *clientcmd.ConfigOverrides {
	o := &clientcmd.ConfigOverrides{CurrentContext: f.Context}
	o.Context.Cluster, o.Context.AuthInfo, o.Context.Namespace = f.Cluster, f.User, f.Namespace
	o.ClusterInfo.Server = f.Server
	o.ClusterInfo.TLSServerName = f.TLSServerName
	o.ClusterInfo.CertificateAuthority = f.CertificateAuthority
	o.ClusterInfo.InsecureSkipTLSVerify = f.InsecureSkipVerify
	o.AuthInfo.Token = f.Token
	o.AuthInfo.ClientCertificate, o.AuthInfo.ClientKey = f.ClientCertificate, f.ClientKey
	o.AuthInfo.Impersonate, o.AuthInfo.ImpersonateUID, o.AuthInfo.ImpersonateGroups = f.As, f.AsUID, f.AsGroups
	return o
}

// kubeconfigPaths are the files that kubectl would merge.
func kubeconfigPaths(env func(string) string) []string {
	if list := env("KUBECONFIG"); list != "" {
		var out []string
		for _, p := range filepath.SplitList(list) {
			out = append(out, nonEmpty(p)...)
		}
		return out
	}
	if home := env("HOME"); home != "" {
		return []string{filepath.Join(home, ".kube", "config")}
	}
	return nil
}

// lookup returns a function that reads env, or this process's environment when env is nil.
func lookup(env []string) func(string) string {
	if env == nil {
		return os.Getenv
	}
	return func(name string) string {
		for i := len(env) - 1; i >= 0; i-- {
			if v, ok := strings.CutPrefix(env[i], name+"="); ok {
				return v
			}
		}
		return ""
	}
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// hintFlags are the flags that a command in a hint needs to reach the same cluster.
func hintFlags(f Flags) string {
	var b strings.Builder
	if f.Kubeconfig != "" {
		b.WriteString(" --kubeconfig " + f.Kubeconfig)
	}
	if f.Context != "" {
		b.WriteString(" --context " + f.Context)
	}
	return b.String()
}

// kubectl returns a kubectl command line for a hint.
func (c *Client) kubectl(namespace, args string) string {
	if namespace != "" {
		return "kubectl" + c.flags + " -n " + namespace + " " + args
	}
	return "kubectl" + c.flags + " " + args
}

// randomSuffix returns five characters that are valid in a name.
func randomSuffix() string { return strings.ToLower(rand.Text()[:5]) }
