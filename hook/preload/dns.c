/* DNS messages (RFC 1035). */
#include "dns.h"

#include <errno.h>
#include <sys/socket.h>

#include "preload.h"

enum {
	HEADER = 12,
	MAX_LABEL = 63,
	MAX_WIRE = 255,
	MAX_JUMPS = 64, /* of compression, in one name */
	RECORD = 10, /* type, class, TTL and length */
	SERVFAIL = 2,
	RECURSION_DESIRED = 1,
};

static unsigned get16(const uint8_t *p) { return (unsigned)(p[0] << 8 | p[1]); }

size_t bn_dns_query(uint8_t *query, const char *name, int type, int class)
{
	static const uint8_t header[HEADER] = { 0, 1, RECURSION_DESIRED, 0, 0, 1 };
	size_t at = HEADER, n;

	bn_copy(query, header, HEADER);
	while (*name) {
		for (n = 0; name[n] && name[n] != '.'; n++)
			;
		if (n == 0 && name[1] == '\0' && at == HEADER)
			break; /* the root */
		if (n == 0 || n > MAX_LABEL || at - HEADER + n + 2 > MAX_WIRE)
			return 0;
		query[at++] = (uint8_t)n;
		bn_copy(query + at, name, n);
		at += n;
		name += n + (name[n] == '.');
	}
	query[at++] = 0;
	query[at++] = (uint8_t)(type >> 8);
	query[at++] = (uint8_t)type;
	query[at++] = (uint8_t)(class >> 8);
	query[at++] = (uint8_t) class;
	return at;
}

long bn_dns_send(const uint8_t *query, size_t n, uint8_t *reply, size_t room)
{
	struct bn_request request = { .op = BN_RESOLVE, .size = (uint32_t)n };
	struct bn_answer answer;
	long ret;

	if (n < HEADER || n > BN_MAX_MESSAGE)
		return -EINVAL;
	ret = bn_ask(&request, query, -1, &answer, reply, room);
	if (ret < 0)
		return ret;
	if (answer.verdict != BN_DONE || answer.size < HEADER)
		return -ENETDOWN;
	return (long)answer.size;
}

int bn_dns_rcode(const uint8_t *reply, size_t n) { return n < HEADER ? SERVFAIL : reply[3] & 0xf; }

/* skip() - the offset after a name, 0 if it is broken */
static size_t skip(const uint8_t *m, size_t n, size_t at)
{
	while (at < n) {
		if (m[at] >= 0xc0)
			return at + 2;
		if (m[at] == 0)
			return at + 1;
		at += 1u + m[at];
	}
	return 0;
}

/* is_host() - what a host's name consists of: nothing that could drive a terminal or a shell */
static int is_host(uint8_t c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

/* expand() - a name as text; false, and an empty name, if it is no host's */
static int expand(const uint8_t *m, size_t n, size_t at, char *name)
{
	size_t out = 0, i;
	int jumps;

	for (jumps = 0; jumps < MAX_JUMPS && at < n;) {
		unsigned len = m[at];

		if (len >= 0xc0) {
			if (at + 1 >= n)
				break;
			at = (len & 0x3f) << 8 | m[at + 1];
			jumps++;
			continue;
		}
		if (len == 0) {
			name[out ? out - 1 : 0] = '\0'; /* without the last dot */
			return out > 0;
		}
		if (at + 1 + len > n || out + len + 2 > BN_MAX_NAME)
			break;
		for (i = 1; i <= len; i++) {
			if (!is_host(m[at + i]))
				goto broken;
			name[out++] = (char)m[at + i];
		}
		name[out++] = '.';
		at += 1 + len;
	}
broken:
	name[0] = '\0';
	return 0;
}

static void add(struct bn_names *names, int family, const uint8_t *addr, size_t size)
{
	struct bn_address *a = &names->list[names->n];

	if (names->n == BN_MAX_ADDRS)
		return;
	names->n++;
	a->family = family;
	bn_copy(a->addr, addr, size);
}

void bn_dns_read(const uint8_t *m, size_t n, int type, struct bn_names *names)
{
	unsigned questions, answers;
	size_t at = HEADER;

	if (n < HEADER)
		return;
	questions = get16(m + 4);
	answers = get16(m + 6);
	for (; questions > 0 && at; questions--)
		if ((at = skip(m, n, at)) != 0)
			at += 4;
	for (; answers > 0 && at; answers--) {
		size_t rdata;
		unsigned is, len;

		at = skip(m, n, at);
		if (!at || at + RECORD > n)
			return;
		is = get16(m + at);
		len = get16(m + at + 8);
		rdata = at + RECORD;
		at = rdata + len;
		if (at > n)
			return;
		if (is == BN_TYPE_A && type == BN_TYPE_A && len == 4)
			add(names, AF_INET, m + rdata, 4);
		else if (is == BN_TYPE_AAAA && type == BN_TYPE_AAAA && len == 16)
			add(names, AF_INET6, m + rdata, 16);
		else if (is == BN_TYPE_CNAME || (is == BN_TYPE_PTR && type == BN_TYPE_PTR && !names->name[0]))
			expand(m, n, rdata, names->name);
	}
}
