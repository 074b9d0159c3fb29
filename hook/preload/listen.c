/*
 * listen() - a listener on loopback is the laptop's: debuggers and browsers that are
 * not of the session find it there. Every other one stays in the session, and its
 * port is published on the laptop's loopback.
 * Return: as the C library's; EADDRINUSE here and not from bind() if the laptop has
 * another listener on that port
 */
#include <errno.h>
#include <netinet/in.h>

#include "preload.h"

static long bind_and_listen(int fd, int backlog, const void *sa, socklen_t len)
{
	long ret = bn_sys(SYS_bind, fd, sa, len);

	return ret < 0 ? ret : bn_sys(SYS_listen, fd, backlog);
}

/* listen_on_host() - swap the socket for one of the laptop that listens */
static long listen_on_host(int fd, int backlog, const struct bn_request *at, const void *sa, socklen_t len)
{
	struct bn_request request = { .op = BN_LISTEN };
	struct bn_answer answer;
	int twin = bn_host_twin(fd), on = 1;
	long ret = twin;

	if (twin < 0)
		return ret;
	/* The kernel that chose knows of no closed connections that the laptop remembers, now or later. */
	if (at->port >= BN_FIRST_AUTO_PORT)
		bn_sys(SYS_setsockopt, twin, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	ret = bind_and_listen(twin, backlog, sa, len);
	if (ret == 0) {
		/* The broker keeps the session's kernel from choosing the port again. */
		if (at->port >= BN_FIRST_AUTO_PORT)
			bn_ask(&request, NULL, fd, &answer, NULL, 0);
		ret = bn_swap(fd, twin);
	}
	bn_close(twin);
	return ret;
}

/* publish() - ask for the port on the laptop: 0, or -EADDRINUSE */
static long publish(int fd, const struct bn_request *at)
{
	struct bn_request request = { .op = BN_LISTEN };
	struct sockaddr_in6 any = { .sin6_family = at->family };
	struct bn_answer answer;

	/* One that was never bound gets its port here, so that it is known. */
	if (at->port == 0)
		bn_sys(SYS_bind, fd, &any, at->family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(any));
	if (bn_ask(&request, NULL, fd, &answer, NULL, 0) < 0)
		return 0;
	return answer.verdict == BN_FAIL && answer.error == EADDRINUSE ? -EADDRINUSE : 0;
}

BN_EXPORT int listen(int fd, int backlog)
{
	struct bn_request at;
	struct sockaddr_in6 sa;
	socklen_t len = sizeof(sa);
	long ret = 0;

	if (bn_mode() == BN_NAMESPACED && bn_sys(SYS_getsockname, fd, &sa, &len) == 0 &&
	    bn_get_addr(&at, (void *)&sa, len) && bn_type(fd) == SOCK_STREAM && bn_of_session(fd)) {
		if (bn_is_loopback(&at))
			return (int)bn_return(listen_on_host(fd, backlog, &at, &sa, len));
		ret = publish(fd, &at);
	}
	return (int)bn_return(ret < 0 ? ret : bn_sys(SYS_listen, fd, backlog));
}
