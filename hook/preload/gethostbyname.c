/*
 * gethostbyname(), gethostbyaddr() and their kin - as getaddrinfo() and getnameinfo()
 * Return: as the C library's
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>

#include "dns.h"
#include "preload.h"

extern int *__errno_location(void);
extern int *__h_errno_location(void);

/* What the calls that are not reentrant return. */
#define STATIC_ROOM 8192
static struct hostent static_host;
static _Alignas(16) char static_room[STATIC_ROOM];

/* herror_of() - h_errno for an EAI_ error */
static int herror_of(int error)
{
	switch (error) {
	case EAI_NONAME: return HOST_NOT_FOUND;
	case EAI_NODATA: return NO_DATA;
	case EAI_AGAIN: return TRY_AGAIN;
	}
	return NO_RECOVERY;
}

/* Memory of the caller's that is handed out piece by piece. */
struct room {
	char *at, *end;
};

static void *take(struct room *r, size_t n, size_t align)
{
	uintptr_t p = ((uintptr_t)r->at + align - 1) & ~(uintptr_t)(align - 1);

	if (p + n > (uintptr_t)r->end || p + n < p)
		return NULL;
	r->at = (char *)(p + n);
	return (void *)p;
}

/* fill() - a struct hostent in the caller's memory: 0 or ERANGE */
static int fill(struct hostent *h, struct room *r, const char *name, int family, const struct bn_address *list,
		int count)
{
	size_t size = family == AF_INET ? 4 : 16, n = bn_strlen(name) + 1;
	char **addrs = take(r, ((size_t)count + 1) * sizeof(char *), sizeof(char *));
	char **aliases = take(r, sizeof(char *), sizeof(char *));
	char *text = take(r, n, 1);
	int i;

	if (!addrs || !aliases || !text)
		return ERANGE;
	bn_copy(text, name, n);
	*aliases = NULL;
	for (i = 0; i < count; i++) {
		addrs[i] = take(r, size, 4);
		if (!addrs[i])
			return ERANGE;
		bn_copy(addrs[i], list[i].addr, size);
	}
	addrs[count] = NULL;
	*h = (struct hostent){ text, aliases, family, (int)size, addrs };
	return 0;
}

/* by_name() - 0, or an errno with *herror set */
static int by_name(const char *name, int family, struct hostent *h, struct room r, int *herror)
{
	struct bn_names names = { 0 };
	int ret;

	if (family != AF_INET && family != AF_INET6) {
		*herror = NETDB_INTERNAL;
		return EAFNOSUPPORT;
	}
	/* An address is its own name. */
	if (inet_pton(family, name, names.list[0].addr) == 1 ||
	    (family == AF_INET && inet_aton(name, (void *)names.list[0].addr)))
		names.n = 1;
	else if ((ret = bn_lookup(name, family, &names)) != 0) {
		*herror = herror_of(ret);
		return ret == EAI_AGAIN ? EAGAIN : ENOENT;
	}
	ret = fill(h, &r, names.name[0] ? names.name : name, family, names.list, names.n);
	if (ret)
		*herror = NETDB_INTERNAL;
	return ret;
}

static int by_addr(const void *addr, socklen_t len, int family, struct hostent *h, struct room r, int *herror)
{
	struct bn_address a = { .family = family };
	struct bn_names names;
	int ret;

	if (!(family == AF_INET && len == 4) && !(family == AF_INET6 && len == 16)) {
		*herror = NETDB_INTERNAL;
		return EINVAL;
	}
	bn_copy(a.addr, addr, len);
	ret = bn_lookup_addr(&a, &names);
	if (ret) {
		*herror = herror_of(ret);
		return ret == EAI_AGAIN ? EAGAIN : ENOENT;
	}
	ret = fill(h, &r, names.name, family, &a, 1);
	if (ret)
		*herror = NETDB_INTERNAL;
	return ret;
}

static struct room all_of(char *buf, size_t n) { return (struct room){ buf, buf + n }; }

/* answer() - what the reentrant calls return */
static int answer(int error, struct hostent *h, struct hostent **result)
{
	*result = error ? NULL : h;
	return error == ENOENT ? 0 : error; /* not found is no error of the call's */
}

BN_EXPORT int gethostbyname2_r(const char *name, int family, struct hostent *h, char *buf, size_t n,
			       struct hostent **result, int *herror)
{
	__typeof__(&gethostbyname2_r) real = BN_REAL(gethostbyname2_r);

	if (bn_mode() == BN_OFF && real)
		return real(name, family, h, buf, n, result, herror);
	return answer(by_name(name, family, h, all_of(buf, n), herror), h, result);
}

BN_EXPORT int gethostbyname_r(const char *name, struct hostent *h, char *buf, size_t n, struct hostent **result,
			      int *herror)
{
	return gethostbyname2_r(name, AF_INET, h, buf, n, result, herror);
}

BN_EXPORT int gethostbyaddr_r(const void *addr, socklen_t len, int family, struct hostent *h, char *buf, size_t n,
			      struct hostent **result, int *herror)
{
	__typeof__(&gethostbyaddr_r) real = BN_REAL(gethostbyaddr_r);

	if (bn_mode() == BN_OFF && real)
		return real(addr, len, family, h, buf, n, result, herror);
	return answer(by_addr(addr, len, family, h, all_of(buf, n), herror), h, result);
}

/* forget() - what the calls that are not reentrant return after an error */
static struct hostent *forget(int error)
{
	if (!error)
		return &static_host;
	if (error != ENOENT)
		*__errno_location() = error;
	return NULL;
}

BN_EXPORT struct hostent *gethostbyname2(const char *name, int family)
{
	__typeof__(&gethostbyname2) real = BN_REAL(gethostbyname2);

	if (bn_mode() == BN_OFF && real)
		return real(name, family);
	return forget(by_name(name, family, &static_host, all_of(static_room, STATIC_ROOM), __h_errno_location()));
}

BN_EXPORT struct hostent *gethostbyname(const char *name) { return gethostbyname2(name, AF_INET); }

BN_EXPORT struct hostent *gethostbyaddr(const void *addr, socklen_t len, int family)
{
	__typeof__(&gethostbyaddr) real = BN_REAL(gethostbyaddr);

	if (bn_mode() == BN_OFF && real)
		return real(addr, len, family);
	return forget(by_addr(addr, len, family, &static_host, all_of(static_room, STATIC_ROOM), __h_errno_location()));
}
