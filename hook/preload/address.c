/* Socket addresses, and what sockets are. */
#include <errno.h>
#include <netinet/in.h>

#include "preload.h"

extern int *__errno_location(void);

long bn_return(long ret)
{
	if (ret >= 0)
		return ret;
	*__errno_location() = (int)-ret;
	return -1;
}

static uint16_t swap16(uint16_t n) { return (uint16_t)(n << 8 | n >> 8); }

static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

/* is_mapped() - whether an IPv6 address stands for an IPv4 one */
static int is_mapped(const uint8_t *a)
{
	int i;

	for (i = 0; i < 12; i++)
		if (a[i] != mapped[i])
			return 0;
	return 1;
}

int bn_get_addr(struct bn_request *request, const struct sockaddr *sa, socklen_t len)
{
	if (!sa || len < sizeof(sa->sa_family))
		return 0;
	if (sa->sa_family == AF_INET && len >= sizeof(struct sockaddr_in)) {
		const struct sockaddr_in *in = (const void *)sa;

		request->family = AF_INET;
		request->port = swap16(in->sin_port);
		bn_copy(request->addr, &in->sin_addr, 4);
		return 1;
	}
	if (sa->sa_family == AF_INET6 && len >= offsetof(struct sockaddr_in6, sin6_scope_id)) {
		const struct sockaddr_in6 *in6 = (const void *)sa;

		request->family = AF_INET6;
		request->port = swap16(in6->sin6_port);
		bn_copy(request->addr, &in6->sin6_addr, 16);
		return 1;
	}
	return 0;
}

socklen_t bn_put_addr(const struct bn_answer *answer, int family, struct sockaddr *sa, socklen_t room)
{
	union {
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} u = { .in6 = { .sin6_family = AF_INET6 } };
	socklen_t size = sizeof(u.in6);

	if (family == AF_INET) {
		size = sizeof(u.in);
		u.in = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = swap16(answer->port) };
		bn_copy(&u.in.sin_addr, answer->addr, 4);
	} else {
		u.in6.sin6_port = swap16(answer->port);
		if (answer->family == AF_INET) {
			bn_copy(&u.in6.sin6_addr, mapped, sizeof(mapped));
			bn_copy((uint8_t *)&u.in6.sin6_addr + 12, answer->addr, 4);
		} else {
			bn_copy(&u.in6.sin6_addr, answer->addr, 16);
		}
	}
	bn_copy(sa, &u, room < size ? room : size);
	return size;
}

int bn_is_loopback(const struct bn_request *r)
{
	int i;

	if (r->family == AF_INET)
		return r->addr[0] == 127;
	if (is_mapped(r->addr))
		return r->addr[12] == 127;
	for (i = 0; i < 15; i++)
		if (r->addr[i])
			return 0;
	return r->addr[15] == 1;
}

static int option(int fd, int name)
{
	int value = 0;
	socklen_t len = sizeof(value);
	long ret = bn_sys(SYS_getsockopt, fd, SOL_SOCKET, name, &value, &len);

	return ret < 0 ? (int)ret : value;
}

int bn_domain(int fd) { return option(fd, SO_DOMAIN); }
int bn_type(int fd) { return option(fd, SO_TYPE); }

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

static int cookie(int fd, uint64_t *value)
{
	socklen_t len = sizeof(*value);

	return bn_sys(SYS_getsockopt, fd, SOL_SOCKET, SO_NETNS_COOKIE, value, &len) == 0;
}

int bn_of_session(int fd)
{
	uint64_t theirs = 0, ours = 0;
	int own, known;

	if (!cookie(fd, &theirs))
		return 1; /* before Linux 5.14: nearly every internet socket is */
	own = (int)bn_sys(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC);
	known = own >= 0 && cookie(own, &ours);
	if (own >= 0)
		bn_close(own);
	return !known || ours != theirs;
}
