// Package cni is the lab's own network plugin: Debian's bridge plugin, with two
// changes per pod. Pods whose name begins with "api-v4" get no IPv6 address, and
// no pod waits for duplicate address detection, which takes up to two seconds.
package cni

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Name is what the plugin is called by.
const Name = "lab-bridge"

const (
	delegate   = "/opt/cni/bin/bridge"
	onlyV4     = "api-v4"
	acceptDAD  = "/proc/sys/net/ipv6/conf/default/accept_dad"
	commandAdd = "ADD"
	podNameArg = "K8S_POD_NAME="
)

// Main is the plugin: the network configuration comes on stdin, the rest in the
// environment (CNI specification 0.4, "Parameters").
func Main(in io.Reader, out io.Writer) (code int) {
	conf, err := io.ReadAll(in)
	if err == nil && onlyIPv4(os.Getenv("CNI_ARGS")) {
		conf, err = withoutIPv6(conf)
	}
	if err == nil && os.Getenv("CNI_COMMAND") == commandAdd {
		err = skipDAD(os.Getenv("CNI_NETNS"))
	}
	if err != nil {
		return fail(out, err)
	}
	cmd := exec.Command(delegate)
	cmd.Stdin = bytes.NewReader(conf)
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	err = cmd.Run()
	if cmd.ProcessState == nil {
		return fail(out, err)
	}
	return cmd.ProcessState.ExitCode()
}

// onlyIPv4 reports whether the pod of these CNI_ARGS is to have no IPv6.
func onlyIPv4(args string) bool {
	for arg := range strings.SplitSeq(args, ";") {
		if name, ok := strings.CutPrefix(arg, podNameArg); ok {
			return strings.HasPrefix(name, onlyV4)
		}
	}
	return false
}

// withoutIPv6 drops the IPv6 ranges and routes from the configuration of the
// host-local address plugin, and keeps everything else.
func withoutIPv6(conf []byte) ([]byte, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(conf, &all); err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	var ipam map[string]json.RawMessage
	if err := json.Unmarshal(all["ipam"], &ipam); err != nil {
		return nil, fmt.Errorf("read ipam: %w", err)
	}
	var ranges [][]map[string]any
	if err := json.Unmarshal(ipam["ranges"], &ranges); err != nil {
		return nil, fmt.Errorf("read ranges: %w", err)
	}
	var kept [][]map[string]any
	for _, set := range ranges {
		if len(set) > 0 && !strings.Contains(fmt.Sprint(set[0]["subnet"]), ":") {
			kept = append(kept, set)
		}
	}
	var err error
	if ipam["ranges"], err = json.Marshal(kept); err != nil {
		return nil, err
	}
	ipam["routes"] = json.RawMessage(`[{"dst":"0.0.0.0/0"}]`)
	if all["ipam"], err = json.Marshal(ipam); err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

// skipDAD makes addresses of devices still to come in the network namespace
// usable at once.
func skipDAD(netns string) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	pod, err := os.Open(netns)
	if err != nil {
		return err
	}
	defer pod.Close()
	if err := unix.Setns(int(pod.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter %s: %w", netns, err)
	}
	if err := os.WriteFile(acceptDAD, []byte("0"), 0); err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("leave %s: %w", netns, err)
	}
	runtime.UnlockOSThread()
	return nil
}

// fail answers in the form of the specification's "Error".
func fail(out io.Writer, err error) int {
	b, _ := json.Marshal(map[string]any{"cniVersion": "0.4.0", "code": 100, "msg": Name + ": " + err.Error()})
	_, _ = out.Write(b)
	return 1
}
