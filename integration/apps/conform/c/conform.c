/*
 * What a C program does with sockets, one line of output for each thing: "ROW/CHECK: RESULT". integration/matrix_test.go has
 * the results that are wanted. Arguments: the port of a TCP and of a UDP server of the laptop, and a port below 1024 of its own.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "conform.h"

char *self;
int tcp_port, udp_port, low_port;

/* silence() - begins a connection to nobody, which the kernel gives up after some retries */
static int silence(void)
{
	struct sockaddr_storage ss;
	int len = fill(&ss, SILENT, 80), fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), once = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_SYNCNT, &once, sizeof(once));
	if (connect(fd, (void *)&ss, len) < 0 && errno != EINPROGRESS)
		say("errors/timed out", "connect: %s", error(errno));
	return fd;
}

static void errors(int silent)
{
	struct rlimit old, low;
	struct pollfd waiting = { .fd = silent, .events = POLLOUT };
	int a = listener("listen/for errors", "127.0.0.1", 0, 0), b, e = 0;
	struct sockaddr_storage ss;
	socklen_t len = fill(&ss, "127.0.0.1", port_of(a));

	b = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	say("errors/in use", "%s", error(bind(b, (void *)&ss, len) < 0 || listen(b, 5) < 0 ? errno : 0));
	close(a);
	close(b);
	refused("errors/refused", LEDGER, 81);
	refused("errors/refused here", "127.0.0.1", 1);
	refused("errors/unreachable", GONE, 80);
	getrlimit(RLIMIT_NOFILE, &old);
	low = old;
	low.rlim_cur = a;
	setrlimit(RLIMIT_NOFILE, &low);
	say("errors/descriptors", "%s", error(socket(AF_INET, SOCK_STREAM, 0) < 0 ? errno : 0));
	setrlimit(RLIMIT_NOFILE, &old);
	poll(&waiting, 1, 60000);
	len = sizeof(e);
	getsockopt(silent, SOL_SOCKET, SO_ERROR, &e, &len);
	say("errors/timed out", "%s", error(e));
	close(silent);
}

int main(int argc, char **argv)
{
	static char room[8192]; /* more than the kernel's io_uring_params */
	int silent;

	if (argc == 3) { /* a child */
		say(argv[2], "%s", who());
		return 0;
	}
	if (argc != 4)
		return 2;
	self = argv[0];
	tcp_port = atoi(argv[1]), udp_port = atoi(argv[2]), low_port = atoi(argv[3]);
	silent = silence();
	parallel();
	names();
	epolls();
	datagrams();
	local();
	listeners();
	sockets();
	interfaces();
	children();
	say("io_uring/setup", "%s", error(syscall(SYS_io_uring_setup, 8, room) < 0 ? errno : 0));
	errors(silent);
	orphan();
	return 0;
}
