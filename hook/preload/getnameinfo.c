/*
 * getnameinfo() - the name of an address is the one it has in the pod's network;
 * all else is the C library's
 * Return: as the C library's
 */
#include <netdb.h>

#include "dns.h"
#include "preload.h"

BN_EXPORT int getnameinfo(const struct sockaddr *restrict sa, socklen_t len, char *restrict host, socklen_t host_len,
			  char *restrict service, socklen_t service_len, int flags)
{
	__typeof__(&getnameinfo) real = BN_REAL(getnameinfo);
	struct bn_names names;
	struct bn_request at;
	struct bn_address addr;
	size_t n;
	int ret;

	if (!real)
		return EAI_SYSTEM;
	if (bn_mode() == BN_OFF || !host || !host_len || flags & NI_NUMERICHOST || !bn_get_addr(&at, sa, len))
		return real(sa, len, host, host_len, service, service_len, flags);
	addr.family = at.family;
	bn_copy(addr.addr, at.addr, sizeof(addr.addr));
	ret = bn_lookup_addr(&addr, &names);
	if (ret == EAI_MEMORY || (ret && flags & NI_NAMEREQD))
		return ret == EAI_NODATA ? EAI_NONAME : ret;
	if (ret) /* the address as text */
		return real(sa, len, host, host_len, service, service_len, flags | NI_NUMERICHOST);
	n = bn_strlen(names.name) + 1;
	if (n > host_len)
		return EAI_OVERFLOW;
	bn_copy(host, names.name, n);
	if (!service || !service_len)
		return 0;
	return real(sa, len, NULL, 0, service, service_len, flags & ~NI_NAMEREQD);
}
