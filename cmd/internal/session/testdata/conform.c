/*
 * A table of socket calls, one line of output each: "NAME: RESULT". The same lines are
 * expected on every rung, with every C library. argv[1] is the port of a listener of
 * the laptop, which answers "local"; with argv[2] "local" the calls that need a session
 * are left out.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <resolv.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *error(int e)
{
	static const struct {
		int e;
		const char *name;
	} names[] = {
		{ 0, "ok" },		      { ECONNREFUSED, "ECONNREFUSED" }, { EHOSTUNREACH, "EHOSTUNREACH" },
		{ ENETUNREACH, "ENETUNREACH" }, { EISCONN, "EISCONN" },	  { EINPROGRESS, "EINPROGRESS" },
		{ EBADF, "EBADF" },	      { EAFNOSUPPORT, "EAFNOSUPPORT" }, { ENOTCONN, "ENOTCONN" },
		{ EINVAL, "EINVAL" },	      { EADDRINUSE, "EADDRINUSE" },	{ EFAULT, "EFAULT" },
		{ EMFILE, "EMFILE" },	      { ENOTSOCK, "ENOTSOCK" },
	};
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (names[i].e == e)
			return names[i].name;
	return strerror(e);
}

static int fill(struct sockaddr_storage *ss, const char *host, int port)
{
	struct sockaddr_in *in = (void *)ss;
	struct sockaddr_in6 *in6 = (void *)ss;

	memset(ss, 0, sizeof(*ss));
	if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		return sizeof(*in);
	}
	inet_pton(AF_INET6, host, &in6->sin6_addr);
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(port);
	return sizeof(*in6);
}

static const char *text(const struct sockaddr_storage *ss)
{
	static char buf[80];
	char host[INET6_ADDRSTRLEN];
	const struct sockaddr_in *in = (const void *)ss;
	const struct sockaddr_in6 *in6 = (const void *)ss;

	if (ss->ss_family == AF_INET)
		snprintf(buf, sizeof(buf), "%s:%d", inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host)), ntohs(in->sin_port));
	else
		snprintf(buf, sizeof(buf), "[%s]:%d", inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host)), ntohs(in6->sin6_port));
	return buf;
}

/* dial() - a blocking connect: the descriptor, or -errno */
static int dial(const char *host, int port)
{
	struct sockaddr_storage ss;
	int len = fill(&ss, host, port), fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	if (connect(fd, (void *)&ss, len) < 0) {
		int e = errno;

		close(fd);
		return -e;
	}
	return fd;
}

static void try(const char *name, const char *host, int port)
{
	int fd = dial(host, port);

	printf("%s: %s\n", name, error(fd < 0 ? -fd : 0));
	if (fd >= 0)
		close(fd);
}

/* first_line() - what a server says first, or after an HTTP request its last line */
static void say(const char *name, int fd, const char *send)
{
	char buf[4096] = "";
	size_t n = 0;
	ssize_t got;
	char *line;

	if (fd < 0) {
		printf("%s: %s\n", name, error(-fd));
		return;
	}
	if (send && write(fd, send, strlen(send)) < 0)
		printf("%s: write %s\n", name, error(errno));
	while (n < sizeof(buf) - 1 && (got = read(fd, buf + n, sizeof(buf) - 1 - n)) > 0)
		n += got;
	line = strrchr(buf, '\n');
	printf("%s: %s\n", name, line ? line + 1 : buf);
	close(fd);
}

#define GET "GET / HTTP/1.0\r\n\r\n"

static void peer_of(void)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	int fd = dial("198.51.100.80", 80);

	if (getpeername(fd, (void *)&ss, &len) == 0)
		printf("peer: %s\n", text(&ss));
	printf("again: %s\n", connect(fd, (void *)&ss, len) < 0 ? error(errno) : "ok");
	close(fd);
}

/* epoll_first() - a socket that is registered before it connects, as Asio and Netty do */
static void epoll_first(void)
{
	struct sockaddr_storage ss;
	int len = fill(&ss, "198.51.100.80", 80), ep = epoll_create1(0), fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), e = 0;
	struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.u64 = 0x1234567890abcdefULL }, got = { 0 };
	socklen_t elen = sizeof(e);

	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
	if (connect(fd, (void *)&ss, len) < 0 && errno != EINPROGRESS)
		printf("epoll first: %s\n", error(errno));
	do
		len = epoll_wait(ep, &got, 1, 5000);
	while (len == 1 && !(got.events & EPOLLOUT));
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &elen);
	printf("epoll first: %d %s %s\n", len, got.data.u64 == ev.data.u64 ? "ours" : "not ours", error(e));
	fcntl(fd, F_SETFL, 0);
	say("epoll first then", fd, GET);
	close(ep);
}

static void datagrams(const char *how)
{
	static const struct {
		const char *host;
		const char *send;
	} to[] = { { "198.51.100.84", "one" }, { "198.51.100.85", "two" } };
	struct timeval limit = { 5, 0 };
	int fd = socket(AF_INET, SOCK_DGRAM, 0), i;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	for (i = 0; i < 2; i++) {
		struct sockaddr_storage ss, from = { 0 };
		char buf[100] = "";
		struct iovec iov = { (void *)to[i].send, 3 }, room = { buf, sizeof(buf) - 1 };
		struct mmsghdr out = { .msg_hdr = { .msg_name = &ss, .msg_iov = &iov, .msg_iovlen = 1 } };
		struct mmsghdr in = { .msg_hdr = { .msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &room, .msg_iovlen = 1 } };
		socklen_t flen = sizeof(from);
		ssize_t sent, got;

		out.msg_hdr.msg_namelen = fill(&ss, to[i].host, 7);
		if (!strcmp(how, "connected")) {
			sent = connect(fd, (void *)&ss, out.msg_hdr.msg_namelen) < 0 ? -1 : send(fd, to[i].send, 3, 0);
			got = recvfrom(fd, buf, sizeof(buf) - 1, 0, (void *)&from, &flen);
		} else if (!strcmp(how, "sendto")) {
			sent = sendto(fd, to[i].send, 3, 0, (void *)&ss, out.msg_hdr.msg_namelen);
			got = recvfrom(fd, buf, sizeof(buf) - 1, 0, (void *)&from, &flen);
		} else if (!strcmp(how, "sendmsg")) {
			sent = sendmsg(fd, &out.msg_hdr, 0);
			got = recvmsg(fd, &in.msg_hdr, 0);
		} else {
			sent = sendmmsg(fd, &out, 1, 0) == 1 ? out.msg_len : -1;
			got = recvmmsg(fd, &in, 1, 0, NULL) == 1 ? in.msg_len : -1;
		}
		printf("udp %s: %zd sent, %s from %s\n", how, sent, got < 0 ? error(errno) : buf, text(&from));
	}
	close(fd);
}

static void resolve(const char *name, int family, int flags)
{
	struct addrinfo hints = { .ai_family = family, .ai_socktype = SOCK_STREAM, .ai_flags = flags }, *list, *a;
	int e = getaddrinfo(name, "80", &hints, &list);

	printf("getaddrinfo %s %s:", name, family == AF_INET ? "v4" : family == AF_INET6 ? "v6" : "any");
	if (e) {
		printf(" %s\n", e == EAI_NONAME || e == EAI_NODATA ? "none" : e == EAI_AGAIN ? "again" : gai_strerror(e));
		return;
	}
	for (a = list; a; a = a->ai_next)
		printf(" %s", text((void *)a->ai_addr));
	if (flags & AI_CANONNAME)
		printf(" called %s", list->ai_canonname);
	printf("\n");
	freeaddrinfo(list);
}

static void names(void)
{
	struct sockaddr_storage ss;
	char buf[200], host[200] = "", service[40] = "";
	unsigned char answer[1024];
	struct hostent h, *r = gethostbyname("web");
	int e, len;

	resolve("web", AF_INET, 0);
	resolve("web.shop.svc.cluster.local", AF_UNSPEC, AI_CANONNAME);
	resolve("web", AF_INET6, AI_V4MAPPED);
	resolve("no-such-host", AF_UNSPEC, 0);
	resolve("192.0.2.9", AF_UNSPEC, 0);
	resolve("localhost", AF_INET, 0);
	printf("gethostbyname: %s\n", r ? inet_ntop(AF_INET, r->h_addr_list[0], host, sizeof(host)) : "none");
	e = gethostbyname_r("web", &h, buf, sizeof(buf), &r, &len);
	printf("gethostbyname_r: %d %s\n", e, r ? inet_ntop(AF_INET, r->h_addr_list[0], host, sizeof(host)) : "none");
	e = gethostbyname_r("web", &h, buf, 8, &r, &len);
	printf("gethostbyname_r, no room: %s\n", e == ERANGE ? "ERANGE" : error(e));
	len = fill(&ss, "127.0.0.1", 80);
	e = getnameinfo((void *)&ss, len, host, sizeof(host), service, sizeof(service), NI_NUMERICHOST | NI_NUMERICSERV);
	printf("getnameinfo: %d %s %s\n", e, host, service);
	len = fill(&ss, "203.0.113.77", 80);
	e = getnameinfo((void *)&ss, len, host, sizeof(host), NULL, 0, NI_NAMEREQD);
	printf("getnameinfo, no name: %s\n", e == EAI_NONAME ? "none" : e == EAI_AGAIN ? "again" : "?");
	e = res_query("web.shop.svc.cluster.local", 1, 1, answer, sizeof(answer));
	printf("res_query: %s\n", e > 12 && answer[7] == 1 ? "one record" : "failed");
}

/* listener() - registered before it listens; the test connects to its port on loopback */
static void listener(const char *at)
{
	struct sockaddr_storage ss;
	socklen_t len = fill(&ss, at, 0);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), ep = epoll_create1(0), c, copy;
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = 77 }, got = { 0 };

	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
	if (bind(fd, (void *)&ss, len) < 0 || listen(fd, 5) < 0)
		printf("listen: %s\n", error(errno));
	getsockname(fd, (void *)&ss, &len);
	fprintf(stderr, "listening 127.0.0.1:%d\n", ntohs(((struct sockaddr_in *)&ss)->sin_port));
	c = epoll_wait(ep, &got, 1, 10000);
	printf("listen on %s: %d event, %d, non-blocking %d\n", at, c, (int)got.data.u64, !!(fcntl(fd, F_GETFL) & O_NONBLOCK));
	copy = accept4(fd, NULL, NULL, 0);
	if (write(copy, "hello", 5) != 5)
		printf("accept: %s\n", error(errno));
	close(copy);
	copy = socket(AF_INET, SOCK_STREAM, 0);
	c = bind(copy, (void *)&ss, len) < 0 || listen(copy, 5) < 0 ? errno : 0;
	printf("listen again: %s\n", error(c));
	close(copy);
	close(fd);
	close(ep);
}

static volatile sig_atomic_t alarms;
static void on_alarm(int s) { (void)s, alarms++; }

/* flags() - what socket(2) promises about descriptors */
static void descriptors(void)
{
	struct sockaddr_storage ss;
	struct rlimit old, low;
	int a, b;

	close(0);
	a = socket(AF_INET, SOCK_STREAM, 0);
	b = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	printf("lowest: %d\n", a);
	printf("flags: %d %d, %d %d\n", fcntl(a, F_GETFD), !!(fcntl(a, F_GETFL) & O_NONBLOCK), fcntl(b, F_GETFD),
	       !!(fcntl(b, F_GETFL) & O_NONBLOCK));
	close(b);
	getrlimit(RLIMIT_NOFILE, &old);
	low = old;
	low.rlim_cur = b;
	setrlimit(RLIMIT_NOFILE, &low);
	printf("no room: %s\n", socket(AF_INET, SOCK_STREAM, 0) < 0 ? error(errno) : "ok");
	setrlimit(RLIMIT_NOFILE, &old);
	errno = EBADF;
	close(socket(AF_INET, SOCK_STREAM, 0));
	printf("errno is kept: %s\n", error(errno));
	printf("family: %s\n", socket(200, SOCK_STREAM, 0) < 0 ? error(errno) : "ok");
	fill(&ss, "127.0.0.1", 80);
	printf("bad descriptor: %s\n", connect(-1, (void *)&ss, sizeof(struct sockaddr_in)) < 0 ? error(errno) : "ok");
	printf("not connected: %s\n", getpeername(a, NULL, NULL) < 0 ? error(errno) : "ok");
	dup2(1, a);
}

/* forks() - a child, a grandchild by vfork's kin, and signals in between */
static void forks(void)
{
	struct itimerval often = { { 0, 500 }, { 0, 500 } }, never = { { 0, 0 }, { 0, 0 } };
	int i, bad = 0, status;
	pid_t pid;

	signal(SIGALRM, on_alarm);
	setitimer(ITIMER_REAL, &often, NULL);
	for (i = 0; i < 200; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);

		bad += fd < 3;
		close(fd);
	}
	setitimer(ITIMER_REAL, &never, NULL);
	printf("under signals: %d wrong\n", bad);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		say("child", dial("198.51.100.80", 80), GET);
		fflush(stdout);
		_exit(0);
	}
	waitpid(pid, &status, 0);
}

int main(int argc, char **argv)
{
	int port = atoi(argv[1]), session = argc < 3;

	setvbuf(stdout, NULL, _IOLBF, 0);
	say("local", dial("127.0.0.1", port), NULL);
	say("mapped", dial("::ffff:127.0.0.1", port), NULL);
	say("local v6", dial("::1", port), NULL);
	try("local refused", "127.0.0.1", 1);
	descriptors();
	listener("127.0.0.1");
	listener("0.0.0.0");
	if (!session)
		return 0;
	say("tcp", dial("198.51.100.80", 80), GET);
	try("refused", "192.0.2.10", 81);
	try("unreachable", "198.51.100.82", 80);
	try("multicast", "224.0.0.251", 80);
	peer_of();
	epoll_first();
	datagrams("connected");
	datagrams("sendto");
	datagrams("sendmsg");
	datagrams("sendmmsg");
	names();
	forks();
	return 0;
}
