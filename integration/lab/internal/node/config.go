package node

import (
	"bytes"
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"text/template"

	"github.com/borrownet/borrownet/integration/lab/internal/spec"
)

// cniConfig is what containerd connects pods by.
const cniConfig = "/etc/cni/net.d/10-lab.conflist"

//go:embed config
var configs embed.FS

// writeConfigs fills the embedded templates in. The lab's /etc and /opt are
// overlays, so writing there leaves the host as it is.
func writeConfigs(s spec.Spec) error {
	values := struct {
		spec.Machine
		Dir, DNSIP string
		// LostSoon says that a node which is silent is soon known to be lost.
		LostSoon bool
	}{s.Machine(), s.Dir, spec.DNSIP, s.Nodes > 1}
	for name, dst := range map[string]string{
		"containerd.toml": "/etc/containerd/config.toml",
		"cni.conflist":    cniConfig,
		"audit.yaml":      s.Path("audit.yaml"),
		"kubelet.yaml":    s.Path("kubelet.yaml"),
		"kube-proxy.yaml": s.Path("kube-proxy.yaml"),
	} {
		t, err := template.ParseFS(configs, "config/"+name)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		if err := t.Execute(&b, values); err != nil {
			return fmt.Errorf("fill in %s: %w", name, err)
		}
		if err := write(dst, b.Bytes()); err != nil {
			return err
		}
	}
	// What pods with dnsPolicy Default get: nothing outside is to be asked.
	return write(s.Path("resolv.conf"), []byte("nameserver 127.0.0.1\n"))
}

// installPlugins puts Debian's CNI plugins and the lab's own into one directory,
// since containerd 1.x takes only one.
func installPlugins(labBinary string) error {
	const from, to = "/usr/lib/cni", "/opt/cni/bin"
	if err := os.RemoveAll(to); err != nil { // of the overlay: the host's stay
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	plugins, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, p := range plugins {
		if err := os.Symlink(filepath.Join(from, p.Name()), filepath.Join(to, p.Name())); err != nil {
			return err
		}
	}
	return os.Symlink(labBinary, filepath.Join(to, "lab-bridge"))
}

func write(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}
