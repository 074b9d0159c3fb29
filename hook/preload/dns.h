/* DNS messages (RFC 1035), and questions that the broker answers with them. */
#ifndef BN_DNS_H
#define BN_DNS_H

#include <stddef.h>
#include <stdint.h>

#define BN_MAX_NAME 256 /* in text, with its NUL */
#define BN_MAX_ADDRS 48 /* of a name; glibc keeps as many */
#define BN_MAX_QUERY 280 /* header, name of 255 bytes, type and class */

enum {
	BN_TYPE_A = 1,
	BN_TYPE_CNAME = 5,
	BN_TYPE_PTR = 12,
	BN_TYPE_AAAA = 28,
};

struct bn_address {
	int family;
	uint8_t addr[16];
};

/* What was found out about a name. The zero value is ready to use. */
struct bn_names {
	int n;
	struct bn_address list[BN_MAX_ADDRS];
	char name[BN_MAX_NAME]; /* the canonical name, or that of an address; "" = none */
};

/*
 * bn_dns_query() - write a query of one question
 * Return: its length, 0 if the name is none
 */
size_t bn_dns_query(uint8_t *query, const char *name, int type, int class);

/*
 * bn_dns_send() - have a query answered
 * Return: the reply's length, or a negative errno
 */
long bn_dns_send(const uint8_t *query, size_t n, uint8_t *reply, size_t room);

/* bn_dns_rcode() - the response code of a reply of n bytes, SERVFAIL if it is none */
int bn_dns_rcode(const uint8_t *reply, size_t n);

/* bn_dns_read() - add what a reply says of a type to names */
void bn_dns_read(const uint8_t *reply, size_t n, int type, struct bn_names *names);

/*
 * bn_lookup() - the addresses of a name
 * @family: AF_INET, AF_INET6 or AF_UNSPEC; with the last the best come first
 * Return: 0 or an EAI_ error
 */
int bn_lookup(const char *name, int family, struct bn_names *names);

/* bn_lookup_addr() - the name of an address: 0 or an EAI_ error */
int bn_lookup_addr(const struct bn_address *addr, struct bn_names *names);

#endif
