/*
 * getaddrinfo() - names are the pod's; all else, such as services, flags and what a
 * list consists of, is the C library's own business, which gets the addresses
 * Return: as the C library's
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>

#include "dns.h"
#include "preload.h"

/*
 * freeaddrinfo() - node by node: a list of ours is put together of several
 * Return: nothing
 */
BN_EXPORT void freeaddrinfo(struct addrinfo *list)
{
	__typeof__(&freeaddrinfo) real = BN_REAL(freeaddrinfo);

	while (real && list) {
		struct addrinfo *next = list->ai_next;

		list->ai_next = NULL;
		real(list);
		list = next;
	}
}

/* is_numeric() - whether a C library takes it for an address */
static int is_numeric(const char *node)
{
	unsigned char addr[sizeof(struct in6_addr)];
	const char *p;

	if (inet_aton(node, (void *)addr))
		return 1;
	for (p = node; *p; p++)
		if (*p == ':')
			return 1; /* no name has one; a scope may follow */
	return 0;
}

/*
 * set_name() - give the first entry its canonical name. glibc frees it by itself;
 * musl does not, and keeps ours: some bytes for each call that asks for one.
 */
static void set_name(struct addrinfo *first, const char *name)
{
	size_t n = bn_strlen(name) + 1;
	char *copy = malloc(n);

	if (!copy)
		return;
	bn_copy(copy, name, n);
	if (bn_next("gnu_get_libc_version"))
		free(first->ai_canonname);
	first->ai_canonname = copy;
}

/* text() - an address as the C library reads it, mapped to IPv6 if need be */
static int text(const struct bn_address *a, int mapped, char *buf, socklen_t room)
{
	static const char prefix[] = "::ffff:";
	size_t n = mapped && a->family == AF_INET ? sizeof(prefix) - 1 : 0;

	bn_copy(buf, prefix, n);
	return inet_ntop(a->family, a->addr, buf + n, room - (socklen_t)n) != NULL;
}

/* assemble() - a list of all addresses */
static int assemble(const struct bn_names *names, const char *service, const struct addrinfo *hints, int mapped,
		    struct addrinfo **out)
{
	__typeof__(&getaddrinfo) real = BN_REAL(getaddrinfo);
	struct addrinfo h = { 0 }, **end = out;
	char buf[INET6_ADDRSTRLEN + 8];
	int i, ret;

	if (hints) {
		h.ai_flags =
		    (hints->ai_flags & ~(AI_V4MAPPED | AI_ALL | AI_ADDRCONFIG | AI_CANONNAME)) | AI_NUMERICHOST;
		h.ai_socktype = hints->ai_socktype;
		h.ai_protocol = hints->ai_protocol;
	} else {
		h.ai_flags = AI_NUMERICHOST;
	}
	*out = NULL;
	for (i = 0; i < names->n; i++) {
		if (!text(&names->list[i], mapped, buf, sizeof(buf)))
			continue;
		h.ai_family = mapped ? AF_INET6 : names->list[i].family;
		ret = real(buf, service, &h, end);
		if (ret) {
			*end = NULL;
			freeaddrinfo(*out);
			return ret;
		}
		while (*end)
			end = &(*end)->ai_next;
	}
	return *out ? 0 : EAI_NONAME;
}

BN_EXPORT int getaddrinfo(const char *restrict node, const char *restrict service,
			  const struct addrinfo *restrict hints, struct addrinfo **restrict out)
{
	__typeof__(&getaddrinfo) real = BN_REAL(getaddrinfo);
	int family = hints ? hints->ai_family : AF_UNSPEC, flags = hints ? hints->ai_flags : 0, mapped = 0, ret;
	struct bn_names names = { 0 };

	if (!real)
		return EAI_SYSTEM;
	if (bn_mode() == BN_OFF || !node || !*node || flags & AI_NUMERICHOST || is_numeric(node) ||
	    (family != AF_UNSPEC && family != AF_INET && family != AF_INET6))
		return real(node, service, hints, out);
	ret = bn_lookup(node, family, &names);
	if (family == AF_INET6 && flags & AI_V4MAPPED && (ret == EAI_NODATA || ret == EAI_NONAME || flags & AI_ALL)) {
		int ret4 = bn_lookup(node, AF_INET, &names);

		mapped = 1;
		ret = names.n ? 0 : ret4;
	}
	if (ret)
		return ret;
	ret = assemble(&names, service, hints, mapped, out);
	if (ret == 0 && flags & AI_CANONNAME)
		set_name(*out, names.name[0] ? names.name : node);
	return ret;
}
