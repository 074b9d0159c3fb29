/*
 * listen() - a listener on loopback is the laptop's: debuggers and browsers that are
 * not of the session find it there. Every other one stays in the session.
 * Return: as the C library's; EADDRINUSE here and not from bind() if the laptop has
 * another listener on that port
 */
#include <netinet/in.h>

#include "preload.h"

/* listen_on_host() - swap the socket for one of the laptop that listens */
static long listen_on_host(int fd, int backlog, const void *sa, socklen_t len)
{
	int twin = bn_host_twin(fd);
	long ret = twin;

	if (twin < 0)
		return ret;
	ret = bn_sys(SYS_bind, twin, sa, len);
	if (ret == 0)
		ret = bn_sys(SYS_listen, twin, backlog);
	if (ret == 0)
		ret = bn_swap(fd, twin);
	bn_close(twin);
	return ret;
}

BN_EXPORT int listen(int fd, int backlog)
{
	struct bn_request at;
	struct sockaddr_in6 sa;
	socklen_t len = sizeof(sa);

	if (bn_mode() == BN_NAMESPACED && bn_sys(SYS_getsockname, fd, &sa, &len) == 0 && bn_get_addr(&at, (void *)&sa, len) &&
	    bn_is_loopback(&at) && bn_type(fd) == SOCK_STREAM && bn_of_session(fd))
		return (int)bn_return(listen_on_host(fd, backlog, &sa, len));
	return (int)bn_return(bn_sys(SYS_listen, fd, backlog));
}
