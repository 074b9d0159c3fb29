package session

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// maxSocketTable bounds what is read of a kernel's socket table.
const maxSocketTable = 4 << 20

// hasUDPPort reports whether a socket of the network namespace of process pid
// has the UDP port, proc_net(5). When that cannot be known it says no.
func hasUDPPort(pid int, port uint16) bool {
	for _, table := range []string{"udp", "udp6"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			continue
		}
		found := socketTableHas(f, port)
		f.Close()
		if found {
			return true
		}
	}
	return false
}

// socketTableHas looks for a local port in the text of /proc/net/udp.
func socketTableHas(r io.Reader, port uint16) bool {
	lines := bufio.NewScanner(io.LimitReader(r, maxSocketTable))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		_, hex, ok := strings.Cut(fields[1], ":")
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(hex, 16, 16); err == nil && uint16(n) == port {
			return true
		}
	}
	return false
}
