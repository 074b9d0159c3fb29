/*
 * borrownet-enter HELPER FILE ARGV0 [ARG...]
 *
 * DOC: Theory of Operation
 *
 * Executes a command inside a session's namespace: the netns rung. A process can
 * change its user namespace only while it has a single thread, which no Go program
 * has; hence this one. It asks the helper for descriptors of its namespaces rather
 * than naming them by a process id, which another process may have by then.
 *
 * The helper's user namespace calls the user 0. A second one, inside of it, gives
 * the user their own number back, so that files belong to whom they should. It has
 * one user and one group: setuid programs have no effect in it.
 *
 * Sockets of the laptop's name services are covered, in a mount namespace of the
 * command's own: a C library that finds nobody there asks DNS, as the session's does.
 *
 * What it says goes to standard error, and its exit code is 125 when it failed
 * itself, 126 and 127 as a shell's.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>

#include "../abi.h"
#include "helper.h"
#include "sys.h"

#define EXIT_OURS 125
#define EXIT_NOT_EXECUTED 126
#define EXIT_NOT_FOUND 127

static size_t length(const char *s)
{
	size_t n = 0;

	while (s[n])
		n++;
	return n;
}

static void say(const char *s) { bn_write(2, s, length(s)); }

/* number() - n in decimal, at the end of a buffer of 12 bytes */
static char *number(char *buf, unsigned int n)
{
	char *p = buf + 11;

	*p = '\0';
	do
		*--p = (char)('0' + n % 10);
	while (n /= 10);
	return p;
}

/* fail() - say what failed, with the errno's number, and end */
static _Noreturn void fail(int code, const char *what, long error)
{
	char buf[12];

	say("error: enter the session's namespace: ");
	say(what);
	say(": errno ");
	say(number(buf, (unsigned int)-error));
	say("\n");
	for (;;)
		bn_sys(SYS_exit_group, code);
}

/* put() - write text to a file of /proc/self */
static void put(const char *path, const char *text)
{
	long fd = bn_open(path, O_WRONLY | O_CLOEXEC);
	long n = fd;

	if (fd >= 0)
		n = bn_write((int)fd, text, length(text));
	if (n < 0)
		fail(EXIT_OURS, path, n);
	bn_close((int)fd);
}

/* put_map() - map a number to the helper's 0 */
static void put_map(const char *path, unsigned int id)
{
	char buf[12], line[20], *p = line;
	const char *s = number(buf, id), *rest = " 0 1";

	while (*s)
		*p++ = *s++;
	while (*rest)
		*p++ = *rest++;
	*p = '\0';
	put(path, line);
}

/* join() - move into a namespace of the helper's */
static void join(const char *helper, int which, const char *what)
{
	int fd = bn_helper(helper, length(helper), BN_NAMESPACE, which, 0);
	long ret = fd;

	if (fd >= 0)
		ret = bn_sys(SYS_setns, fd, which);
	if (ret < 0)
		fail(EXIT_OURS, what, ret);
	bn_close(fd);
}

/* cover_name_services() - nobody answers to a connect() there any more */
static void cover_name_services(void)
{
	static const char *const sockets[] = { "/run/systemd/resolve/io.systemd.Resolve", "/run/nscd/socket",
					       "/run/avahi-daemon/socket" };
	int own = 0;
	unsigned int i;
	long ret;

	for (i = 0; i < sizeof(sockets) / sizeof(sockets[0]); i++) {
		if (bn_sys(SYS_faccessat, BN_AT_FDCWD, sockets[i], 0))
			continue;
		ret = own ? 0 : bn_sys(SYS_unshare, CLONE_NEWNS);
		own = 1;
		if (ret == 0)
			ret = bn_sys(SYS_mount, "/dev/null", sockets[i], 0, MS_BIND, 0);
		if (ret < 0)
			fail(EXIT_OURS, sockets[i], ret);
	}
}

/* run() - execute the file, or a shell for a script that names none */
static _Noreturn void run(char **argv, char **envp)
{
	long ret = bn_sys(SYS_execve, argv[0], argv + 1, envp);

	if (ret == -ENOEXEC) {
		argv[1] = argv[0];
		argv[0] = (char *)"/bin/sh";
		ret = bn_sys(SYS_execve, argv[0], argv, envp);
	}
	fail(ret == -ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTED, argv[0], ret);
}

/* enter_main() - what _start calls, with the stack that the kernel made */
_Noreturn void enter_main(long *stack);

_Noreturn void enter_main(long *stack)
{
	long argc = stack[0];
	char **argv = (char **)(stack + 1), **envp = argv + argc + 1;
	unsigned int uid = (unsigned int)bn_sys(SYS_geteuid), gid = (unsigned int)bn_sys(SYS_getegid);
	long ret;

	if (argc < 4)
		fail(EXIT_OURS, "not started by borrownet", -EINVAL);
	join(argv[1], CLONE_NEWUSER, "user namespace");
	join(argv[1], CLONE_NEWNET, "network namespace");
	ret = bn_sys(SYS_unshare, CLONE_NEWUSER);
	if (ret < 0)
		fail(EXIT_OURS, "unshare", ret);
	put("/proc/self/setgroups", "deny");
	put_map("/proc/self/uid_map", uid);
	put_map("/proc/self/gid_map", gid);
	cover_name_services();
	run(argv + 2, envp);
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n\txor %ebp,%ebp\n\tmov %rsp,%rdi\n\tand $-16,%rsp\n\tcall enter_main\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n_start:\n\tmov x29,#0\n\tmov x0,sp\n\tbl enter_main\n");
#endif
