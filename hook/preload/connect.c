/*
 * connect() - native, but for ::1 in a session with a namespace: its kernel keeps
 * that address to itself, and it means the laptop; and for name services of the
 * laptop, which seem not to run
 * Return: as the C library's
 */
#include <errno.h>
#include <netinet/in.h>

#include "preload.h"
#include "relay.h"

/* is_loopback6() - whether the address is ::1 */
static int is_loopback6(const struct sockaddr *sa, socklen_t len)
{
	struct bn_request r;

	return bn_get_addr(&r, sa, len) && r.family == AF_INET6 && r.addr[0] == 0 && r.addr[12] == 0 &&
	       bn_is_loopback(&r);
}

/* connect_to_host() - swap the socket for one of the laptop and connect that */
static long connect_to_host(int fd, const struct sockaddr *sa, socklen_t len)
{
	int twin = bn_host_twin(fd);
	long ret = twin < 0 ? twin : bn_swap(fd, twin);

	if (twin >= 0)
		bn_close(twin);
	return ret < 0 ? ret : bn_sys(SYS_connect, fd, sa, len);
}

BN_EXPORT int connect(int fd, const struct sockaddr *sa, socklen_t len)
{
	__typeof__(&connect) real;
	int mode = bn_mode();

	if (mode != BN_OFF && bn_resolves_names(sa, len))
		return (int)bn_return(-ENOENT);
	if (mode == BN_NAMESPACED && is_loopback6(sa, len) && bn_domain(fd) == AF_INET6 && bn_of_session(fd))
		return (int)bn_return(connect_to_host(fd, sa, len));
	if (mode == BN_RELAYED) {
		long ret = bn_relay_connect(fd, sa, len);

		if (ret != BN_NATIVE)
			return (int)bn_return(ret);
	}
	real = BN_REAL(connect); /* a cancellation point, which a system call is not */
	return real ? real(fd, sa, len) : (int)bn_return(bn_sys(SYS_connect, fd, sa, len));
}
