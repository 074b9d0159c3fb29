// Package resolved starts systemd-resolved, as the laptops of Ubuntu, Fedora and Arch have it, in the namespaces of
// its caller, which must be private ones: its sockets are at fixed places. There is no systemd; the D-Bus that
// resolvectl asks it by is one of its own.
package resolved

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"time"
)

// Dir is where the programs are on the laptop: systemd-resolved, resolvectl, and in lib what they and a C library's
// nss-resolve are linked with.
const Dir = "/run/lab/resolved"

// Nameserver is that of the laptop's network, and CorpNameserver that of its device eth0 for CorpDomain, as a VPN has
// one. Nobody listens there but tests.
const (
	Nameserver     = "10.77.1.2:5300"
	CorpNameserver = "10.77.1.2:5301"
	CorpDomain     = "corp.example.org"
	SearchDomain   = "home.example"
)

const (
	state = "/run/systemd/resolve"
	links = "/run/systemd/netif/links"
	bus   = "/run/dbus/system_bus_socket"
	stub  = "127.0.0.53:53"

	busFile    = "/run/dbus/system.conf"
	userName   = "systemd-resolve"
	userID     = 1101
	startLimit = 3 * time.Minute
)

// busConf lets everybody ask everybody: nothing else is on this bus.
const busConf = `<busconfig>
<type>system</type>
<listen>unix:path=` + bus + `</listen>
<auth>EXTERNAL</auth>
<policy context="default">
<allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
</policy>
</busconfig>
`

const conf = `[Resolve]
DNS=` + Nameserver + `
FallbackDNS=
Domains=` + SearchDomain + `
LLMNR=no
MulticastDNS=no
DNSSEC=no
`

// link is what systemd-networkd would say of a device.
const link = "ADMIN_STATE=configured\nOPER_STATE=routable\nDNS=" + CorpNameserver + "\nROUTE_DOMAINS=" + CorpDomain + "\n"

// Start starts it and returns when it answers. Its log is in logs. The caller has to reap it.
func Start(logs string) error {
	if err := configure(); err != nil {
		return fmt.Errorf("configure systemd-resolved: %w", err)
	}
	if err := start(logs, "unix", bus, "dbus-daemon", "--nofork", "--nopidfile", "--config-file="+busFile); err != nil {
		return err
	}
	return start(logs, "tcp", stub, filepath.Join(Dir, "systemd-resolved"))
}

// configure makes its user, its directories and its settings.
func configure() error {
	eth0, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	uid, err := ownUser()
	if err != nil {
		return err
	}
	// The machine's own settings are not for this one.
	if err := os.RemoveAll("/etc/systemd/resolved.conf.d"); err != nil {
		return err
	}
	for file, text := range map[string]string{
		"/etc/systemd/resolved.conf":                   conf,
		filepath.Join(links, strconv.Itoa(eth0.Index)): link,
		busFile: busConf,
	} {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(state, 0o755); err != nil {
		return err
	}
	return os.Chown(state, uid, uid)
}

// ownUser returns the number of its user, which it makes if the machine has none.
func ownUser() (int, error) {
	if u, err := user.Lookup(userName); err == nil {
		return strconv.Atoi(u.Uid)
	}
	for file, line := range map[string]string{"/etc/passwd": "%s:x:%d:%[2]d::/:/usr/sbin/nologin\n", "/etc/group": "%s:x:%d:\n"} {
		f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return 0, err
		}
		_, err = fmt.Fprintf(f, line, userName, userID)
		if err := errors.Join(err, f.Close()); err != nil {
			return 0, err
		}
	}
	return userID, nil
}

// start starts a program and returns when something listens at an address.
func start(logs, network, address, name string, args ...string) error {
	log, err := os.Create(filepath.Join(logs, filepath.Base(name)+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+filepath.Join(Dir, "lib"))
	if err := cmd.Start(); err != nil {
		return err
	}
	for limit := time.Now().Add(startLimit); ; time.Sleep(10 * time.Millisecond) { // nothing announces it
		c, err := net.Dial(network, address)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(limit) {
			text, _ := os.ReadFile(log.Name())
			return fmt.Errorf("start %s: %w: %s", name, err, bytes.TrimSpace(text))
		}
	}
}
