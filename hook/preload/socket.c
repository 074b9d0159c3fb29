/*
 * socket() - a socket of the session
 * Return: as the C library's; ENETDOWN when the session has gone
 */
#include <errno.h>
#include <linux/netlink.h>
#include <netinet/in.h>

#include "preload.h"
#include "relay.h"

#define TYPE_MASK 0xf

BN_EXPORT int socket(int domain, int type, int protocol)
{
	int mode = bn_mode(), kind = type & TYPE_MASK;
	int internet = domain == AF_INET || domain == AF_INET6;

	if (mode == BN_NAMESPACED && ((internet && (kind == SOCK_STREAM || kind == SOCK_DGRAM || kind == SOCK_RAW)) ||
				      (domain == AF_NETLINK && protocol == NETLINK_ROUTE)))
		return (int)bn_return(bn_make(domain, type, protocol));
	if (mode == BN_RELAYED && internet)
		return (int)bn_return(bn_relay_socket(domain, type, protocol));
	return (int)bn_return(bn_sys(SYS_socket, domain, type, protocol));
}
