package netns

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAvoid: the session's kernel gives no port to who asks for any that is to be avoided,
// and each of them to who names it.
func TestAvoid(t *testing.T) {
	_, c := start(t, pod4)
	const free = 5
	var taken []uint16
	for port := FirstAutoPort; port <= 65535-free; port++ {
		taken = append(taken, uint16(port))
	}
	if err := c.Avoid(taken); errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) {
		t.Skipf("needs a /proc/sys that may be written: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	bind := func(port int) (int, error) {
		fd := socket(t, c, unix.AF_INET, unix.SOCK_STREAM)
		err := unix.Bind(fd, &unix.SockaddrInet4{Port: port})
		name, nerr := unix.Getsockname(fd)
		if nerr != nil {
			t.Fatal(nerr)
		}
		return name.(*unix.SockaddrInet4).Port, err
	}
	for range free {
		if port, err := bind(0); err != nil || slices.Contains(taken, uint16(port)) {
			t.Errorf("got port %d, %v", port, err)
		}
	}
	if port, err := bind(0); err != unix.EADDRINUSE {
		t.Errorf("got port %d, %v, want EADDRINUSE", port, err)
	}
	if _, err := bind(FirstAutoPort); err != nil {
		t.Errorf("the port by its number: %v", err)
	}
	if err := c.Avoid(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := bind(0); err != nil {
		t.Errorf("with nothing to avoid: %v", err)
	}
}

func TestPortList(t *testing.T) {
	var odd []uint16
	for port := 61001; port <= 65535; port += 2 {
		odd = append(odd, uint16(port))
	}
	if got := portList(odd); len(got) > maxReserved || !strings.HasPrefix(got, "61001,61003,") || len(got) < maxReserved-10 {
		t.Errorf("of many ports: %d bytes, %.20q", len(got), got)
	}
	for want, ports := range map[string][]uint16{
		"":                  nil,
		"61001":             {61001},
		"61001-61003,61007": {61007, 61002, 61001, 61003, 61002},
		"65534-65535":       {65535, 65534},
	} {
		if got := portList(ports); got != want {
			t.Errorf("%v: got %q, want %q", ports, got, want)
		}
	}
}
