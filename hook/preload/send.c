/*
 * sendto(), sendmsg(), sendmmsg() - a relayed datagram goes to the far end of its
 * destination
 * Return: as the C library's
 */
#include <errno.h>

#include "preload.h"
#include "relay.h"

BN_EXPORT ssize_t sendto(int fd, const void *buf, size_t n, int flags, const struct sockaddr *sa, socklen_t len)
{
	__typeof__(&sendto) real = BN_REAL(sendto);
	struct sockaddr_storage to;
	long ret = BN_NATIVE;

	if (sa && bn_mode() == BN_RELAYED) {
		if (flags & MSG_FASTOPEN && bn_type(fd) == SOCK_STREAM)
			return bn_return(-EOPNOTSUPP);
		ret = bn_relay_target(fd, sa, len, &to, &len);
	}
	if (ret == 0)
		sa = (struct sockaddr *)&to;
	else if (ret != BN_NATIVE)
		return bn_return(ret);
	return real ? real(fd, buf, n, flags, sa, len) : bn_return(bn_sys(SYS_sendto, fd, buf, n, flags, sa, len));
}

BN_EXPORT ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	__typeof__(&sendmsg) real = BN_REAL(sendmsg);
	struct sockaddr_storage to;
	struct msghdr copy;
	socklen_t len;
	long ret;

	if (msg && msg->msg_name && bn_mode() == BN_RELAYED) {
		if (flags & MSG_FASTOPEN && bn_type(fd) == SOCK_STREAM)
			return bn_return(-EOPNOTSUPP);
		ret = bn_relay_target(fd, msg->msg_name, msg->msg_namelen, &to, &len);
		if (ret == 0) {
			copy = *msg;
			copy.msg_name = &to;
			copy.msg_namelen = len;
			msg = &copy;
		} else if (ret != BN_NATIVE) {
			return bn_return(ret);
		}
	}
	return real ? real(fd, msg, flags) : bn_return(bn_sys(SYS_sendmsg, fd, msg, flags));
}

BN_EXPORT int sendmmsg(int fd, struct mmsghdr *v, unsigned int n, int flags)
{
	__typeof__(&sendmmsg) real = BN_REAL(sendmmsg);
	unsigned int i;

	if (bn_mode() != BN_RELAYED)
		return real ? real(fd, v, n, flags) : (int)bn_return(bn_sys(SYS_sendmmsg, fd, v, n, flags));
	for (i = 0; i < n; i++) {
		ssize_t sent = sendmsg(fd, &v[i].msg_hdr, flags);

		if (sent < 0)
			return i ? (int)i : -1;
		v[i].msg_len = (unsigned int)sent;
	}
	return (int)n;
}
