package node

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/borrownet/borrownet/integration/lab/internal/cgroup"
	"github.com/borrownet/borrownet/integration/lab/internal/spec"
)

// nodes are the components that every node has, and not the control plane.
var nodes = []string{"containerd", "kubelet", "kube-proxy"}

// components runs the long-lived processes of the node and tells of the first
// one that ends, since none of them may.
type components struct {
	spec spec.Spec
	died chan error // the first death; never closed
}

func newComponents(s spec.Spec) *components {
	return &components{spec: s, died: make(chan error, 1)}
}

// start runs exe under name with its output in the log directory. The process
// lives as long as the node does.
func (c *components) start(name, exe string, args ...string) error {
	logFile := c.spec.Path("log", name+".log")
	f, err := os.OpenFile(logFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd := &exec.Cmd{
		Path:   exe,
		Args:   append([]string{name}, args...),
		Stdout: f,
		Stderr: f,
		Env:    os.Environ(),
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	if c.spec.NodeFirst && !slices.Contains(nodes, name) {
		if err := cgroup.MoveIdle("", cmd.Process.Pid); err != nil {
			return fmt.Errorf("make way for the node: %w", err)
		}
	}
	go func() { // ends with the process, which ends with the node
		c.end(fmt.Errorf("%s ended (%v), see its log", name, cmd.Wait()))
	}()
	return nil
}

// end tells why the node ends. The first to say so is heard.
func (c *components) end(why error) {
	select {
	case c.died <- why:
	default:
	}
}

func (c *components) kubernetes(name string, args ...string) error {
	return c.start(name, filepath.Join(c.spec.Kit, "hyperkube"), args...)
}

func (c *components) containerd() error {
	exe, err := exec.LookPath("containerd")
	if err != nil {
		return err
	}
	return c.start("containerd", exe, "--config", "/etc/containerd/config.toml")
}

func (c *components) etcd() error {
	return c.kubernetes("etcd",
		"--data-dir="+c.spec.Path("etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
		"--initial-cluster=default=http://127.0.0.1:2380")
}

func (c *components) apiserver() error {
	pki := c.spec.Path("pki") + "/"
	return c.kubernetes("kube-apiserver",
		"--etcd-servers=http://127.0.0.1:2379",
		"--advertise-address="+spec.NodeIP, "--secure-port="+spec.APIPort,
		"--service-cluster-ip-range="+spec.SvcCIDR+","+spec.SvcCIDR6,
		"--client-ca-file="+pki+"ca.crt",
		"--tls-cert-file="+pki+"apiserver.crt", "--tls-private-key-file="+pki+"apiserver.key",
		"--kubelet-certificate-authority="+pki+"ca.crt",
		"--kubelet-client-certificate="+pki+"apiserver-kubelet.crt",
		"--kubelet-client-key="+pki+"apiserver-kubelet.key",
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file="+pki+"sa.pub", "--service-account-signing-key-file="+pki+"sa.key",
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--audit-policy-file="+c.spec.Path("audit.yaml"), "--audit-log-path="+c.spec.Path("log", "audit.log"),
		"--allow-privileged=true", "--profiling=false")
}

// controllers starts the controller manager and the scheduler. With the default
// rate of requests the controllers alone would take five seconds to start.
func (c *components) controllers() error {
	rate := []string{"--leader-elect=false", "--profiling=false", "--kube-api-qps=500", "--kube-api-burst=1000"}
	manager := rate
	if c.spec.Nodes > 1 { // after fifty seconds of silence, else, and looked at every five
		manager = append(slices.Clone(rate), "--node-monitor-grace-period=16s", "--node-monitor-period=1s")
	}
	if err := c.kubernetes("kube-controller-manager", append(manager,
		"--kubeconfig="+c.spec.Path("kubeconfig", "controller-manager"),
		"--use-service-account-credentials=true",
		"--root-ca-file="+c.spec.Path("pki", "ca.crt"),
		"--service-account-private-key-file="+c.spec.Path("pki", "sa.key"))...); err != nil {
		return err
	}
	return c.kubernetes("kube-scheduler", append(rate,
		"--kubeconfig="+c.spec.Path("kubeconfig", "scheduler"))...)
}

// agents starts the kubelet and the proxy.
func (c *components) agents() error {
	m := c.spec.Machine()
	if err := c.kubernetes("kubelet",
		"--config="+c.spec.Path("kubelet.yaml"),
		"--kubeconfig="+c.spec.Path("kubeconfig", "kubelet"),
		"--node-ip="+m.IP+","+m.IP6,
		"--hostname-override="+m.Name,
		"--root-dir=/var/lib/kubelet", "--v=2"); err != nil {
		return err
	}
	return c.kubernetes("kube-proxy", "--config="+c.spec.Path("kube-proxy.yaml"))
}
