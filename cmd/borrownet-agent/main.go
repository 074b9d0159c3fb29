// Command borrownet-agent is borrownet's half in the pod: it runs in an
// ephemeral container and gives one client's programs the pod's network.
//
// It prints one JSON line for its client on standard output and logs JSON
// lines after it, so that the cluster's log collection keeps the record. If its
// standard input is a pipe, carriers come over the two, and it logs on standard error.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/borrownet/borrownet/agent"
	"github.com/borrownet/borrownet/agent/wire"
	"github.com/borrownet/borrownet/netstack/reclaim"
	"github.com/borrownet/borrownet/netstack/wg"
)

// version is set by the linker.
var version = "devel"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run() error {
	var (
		clientKey = flag.String("client-key", "", "the client's WireGuard public key, base64")
		idleTTL   = flag.Duration("idle-ttl", agent.DefaultIdleTTL, "end after so long without a client")
		hardTTL   = flag.Duration("hard-ttl", agent.DefaultHardTTL, "end after so long in any case")
		localhost = flag.String("localhost", "", "comma-separated TCP ports of the pod's loopback that the client may reach")
		metadata  = flag.String("metadata", "", "comma-separated addresses of metadata services that programs may reach")
		direct    = flag.Bool("direct", false, "open a UDP port on the pod's address when the client asks for it")
		verbose   = flag.Bool("v", false, "log every flow")
	)
	flag.Parse()
	key, err := wg.ParsePublicKey(*clientKey)
	if err != nil {
		return fmt.Errorf("-client-key: %w", err)
	}
	ports, err := parsePorts(*localhost)
	if err != nil {
		return fmt.Errorf("-localhost: %w", err)
	}
	services, err := parseMetadata(*metadata)
	if err != nil {
		return fmt.Errorf("-metadata: %w", err)
	}
	level := slog.LevelInfo
	if *verbose {
		level = slog.LevelDebug
	}
	stdio, record := standardStreams()
	log := slog.New(slog.NewJSONHandler(record, &slog.HandlerOptions{Level: level}))

	memory := agent.MemoryBudget()
	agent.LimitMemory(memory)
	if err := agent.YieldToApplication(); err != nil {
		log.Warn("oom_score_adj", "err", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go reclaim.Run(ctx) // ends with the process
	ln, err := agent.Listen()
	if err != nil {
		return fmt.Errorf("listen for carriers: %w", err)
	}
	cfg := agent.Config{
		ClientKey: key,
		Network:   agent.Kernel{},
		Listener:  ln,
		Hello:     os.Stdout,
		Stdio:     stdio,
		Version:   version,
		Env:       podEnv(os.Environ()),
		Volumes:   agent.Mounts{},
		IdleTTL:   *idleTTL,
		HardTTL:   *hardTTL,
		Memory:    memory,
		Policy: agent.Policy{
			HostIPs: append(hostIPs(os.Getenv("BORROWNET_HOST_IP")), agent.Gateways()...), Localhost: ports, Metadata: services,
		},
		Logger: log,
	}
	if *direct {
		cfg.Direct = agent.ListenDirect
	}
	a, err := agent.New(cfg)
	if err != nil {
		ln.Close()
		return err
	}
	context.AfterFunc(ctx, func() { time.AfterFunc(termination, func() { os.Exit(0) }) })
	return a.Run(ctx)
}

// standardStreams returns the streams that carriers may come over, nil if the
// container has no standard input, and where to log: a client that is attached and
// broken can hold up the one stream, not the other.
func standardStreams() (*agent.Stdio, io.Writer) {
	info, err := os.Stdin.Stat()
	if err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		return nil, os.Stdout
	}
	return &agent.Stdio{In: pollable(os.Stdin), Out: pollable(os.Stdout)}, os.Stderr
}

// pollable returns f so that its Close ends a Read or a Write in progress.
func pollable(f *os.File) *os.File {
	if err := syscall.SetNonblock(int(f.Fd()), true); err != nil {
		return f
	}
	return os.NewFile(f.Fd(), f.Name())
}

// termination bounds the clean end after SIGTERM: as process 1 of its
// container the agent would otherwise delay the pod's deletion.
const termination = 800 * time.Millisecond

// podEnv leaves out the agent's own variables.
func podEnv(env []string) []string {
	var pod []string
	for _, kv := range env {
		if !strings.HasPrefix(kv, "BORROWNET_") {
			pod = append(pod, kv)
		}
	}
	return pod
}

func hostIPs(list string) []netip.Addr {
	var ips []netip.Addr
	for s := range strings.SplitSeq(list, ",") {
		if ip, err := netip.ParseAddr(s); err == nil {
			ips = append(ips, ip)
		}
	}
	return ips
}

func parsePorts(list string) ([]uint16, error) {
	if list == "" {
		return nil, nil
	}
	var ports []uint16
	for s := range strings.SplitSeq(list, ",") {
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("%q is not a port", s)
		}
		ports = append(ports, uint16(n))
	}
	return ports, nil
}

func parseMetadata(list string) ([]netip.Addr, error) {
	if list == "" {
		return nil, nil
	}
	var addrs []netip.Addr
	for s := range strings.SplitSeq(list, ",") {
		a, err := netip.ParseAddr(s)
		if err != nil || !wire.IsMetadata(a) {
			return nil, fmt.Errorf("%q is not the address of a metadata service", s)
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}
