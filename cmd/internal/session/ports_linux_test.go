package session

import (
	"net"
	"os"
	"strings"
	"testing"
)

const udpTableText = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  309: 0100007F:46A1 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 4242 2 0000000000000000 0
  401: 00000000000000000000000000000000:0035 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000  1000 0 7 2 0 0
 broken
`

func TestSocketTableHas(t *testing.T) {
	tests := []struct {
		name string
		port uint16
		want bool
	}{{"ipv4", 18081, true}, {"ipv6", 53, true}, {"remote", 0, false}, {"absent", 18082, false}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := socketTableHas(strings.NewReader(udpTableText), tt.port); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestHasUDPPort(t *testing.T) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(c.LocalAddr().(*net.UDPAddr).Port)
	if !hasUDPPort(os.Getpid(), port) {
		t.Error("an open port is not seen")
	}
	c.Close()
	if hasUDPPort(os.Getpid(), port) {
		t.Error("a closed port is seen")
	}
	if hasUDPPort(1<<22+1, port) {
		t.Error("a process that does not exist has a port")
	}
}
