package netns

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/netstack/flow"
)

// domainReserved asks for reservedPorts, to write to, instead of a socket.
const domainReserved = 0x4252

// reservedPorts is a file of the ports that a namespace's kernel gives to no socket that
// asks for any: what is written replaces what was (ip-sysctl).
const reservedPorts = "/proc/sys/net/ipv4/ip_local_reserved_ports"

// maxReserved bounds what is written there, in bytes: the kernel takes less than a page.
const maxReserved = 4000

// Avoid keeps the session's kernel from giving one of the ports to a socket that asks for
// any: a listener could not come to the laptop there. A program that names the port gets
// it all the same. Of many ports the lowest are avoided.
func (c *Client) Avoid(ports []uint16) error {
	fd, err := c.Socket(domainReserved, 0, 0)
	if err != nil {
		return fmt.Errorf("reserve ports of the session: %w", err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(portList(ports)+"\n")); err != nil {
		return &os.PathError{Op: "write", Path: reservedPorts, Err: err}
	}
	return nil
}

// portList is the list of ports as the kernel reads it: "61001-61003,61007".
func portList(ports []uint16) string {
	ports = slices.Clone(ports)
	slices.Sort(ports)
	ports = slices.Compact(ports)
	var list strings.Builder
	for i := 0; i < len(ports); {
		last := i
		for last+1 < len(ports) && ports[last+1] == ports[last]+1 {
			last++
		}
		one := strconv.Itoa(int(ports[i]))
		if last > i {
			one += "-" + strconv.Itoa(int(ports[last]))
		}
		if list.Len()+1+len(one) > maxReserved {
			break
		}
		if list.Len() > 0 {
			list.WriteByte(',')
		}
		list.WriteString(one)
		i = last + 1
	}
	return list.String()
}

// Taken lists the ports from FirstAutoPort on that somebody listens on in this process's
// own namespace.
func Taken() ([]uint16, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	var found []Port
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		if found, err = dumpPorts(fd, family, flow.TCP, stateListen, found); err != nil {
			return nil, fmt.Errorf("list listeners: %w", err)
		}
	}
	var taken []uint16
	for _, f := range found {
		if port := f.At.Port(); port >= FirstAutoPort {
			taken = append(taken, port)
		}
	}
	slices.Sort(taken)
	return slices.Compact(taken), nil
}
