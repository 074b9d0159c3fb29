/* Sockets of the laptop itself, whose flows the daemon relays: mode BN_RELAYED. */
#include "relay.h"

#include <errno.h>
#include <netinet/in.h>

#define TYPE_MASK 0xf
#define DNS_PORT 53

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

/* refusal() - the errno for a socket that cannot be relayed, 0 for one that can */
static int refusal(int kind, int protocol)
{
	switch (kind) {
	case SOCK_STREAM:
		return protocol == 0 || protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP ? 0 : EPROTONOSUPPORT;
	case SOCK_DGRAM:
		if (protocol == 0 || protocol == IPPROTO_UDP)
			return 0;
		return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6 ? EACCES : EPROTONOSUPPORT;
	case SOCK_RAW: return EPERM;
	}
	return ESOCKTNOSUPPORT;
}

long bn_relay_socket(int domain, int type, int protocol)
{
	int kind = type & TYPE_MASK, error = refusal(kind, protocol);
	long fd;

	if (error)
		return -error;
	fd = bn_sys(SYS_socket, domain, type, protocol == IPPROTO_MPTCP ? 0 : protocol);
	/*
	 * By whatever call it sends: nothing leaves the machine. Linux before 5.7 and
	 * sandboxes forbid that; the calls of this library are watched all the same.
	 */
	if (fd >= 0 && kind == SOCK_DGRAM)
		bn_sys(SYS_setsockopt, fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3);
	return fd;
}

/* internet() - whether the socket is one of the internet */
static int internet(int fd)
{
	int domain = bn_domain(fd);

	return domain == AF_INET || domain == AF_INET6;
}

/* ask() - what the broker says about the socket and the address in the request */
static long ask(uint32_t op, int fd, struct bn_request *request, struct bn_answer *answer)
{
	long ret;

	request->op = op;
	request->size = 0;
	ret = bn_ask(request, NULL, fd, answer, NULL, 0);
	if (ret < 0)
		return ret;
	if (answer->verdict == BN_LOCAL)
		return BN_NATIVE;
	return answer->verdict == BN_DONE ? 0 : -(long)answer->error;
}

long bn_relay_connect(int fd, const struct sockaddr *sa, socklen_t len)
{
	struct bn_request request;
	struct bn_answer answer;

	if (!bn_get_addr(&request, sa, len) || !internet(fd) || (bn_is_loopback(&request) && request.port != DNS_PORT))
		return BN_NATIVE;
	return ask(BN_CONNECT, fd, &request, &answer);
}

long bn_relay_target(int fd, const struct sockaddr *sa, socklen_t len, struct sockaddr_storage *to, socklen_t *to_len)
{
	struct bn_request request;
	struct bn_answer answer;
	long ret;

	if (!bn_get_addr(&request, sa, len) || !internet(fd) || bn_type(fd) != SOCK_DGRAM ||
	    (bn_is_loopback(&request) && request.port != DNS_PORT))
		return BN_NATIVE;
	ret = ask(BN_SEND, fd, &request, &answer);
	if (ret == 0)
		*to_len = bn_put_addr(&answer, bn_domain(fd), (struct sockaddr *)to, sizeof(*to));
	return ret;
}

void bn_relay_name(int fd, struct sockaddr *sa, socklen_t room, socklen_t *len)
{
	struct bn_request request;
	struct bn_answer answer;
	socklen_t have = *len < room ? *len : room;

	if (bn_get_addr(&request, sa, have) && bn_is_loopback(&request) && internet(fd) &&
	    ask(BN_PEER, fd, &request, &answer) == 0)
		*len = bn_put_addr(&answer, bn_domain(fd), sa, room);
}
