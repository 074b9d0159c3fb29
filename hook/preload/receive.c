/*
 * recvfrom(), recvmsg(), recvmmsg() - a relayed datagram is from its destination,
 * not from the far end: resolvers compare
 * Return: as the C library's
 */
#include "preload.h"
#include "relay.h"

BN_EXPORT ssize_t recvfrom(int fd, void *restrict buf, size_t n, int flags, struct sockaddr *restrict sa,
			   socklen_t *restrict len)
{
	__typeof__(&recvfrom) real = BN_REAL(recvfrom);
	socklen_t room = sa && len ? *len : 0;
	ssize_t got =
	    real ? real(fd, buf, n, flags, sa, len) : bn_return(bn_sys(SYS_recvfrom, fd, buf, n, flags, sa, len));

	if (got >= 0 && room && bn_mode() == BN_RELAYED)
		bn_relay_name(fd, sa, room, len);
	return got;
}

/* name_sender() - of the sender in a message that was received */
static void name_sender(int fd, struct msghdr *msg, socklen_t room)
{
	if (msg->msg_name && room)
		bn_relay_name(fd, msg->msg_name, room, &msg->msg_namelen);
}

BN_EXPORT ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
	__typeof__(&recvmsg) real = BN_REAL(recvmsg);
	socklen_t room = msg ? msg->msg_namelen : 0;
	ssize_t got = real ? real(fd, msg, flags) : bn_return(bn_sys(SYS_recvmsg, fd, msg, flags));

	if (got >= 0 && bn_mode() == BN_RELAYED)
		name_sender(fd, msg, room);
	return got;
}

BN_EXPORT int recvmmsg(int fd, struct mmsghdr *v, unsigned int n, int flags, struct timespec *timeout)
{
	__typeof__(&recvmmsg) real = BN_REAL(recvmmsg);
	/* The kernel changes each msg_namelen: how much room there was is an address's at most. */
	int got =
		real ? real(fd, v, n, flags, timeout) : (int)bn_return(bn_sys(SYS_recvmmsg, fd, v, n, flags, timeout)),
	    i;

	for (i = 0; bn_mode() == BN_RELAYED && i < got; i++)
		name_sender(fd, &v[i].msg_hdr, v[i].msg_hdr.msg_namelen);
	return got;
}
