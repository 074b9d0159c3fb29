/* What connects and sends: to the cluster, to the laptop, and what epoll says of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "conform.h"

/* parallel() - fifty connections to a name, open at the same time, each with an echo of its own */
void parallel(void)
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

/* epolls() - sockets that are registered before they connect or listen, as Asio and Netty do */
void epolls(void)
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

void datagrams(void)
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

void local(void)
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
