package node

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/borrownet/borrownet/integration/lab/internal/spec"
)

// links gives the node its address. There is no dummy driver in every kernel,
// so the device is one end of a pair whose other end goes nowhere: the default
// route leads to silence, not out.
const links = `link set lo up
link add node0 type veth peer name node0p
address add ` + spec.NodeIP + `/24 dev node0
address add ` + spec.NodeIP6 + `/64 dev node0 nodad
link set node0 up
link set node0p up
route add default dev node0
route add ::/0 dev node0
route add blackhole ` + spec.BlackHole + `
route add blackhole ` + spec.BlackHole6 + `
route add unreachable ` + spec.Unreachable + `
route add unreachable ` + spec.Unreachable6 + `
`

// wire joins the laptop to the node.
const wire = `link add ` + spec.LaptopWire + ` type veth peer name eth0 netns %[1]d
address add ` + spec.LaptopGateway + `/24 dev ` + spec.LaptopWire + `
link set ` + spec.LaptopWire + ` up
`

// policy lets the laptop talk to the API server and to nothing else. It looks
// at packets before the proxy's rules rewrite the address of a Service: the
// Service kubernetes ends at the API server too, but the laptop has no Services.
const policy = `table inet laptop {
	chain from {
		type filter hook prerouting priority raw; policy accept;
		iifname ` + spec.LaptopWire + ` ip daddr ` + spec.NodeIP + ` tcp dport ` + spec.APIPort + ` accept
		iifname ` + spec.LaptopWire + ` drop
	}
	chain to {
		type filter hook output priority filter; policy accept;
		oifname ` + spec.LaptopWire + ` ip saddr ` + spec.NodeIP + ` tcp sport ` + spec.APIPort + ` accept
		oifname ` + spec.LaptopWire + ` drop
	}
	chain through {
		type filter hook forward priority filter; policy accept;
		iifname ` + spec.LaptopWire + ` drop
		oifname ` + spec.LaptopWire + ` drop
	}
}
`

// netSysctls are of the network namespace, not of the host.
var netSysctls = []struct{ name, value string }{
	{"net/ipv4/ip_forward", "1"},
	{"net/ipv6/conf/all/forwarding", "1"},
	// Tests provoke many ICMP errors in a row; each one has to come.
	{"net/ipv4/icmp_ratelimit", "0"},
	{"net/ipv6/icmp/ratelimit", "0"},
	// Pods on the same bridge reach each other's Services through the proxy's rules.
	{"net/bridge/bridge-nf-call-iptables", "1"},
	{"net/bridge/bridge-nf-call-ip6tables", "1"},
}

func setUpNetwork(ctx context.Context) error {
	for _, s := range netSysctls {
		if err := os.WriteFile(filepath.Join("/proc/sys", s.name), []byte(s.value), 0); err != nil {
			return fmt.Errorf("set %s: %w (is the module loaded? modprobe br_netfilter)", s.name, err)
		}
	}
	if err := feed(ctx, links, "ip", "-batch", "-"); err != nil {
		return err
	}
	return feed(ctx, policy, "nft", "-f", "-")
}

// connectLaptop makes the wire into the network namespace of process pid.
func connectLaptop(ctx context.Context, pid int) error {
	return feed(ctx, fmt.Sprintf(wire, pid), "ip", "-batch", "-")
}

// feed runs a command with script as its input.
func feed(ctx context.Context, script, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
