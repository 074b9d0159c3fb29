// Command confine runs a command with less than its caller may: as another user,
// without capabilities, under a filter like that of a container engine.
//
//	confine [-user UID] [-docker-caps] [-filter | -strict] COMMAND...
//
// hack/newcomer.sh uses it to try the project as those who clone it.
package main

import (
	"flag"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/borrownet/borrownet/hook/hooktest"
)

// dockerCaps is what Docker leaves root in a container by default.
var dockerCaps = []int{
	unix.CAP_AUDIT_WRITE, unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_KILL, unix.CAP_MKNOD,
	unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_RAW, unix.CAP_SETFCAP, unix.CAP_SETGID, unix.CAP_SETPCAP, unix.CAP_SETUID, unix.CAP_SYS_CHROOT,
}

func main() {
	user := flag.Int("user", os.Getuid(), "run as the user `UID`")
	docker := flag.Bool("docker-caps", false, "keep the capabilities that Docker keeps, not none")
	filter := flag.Bool("filter", false, "deny the system calls that Docker's default profile denies")
	strict := flag.Bool("strict", false, "deny seccomp, ptrace and other processes' memory too, as a sandbox does")
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	c := hooktest.Confinement{User: *user}
	if *filter {
		c.Filter = hooktest.Docker
	}
	if *strict {
		c.Filter = hooktest.Strict
	}
	if *docker {
		c.Keep = dockerCaps
	}
	fmt.Fprintln(os.Stderr, "confine:", c.Exec(flag.Args()))
	os.Exit(1)
}
