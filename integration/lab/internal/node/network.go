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
` + silence

// silence are the routes by which nothing leads out.
const silence = `route add default dev node0
route add ::/0 dev node0
route add blackhole ` + spec.BlackHole + `
route add blackhole ` + spec.BlackHole6 + `
route add unreachable ` + spec.Unreachable + `
route add unreachable ` + spec.Unreachable6 + `
`

// secondLinks gives the second node its address, on the wire to the first, and the way to
// the pods there.
var secondLinks = fmt.Sprintf(`link set lo up
address add %[1]s/24 dev node0
address add %[2]s/64 dev node0 nodad
link set node0 up
route add %[3]s via %[4]s
route add %[5]s via %[6]s
`, spec.Second.IP, spec.Second.IP6, spec.First.PodCIDR, spec.First.IP, spec.First.PodCIDR6, spec.First.IP6) + silence

// secondWire joins the second node to the first, whose own addresses it has there too: those
// of its device node0 stay when the wire goes, which it does with the second node's power. The
// other end is not up yet, before which IPv6 makes no route of an address by itself.
var secondWire = fmt.Sprintf(`link add %[1]s type veth peer name node0 netns %%[1]d
address add %[2]s peer %[3]s dev %[1]s
address add %[4]s peer %[5]s dev %[1]s nodad
link set %[1]s up
route add %[6]s via %[3]s dev %[1]s
route add %[5]s/128 dev %[1]s
route add %[7]s via %[5]s dev %[1]s
`, spec.SecondWire, spec.First.IP, spec.Second.IP, spec.First.IP6, spec.Second.IP6, spec.Second.PodCIDR, spec.Second.PodCIDR6)

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

// setUpNetwork makes the network namespace of a node, by commands of ip.
func setUpNetwork(ctx context.Context, links string) error {
	for _, s := range netSysctls {
		if err := os.WriteFile(filepath.Join("/proc/sys", s.name), []byte(s.value), 0); err != nil {
			return fmt.Errorf("set %s: %w (is the module loaded? modprobe br_netfilter)", s.name, err)
		}
	}
	return feed(ctx, links, "ip", "-batch", "-")
}

// connectSecond makes the wire into the network namespace of process pid, the second node's.
func connectSecond(ctx context.Context, pid int) error {
	return feed(ctx, fmt.Sprintf(secondWire, pid), "ip", "-batch", "-")
}

// cutSecond takes the wire to the second node away, which else goes a moment after it.
func cutSecond(ctx context.Context) error {
	if _, err := os.Stat("/sys/class/net/" + spec.SecondWire); err != nil {
		return nil
	}
	err := feed(ctx, "link delete "+spec.SecondWire+"\n", "ip", "-batch", "-")
	if _, gone := os.Stat("/sys/class/net/" + spec.SecondWire); gone != nil {
		return nil
	}
	return err
}

// connectLaptop makes the wire into the network namespace of process pid, and what it lets through.
func connectLaptop(ctx context.Context, pid int) error {
	if err := feed(ctx, policy, "nft", "-f", "-"); err != nil {
		return err
	}
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
