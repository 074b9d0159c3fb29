/* What names and addresses stand for, in the pod's network. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>

#include "dns.h"
#include "preload.h"
#include "relay.h"

#define CLASS_IN 1
#define NXDOMAIN 3

/* ask() - add the records of one type: 0 or an EAI_ error */
static int ask(const char *name, int type, uint8_t *reply, struct bn_names *names)
{
	uint8_t query[BN_MAX_QUERY];
	size_t n = bn_dns_query(query, name, type, CLASS_IN);
	int before = names->n;
	long got;

	if (!n)
		return EAI_NONAME;
	got = bn_dns_send(query, n, reply, BN_MAX_MESSAGE);
	if (got < 0)
		return EAI_AGAIN;
	switch (bn_dns_rcode(reply, (size_t)got)) {
	case 0: break;
	case NXDOMAIN: return EAI_NONAME;
	default: return EAI_AGAIN;
	}
	bn_dns_read(reply, (size_t)got, type, names);
	return names->n > before || (type == BN_TYPE_PTR && names->name[0]) ? 0 : EAI_NODATA;
}

/* reachable() - whether the session has a way to an address at all */
static int reachable(const struct bn_address *a)
{
	struct bn_answer at = { .family = (uint16_t)a->family, .port = 53 };
	struct sockaddr_storage sa, to;
	socklen_t len, to_len;
	long ret;
	int fd;

	bn_copy(at.addr, a->addr, sizeof(at.addr));
	len = bn_put_addr(&at, a->family, (struct sockaddr *)&sa, sizeof(sa));
	if (bn_mode() == BN_RELAYED) {
		fd = (int)bn_relay_socket(a->family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		ret = fd < 0 ? fd : bn_relay_target(fd, (struct sockaddr *)&sa, len, &to, &to_len);
	} else {
		fd = bn_make(a->family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		ret = fd < 0 ? fd : bn_sys(SYS_connect, fd, &sa, len);
	}
	if (fd >= 0)
		bn_close(fd);
	return ret == 0;
}

/*
 * prefer() - whether an IPv6 address goes before IPv4 ones (RFC 6724): a global one
 * that can be reached does, a unique local one (fc00::/7) does not
 */
static int prefer(const struct bn_address *a) { return (a->addr[0] & 0xfe) != 0xfc && reachable(a); }

/* sort() - put IPv6, which comes last, first if it is better */
static void sort(struct bn_names *names, int first6)
{
	struct bn_address v4[BN_MAX_ADDRS];
	int n6 = names->n - first6;

	if (first6 == 0 || n6 == 0 || !prefer(&names->list[first6]))
		return;
	bn_copy(v4, names->list, (size_t)first6 * sizeof(v4[0]));
	/* Forwards, and the two may overlap: bn_copy copies byte by byte from the start. */
	bn_copy(names->list, names->list + first6, (size_t)n6 * sizeof(v4[0]));
	bn_copy(names->list + n6, v4, (size_t)first6 * sizeof(v4[0]));
}

int bn_lookup(const char *name, int family, struct bn_names *names)
{
	uint8_t *reply = malloc(BN_MAX_MESSAGE);
	int e4 = EAI_NODATA, e6 = EAI_NODATA, first6;

	if (!reply)
		return EAI_MEMORY;
	if (family != AF_INET6)
		e4 = ask(name, BN_TYPE_A, reply, names);
	first6 = names->n;
	if (family != AF_INET && e4 != EAI_NONAME)
		e6 = ask(name, BN_TYPE_AAAA, reply, names);
	free(reply);
	if (names->n) {
		sort(names, first6);
		return 0;
	}
	/* No answer is worse to know than that there is none. */
	return e4 == EAI_AGAIN || e6 == EAI_AGAIN     ? EAI_AGAIN
	       : e4 == EAI_NONAME || e6 == EAI_NONAME ? EAI_NONAME
						      : EAI_NODATA;
}

/* reverse() - the name under which an address is asked for */
static void reverse(const struct bn_address *a, char *name)
{
	static const char hex[] = "0123456789abcdef", v4[] = "in-addr.arpa", v6[] = "ip6.arpa";
	int i;

	if (a->family == AF_INET) {
		for (i = 3; i >= 0; i--) {
			if (a->addr[i] >= 100)
				*name++ = (char)('0' + a->addr[i] / 100);
			if (a->addr[i] >= 10)
				*name++ = (char)('0' + a->addr[i] / 10 % 10);
			*name++ = (char)('0' + a->addr[i] % 10);
			*name++ = '.';
		}
		bn_copy(name, v4, sizeof(v4));
		return;
	}
	for (i = 15; i >= 0; i--) {
		*name++ = hex[a->addr[i] & 0xf];
		*name++ = '.';
		*name++ = hex[a->addr[i] >> 4];
		*name++ = '.';
	}
	bn_copy(name, v6, sizeof(v6));
}

int bn_lookup_addr(const struct bn_address *addr, struct bn_names *names)
{
	uint8_t *reply = malloc(BN_MAX_MESSAGE);
	char name[80]; /* 16 times "f.f." and "ip6.arpa" */
	int ret;

	if (!reply)
		return EAI_MEMORY;
	names->n = 0;
	names->name[0] = '\0';
	reverse(addr, name);
	ret = ask(name, BN_TYPE_PTR, reply, names);
	free(reply);
	return ret;
}
