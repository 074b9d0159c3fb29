/* Children of every kind, and descriptors that they share. */
#define _GNU_SOURCE
#include <errno.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "conform.h"

void children(void)
{
	extern char **environ;
	char *argv[] = { self, "child", "children/spawn", NULL };
	int fd = listener("children/prefork", "127.0.0.1", 0, 0), i, status, port = port_of(fd), served = 0;
	pid_t pids[2], pid = fork();

	if (pid == 0) {
		say("children/fork", "%s", who());
		_exit(0);
	}
	waitpid(pid, &status, 0);
	pid = vfork();
	if (pid == 0) {
		argv[2] = "children/vfork";
		execv(self, argv);
		_exit(1);
	}
	waitpid(pid, &status, 0);
	argv[2] = "children/spawn";
	if (posix_spawn(&pid, self, NULL, NULL, argv, environ) == 0)
		waitpid(pid, &status, 0);

	for (i = 0; i < 2; i++) { /* each serves one connection */
		pids[i] = fork();
		if (pids[i] == 0) {
			int c = accept(fd, NULL, NULL);

			_exit(write(c, "w", 1) != 1);
		}
	}
	for (i = 0; i < 2; i++)
		served += !strcmp(hear(dial("127.0.0.1", port)), "w");
	for (i = 0; i < 2; i++)
		waitpid(pids[i], &status, 0);
	say("children/prefork", "%d served", served);
	close(fd);
}

/* orphan() - calls when its parent has gone, and is waited for by nobody but the session */
void orphan(void)
{
	int gone[2], forked = pipe(gone);
	char none;

	if (forked < 0 || fork() > 0)
		return;
	setsid();
	if (fork() > 0)
		_exit(0);
	close(gone[1]);
	if (read(gone[0], &none, 1) == 0) /* when main has returned */
		say("children/orphan", "%s", who());
	_exit(0);
}

/* pass() - sends fd to a child, which says who we are by it */
void pass(int fd)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { .head = { .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS } };
	char byte = 'x', *heard;
	struct iovec iov = { &byte, 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	int pair[2], status;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0 || (pid = fork()) < 0)
		return;
	if (pid == 0) {
		close(fd);
		if (recvmsg(pair[1], &m, 0) != 1)
			_exit(1);
		memcpy(&fd, CMSG_DATA(&control.head), sizeof(fd));
		heard = (char *)hear(fd);
		heard[strcspn(heard, ":")] = 0;
		say("sockets/passed on", "%s", heard);
		_exit(0);
	}
	memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
	if (sendmsg(pair[0], &m, 0) != 1)
		say("sockets/passed on", "%s", error(errno));
	close(fd);
	waitpid(pid, &status, 0);
	close(pair[0]);
	close(pair[1]);
}
