/*
 * What a C program does with sockets, one line of output for each thing: "ROW/CHECK: RESULT". integration/matrix_test.go has
 * the results that are wanted. Arguments: the port of a TCP and of a UDP server of the laptop, and a port below 1024 of its own.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <resolv.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define POD	"192.0.2.10"
#define ORDERS	"orders.shop.svc.cluster.local"
#define LEDGER	"198.51.100.22"
#define SILENT	"203.0.113.1"
#define GONE	"203.0.113.2"

static char *self;
static int tcp_port, udp_port, low_port;

static const char *error(int e)
{
	static const struct {
		int e;
		const char *name;
	} names[] = {
		{ 0, "ok" }, { ECONNREFUSED, "ECONNREFUSED" }, { EHOSTUNREACH, "EHOSTUNREACH" }, { ETIMEDOUT, "ETIMEDOUT" },
		{ EADDRINUSE, "EADDRINUSE" }, { EMFILE, "EMFILE" }, { EPERM, "EPERM" },
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (names[i].e == e)
			return names[i].name;
	return strerror(e);
}

/* say() - a result; one write, because children say things too */
__attribute__((format(printf, 2, 3))) static void say(const char *check, const char *format, ...)
{
	char line[500];
	int n = snprintf(line, sizeof(line), "%s: ", check);
	va_list args;

	va_start(args, format);
	n += vsnprintf(line + n, sizeof(line) - n - 1, format, args);
	va_end(args);
	line[n++] = '\n';
	if (write(1, line, n) != n)
		_exit(1);
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

/* patient() - calls on fd fail after half a minute */
static int patient(int fd)
{
	struct timeval limit = { 30, 0 };

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return fd;
}

/* dial() - a blocking connect; Return: the descriptor, or -errno */
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
	return patient(fd);
}

static void refused(const char *check, const char *host, int port)
{
	int fd = dial(host, port);

	say(check, "%s", error(fd < 0 ? -fd : 0));
	if (fd >= 0)
		close(fd);
}

/* hear() - all that fd has to say, which is closed; Return: a static buffer */
static const char *hear(int fd)
{
	static char buf[2000];
	size_t n = 0;
	ssize_t got;

	if (fd < 0)
		return error(-fd);
	while (n < sizeof(buf) - 1 && (got = read(fd, buf + n, sizeof(buf) - 1 - n)) > 0)
		n += got;
	buf[n] = 0;
	close(fd);
	if (n && buf[n - 1] == '\n')
		buf[n - 1] = 0;
	return buf;
}

/* parallel() - fifty connections to a name, open at the same time, each with an echo of its own */
static void parallel(void)
{
	struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM }, *list;
	enum { many = 50 };
	struct pollfd fds[many];
	char text[many][20], buf[20];
	int good = 0, i, e = getaddrinfo("ledger", "7", &hints, &list);

	if (e) {
		say("tcp/50", "%s", gai_strerror(e));
		return;
	}
	for (i = 0; i < many; i++) {
		fds[i].fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		fds[i].events = POLLOUT;
		if (connect(fds[i].fd, list->ai_addr, list->ai_addrlen) < 0 && errno != EINPROGRESS)
			say("tcp/50", "connect: %s", error(errno));
	}
	freeaddrinfo(list);
	for (i = 0; i < many; i++) {
		poll(&fds[i], 1, 30000);
		fcntl(fds[i].fd, F_SETFL, 0);
		patient(fds[i].fd);
		snprintf(text[i], sizeof(text[i]), "number %02d", i);
		if (write(fds[i].fd, text[i], 9) != 9)
			say("tcp/50", "write: %s", error(errno));
	}
	for (i = 0; i < many; i++) {
		good += recv(fds[i].fd, buf, 9, MSG_WAITALL) == 9 && !memcmp(buf, text[i], 9);
		close(fds[i].fd);
	}
	say("tcp/50", "%d of %d", good, many);
}

/* nameserver() - of /etc/resolv.conf */
static const char *nameserver(void)
{
	static char line[200];
	char *at;
	FILE *f = fopen("/etc/resolv.conf", "r");

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, "nameserver ", 11)) {
			fclose(f);
			at = line + 11;
			at[strcspn(at, " %\n")] = 0;
			return at;
		}
	return "127.0.0.1";
}

/* query() - a DNS message that asks for the address of ORDERS; Return: its length */
static int query(unsigned char *q)
{
	static const unsigned char head[] = { 0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0 }, tail[] = { 0, 0, 1, 0, 1 };
	char name[] = ORDERS, *label;
	int n = sizeof(head);

	memcpy(q, head, n);
	for (label = strtok(name, "."); label; label = strtok(NULL, ".")) {
		q[n] = strlen(label);
		memcpy(q + n + 1, label, q[n]);
		n += 1 + q[n];
	}
	memcpy(q + n, tail, sizeof(tail));
	return n + sizeof(tail);
}

static void answer(const char *check, const unsigned char *a, ssize_t n)
{
	if (n < 20 || a[7] != 1)
		say(check, "%zd bytes, %d answers", n, n > 7 ? a[7] : 0);
	else
		say(check, "%d.%d.%d.%d", a[n - 4], a[n - 3], a[n - 2], a[n - 1]);
}

static void names(void)
{
	struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM }, *list;
	unsigned char q[300], a[600];
	struct sockaddr_storage ss;
	char text[INET_ADDRSTRLEN];
	int e = getaddrinfo("orders", "80", &hints, &list), n = query(q + 2), fd, len;

	if (e) {
		say("names/libc", "%s", gai_strerror(e));
	} else {
		say("names/libc", "%s", inet_ntop(AF_INET, &((struct sockaddr_in *)list->ai_addr)->sin_addr, text, sizeof(text)));
		freeaddrinfo(list);
	}
	answer("names/res_query", a, res_query(ORDERS, 1, 1, a, sizeof(a)));
	len = fill(&ss, nameserver(), 53);
	fd = patient(socket(ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	sendto(fd, q + 2, n, 0, (void *)&ss, len);
	answer("names/udp", a, recv(fd, a, sizeof(a), 0));
	close(fd);
	q[0] = 0, q[1] = n;
	fd = dial(nameserver(), 53);
	if (write(fd, q, n + 2) != n + 2 || recv(fd, a, 2, MSG_WAITALL) != 2)
		say("names/tcp", "%s", error(errno));
	else
		answer("names/tcp", a, recv(fd, a, a[1], MSG_WAITALL));
	close(fd);
}

/* epolls() - sockets that are registered before they connect or listen, as Asio and Netty do */
static void epolls(void)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.u64 = 0x1234567890abcdefULL }, got = { 0 };
	struct sockaddr_storage ss;
	socklen_t len = fill(&ss, LEDGER, 7);
	int ep = epoll_create1(EPOLL_CLOEXEC), fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), n, e = 0, peer;
	char buf[10];

	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
	if (connect(fd, (void *)&ss, len) < 0 && errno != EINPROGRESS)
		say("epoll/connect", "%s", error(errno));
	do
		n = epoll_wait(ep, &got, 1, 30000);
	while (n == 1 && !(got.events & EPOLLOUT));
	len = sizeof(e);
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len);
	say("epoll/connect", "%s", n != 1 ? "no event" : got.data.u64 != ev.data.u64 ? "not ours" : error(e));
	ev.events = EPOLLIN;
	e = epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev) < 0 ? errno : 0;
	if (!e && write(fd, "x", 1) == 1)
		e = epoll_wait(ep, &got, 1, 30000) == 1 && read(fd, buf, 1) == 1 ? 0 : EIO;
	if (!e)
		e = epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL) < 0 ? errno : 0;
	say("epoll/change", "%s", error(e));
	close(fd);

	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	ev.events = EPOLLIN;
	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
	len = fill(&ss, "127.0.0.1", 0);
	if (bind(fd, (void *)&ss, len) < 0 || listen(fd, 5) < 0)
		say("epoll/listen", "%s", error(errno));
	getsockname(fd, (void *)&ss, &len);
	peer = dial("127.0.0.1", ntohs(((struct sockaddr_in *)&ss)->sin_port));
	n = epoll_wait(ep, &got, 1, 30000);
	say("epoll/listen", "%s", n != 1 || got.data.u64 != ev.data.u64 ? "no event" : error(peer < 0 ? -peer : 0));
	close(peer);
	close(fd);
	close(ep);
}

static void datagrams(void)
{
	struct sockaddr_storage to, from;
	socklen_t len = fill(&to, LEDGER, 7), flen = sizeof(from);
	int fd = patient(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	char buf[100], two[100];
	struct iovec parts[2] = { { "one", 3 }, { "two", 3 } };
	struct mmsghdr out[2] = { { { .msg_name = &to, .msg_namelen = len, .msg_iov = &parts[0], .msg_iovlen = 1 }, 0 },
				  { { .msg_name = &to, .msg_namelen = len, .msg_iov = &parts[1], .msg_iovlen = 1 }, 0 } };
	ssize_t n, m;

	n = connect(fd, (void *)&to, len) < 0 || send(fd, "hi", 2, 0) < 0 ? -1 : recv(fd, buf, sizeof(buf), 0);
	say("udp/connected", "%.*s", n < 0 ? 0 : (int)n, buf);
	close(fd);

	fd = patient(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	sendto(fd, "far", 3, 0, (void *)&to, len);
	n = recvfrom(fd, buf, sizeof(buf), 0, (void *)&from, &flen);
	fill(&from, "127.0.0.1", udp_port);
	sendto(fd, "near", 4, 0, (void *)&from, len);
	m = recvfrom(fd, two, sizeof(two), 0, (void *)&from, &flen);
	say("udp/both", "%.*s, %.*s", n < 0 ? 0 : (int)n, buf, m < 0 ? 0 : (int)m, two);
	n = sendmmsg(fd, out, 2, 0);
	m = recv(fd, buf, sizeof(buf), 0) + recv(fd, two, sizeof(two), 0);
	say("udp/sendmmsg", "%zd sent, %zd bytes back", n, m);
	close(fd);
}

static void local(void)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list = NULL;
	char port[8];
	int fd;

	say("local/127.0.0.1", "%s", hear(dial("127.0.0.1", tcp_port)));
	say("local/::1", "%s", hear(dial("::1", tcp_port)));
	say("local/mapped", "%s", hear(dial("::ffff:127.0.0.1", tcp_port)));
	snprintf(port, sizeof(port), "%d", tcp_port);
	if (getaddrinfo("localhost", port, &hints, &list) == 0) {
		fd = patient(socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
		say("local/localhost", "%s", connect(fd, list->ai_addr, list->ai_addrlen) < 0 ? error(errno) : hear(fd));
		freeaddrinfo(list);
	}
}

static int port_of(int fd)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);

	getsockname(fd, (void *)&ss, &len);
	return ntohs(((struct sockaddr_in *)&ss)->sin_port); /* both families have it there */
}

/* listener() - listens at "" for no bind(); Return: the descriptor, or -1 after saying why */
static int listener(const char *check, const char *at, int port, int v6only)
{
	struct sockaddr_storage ss;
	int len = fill(&ss, *at ? at : POD, port), fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	if (ss.ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof(v6only));
	if (port) /* as servers do: connections of the last minute are remembered at a port that is asked for again */
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if ((*at && bind(fd, (void *)&ss, len) < 0) || listen(fd, 5) < 0) {
		say(check, "%s", error(errno));
		close(fd);
		return -1;
	}
	return patient(fd);
}

/* welcome() - tells the test where to connect to, and greets it */
static void welcome(const char *check, const char *at, int v6only)
{
	int fd = listener(check, at, 0, v6only), c;

	if (fd < 0)
		return;
	say(check, "at %d", port_of(fd));
	c = accept(fd, NULL, NULL);
	if (c < 0 || write(c, "hello", 5) != 5)
		say(check, "accept: %s", error(errno));
	close(c);
	close(fd);
}

/* own() - a listener that the program itself connects to */
static void own(const char *check, const char *at, int port)
{
	int fd = listener(check, at, port, 0), peer, c;

	if (fd < 0)
		return;
	peer = dial(at, port_of(fd));
	if (peer < 0) {
		say(check, "connect: %s", error(-peer));
	} else {
		c = accept(fd, NULL, NULL);
		if (write(c, "hello", 5) != 5)
			say(check, "accept: %s", error(errno));
		close(c);
		say(check, "%s", hear(peer));
	}
	close(fd);
}

static void listeners(void)
{
	welcome("listen/127.0.0.1", "127.0.0.1", 0);
	welcome("listen/0.0.0.0", "0.0.0.0", 0);
	welcome("listen/::", "::", 0);
	welcome("listen/v6only", "::", 1);
	welcome("listen/unbound", "", 0);
	own("listen/pod", POD, 0);
	own("listen/low", POD, low_port);
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

/* who() - who we are to a server of the cluster, without the port */
static const char *who(void)
{
	char *heard = (char *)hear(dial(LEDGER, 11));

	heard[strcspn(heard, ":")] = 0;
	return heard;
}

static void children(void)
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
static void orphan(void)
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
static void pass(int fd)
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

static void sockets(void)
{
	struct sockaddr_storage ss;
	socklen_t len = fill(&ss, "127.0.0.1", 0);
	struct linger abort = { 1, 0 };
	int a = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), b, c, on = 1, fd;
	off_t from = 0;

	/* A listener by a duplicate that was made before it listened. */
	b = dup(a);
	c = bind(a, (void *)&ss, len) < 0 || listen(a, 5) < 0 ? errno : 0;
	if (c)
		say("sockets/dup", "%s", error(c));
	fd = dial("127.0.0.1", port_of(a));
	c = accept(patient(b), NULL, NULL);
	if (c < 0 || write(c, "hello", 5) != 5) {
		/* Nobody has taken the connection, and nobody would end it. */
		say("sockets/dup", "%s", error(errno));
		close(fd);
	} else {
		close(c);
		say("sockets/dup", "%s", hear(fd));
	}
	close(a);
	close(b);

	a = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	b = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(a, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	setsockopt(b, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	c = bind(a, (void *)&ss, len) < 0 || listen(a, 5) < 0 ? errno : 0;
	getsockname(a, (void *)&ss, &len);
	if (!c)
		c = bind(b, (void *)&ss, len) < 0 || listen(b, 5) < 0 ? errno : 0;
	say("sockets/reuseport", "%s", error(c));
	close(a);
	close(b);

	pass(dial(LEDGER, 11));

	fd = dial(LEDGER, 9);
	if (fd >= 0 && (write(fd, "12345", 5) != 5 || shutdown(fd, SHUT_WR) < 0))
		say("sockets/half-close", "%s", error(errno));
	say("sockets/half-close", "%.10s", hear(fd));

	fd = dial(LEDGER, 9);
	a = open(self, O_RDONLY | O_CLOEXEC);
	c = sendfile(fd, a, &from, 1000);
	shutdown(fd, SHUT_WR);
	say("sockets/sendfile", "%d sent, %.13s", c, hear(fd));
	close(a);

	fd = patient(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof(on));
	len = fill(&ss, LEDGER, 9);
	c = connect(fd, (void *)&ss, len) < 0 || write(fd, "123", 3) != 3 || shutdown(fd, SHUT_WR) < 0 ? errno : 0;
	say("sockets/fast open", "%.10s", c ? error(c) : hear(fd));

	fd = dial(LEDGER, 7);
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &abort, sizeof(abort));
	say("sockets/linger", "%s", error(close(fd) < 0 ? errno : 0));
}

static void interfaces(void)
{
	struct ifaddrs *list, *i;
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	char text[INET_ADDRSTRLEN];
	int seen = 0, fd = dial(LEDGER, 7);

	if (getifaddrs(&list) == 0)
		for (i = list; i; i = i->ifa_next)
			if (i->ifa_addr && i->ifa_addr->sa_family == AF_INET)
				seen |= !strcmp(POD, inet_ntop(AF_INET, &((struct sockaddr_in *)i->ifa_addr)->sin_addr, text, sizeof(text)));
	say("source/interfaces", "%s", seen ? POD : "others");
	getsockname(fd, (void *)&ss, &len);
	say("source/own", "%s", inet_ntop(AF_INET, &((struct sockaddr_in *)&ss)->sin_addr, text, sizeof(text)));
	close(fd);
	say("source/seen", "%s", who());
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
