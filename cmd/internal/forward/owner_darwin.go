package forward

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// askTimeout bounds the question whose a connection is.
const askTimeout = 2 * time.Second

// ownerOf returns this user's uid if one of his processes has the TCP socket at local that
// is connected to peer, else errNobody. lsof(8) tells a user of his own processes only.
func ownerOf(local, peer netip.AddrPort) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	uid := os.Getuid()
	out, err := exec.CommandContext(ctx, "/usr/sbin/lsof", "-nP", "-a", "-u", strconv.Itoa(uid), "-iTCP:"+strconv.Itoa(int(local.Port())), "-Fn").Output()
	if len(out) == 0 && err != nil { // its exit code is 1 where one of several things is not found
		return 0, fmt.Errorf("ask lsof whose it is: %w", err)
	}
	if !lists(out, local, peer) {
		return 0, errNobody
	}
	return uid, nil
}
