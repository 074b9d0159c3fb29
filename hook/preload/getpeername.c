/*
 * getpeername() - of a relayed socket the destination, not its far end
 * Return: as the C library's
 */
#include "preload.h"
#include "relay.h"

BN_EXPORT int getpeername(int fd, struct sockaddr *restrict sa, socklen_t *restrict len)
{
	socklen_t room = len ? *len : 0;
	long ret = bn_sys(SYS_getpeername, fd, sa, len);

	if (ret == 0 && bn_mode() == BN_RELAYED)
		bn_relay_name(fd, sa, room, len);
	return (int)bn_return(ret);
}
