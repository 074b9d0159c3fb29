package capture

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// helperSocket is the descriptor on which a helper sends what it opened.
const helperSocket = 3

// HelperMain opens a packet socket, sends it on descriptor 3 and returns the process's exit status. It is the whole of
// the program whose file has CAP_NET_RAW: it reads nothing, takes no arguments and ends at once.
func HelperMain() int {
	fd, err := openPacketSocket()
	if err == nil {
		err = os.NewSyscallError("sendmsg", unix.Sendmsg(helperSocket, []byte{0}, unix.UnixRights(fd), nil, 0))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// fromHelper gets a packet socket from a helper.
func fromHelper(helper string) (int, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socketpair", err)
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "socket of the capture helper")
	defer theirs.Close()
	var output bytes.Buffer
	cmd := exec.Command(helper)
	cmd.Env = []string{}
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = &output
	if err := cmd.Run(); err != nil {
		return -1, helperFailed(err, strings.TrimSpace(output.String()))
	}
	return receiveSocket(pair[0])
}

// helperFailed says why a helper could not be executed or opened no socket. A file with a capability that the container's
// bounding set lacks cannot be executed at all (capabilities(7)).
func helperFailed(err error, output string) error {
	_, ended := errors.AsType[*exec.ExitError](err)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: the agent's image has no capture helper", ErrNotPermitted)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: the container's runtime does not give it CAP_NET_RAW", ErrNotPermitted)
	case ended && strings.Contains(output, "operation not permitted"):
		return fmt.Errorf("%w: the container may not gain CAP_NET_RAW from a file, or its node has dropped that from the image", ErrNotPermitted)
	}
	return fmt.Errorf("run capture helper: %w: %s", err, output)
}

// receiveSocket takes the descriptor that a helper has sent.
func receiveSocket(conn int) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(conn, make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return -1, os.NewSyscallError("recvmsg", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return -1, errors.New("the capture helper has sent no socket")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, errors.New("the capture helper has sent no socket")
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return -1, errors.Join(os.NewSyscallError("fcntl", err), unix.Close(fds[0]))
	}
	return fds[0], nil
}
