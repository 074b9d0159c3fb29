/*
 * res_query(), res_search(), res_send() and their kin - any record, of the pod's
 * network. Search lists are the pod's too, so a search is a query.
 * Return: the length of the reply, or -1 with h_errno set
 */
#include <errno.h>
#include <netdb.h>
#include <stdint.h>

#include "dns.h"
#include "preload.h"

extern int *__h_errno_location(void);

#define NXDOMAIN 3

int res_send(const unsigned char *query, int n, unsigned char *reply, int room);
int res_query(const char *name, int class, int type, unsigned char *reply, int room);
int res_search(const char *name, int class, int type, unsigned char *reply, int room);
int res_nsend(void *state, const unsigned char *query, int n, unsigned char *reply, int room);
int res_nquery(void *state, const char *name, int class, int type, unsigned char *reply, int room);
int res_nsearch(void *state, const char *name, int class, int type, unsigned char *reply, int room);

/* give_up() - -1 and h_errno */
static int give_up(int herror)
{
	*__h_errno_location() = herror;
	return -1;
}

BN_EXPORT int res_send(const unsigned char *query, int n, unsigned char *reply, int room)
{
	long got = n < 0 || room < 0 ? -EINVAL : bn_dns_send(query, (size_t)n, reply, (size_t)room);

	if (got < 0)
		return (int)bn_return(got);
	reply[0] = query[0]; /* the identifier */
	reply[1] = query[1];
	return (int)got;
}

BN_EXPORT int res_query(const char *name, int class, int type, unsigned char *reply, int room)
{
	uint8_t query[BN_MAX_QUERY];
	size_t n = bn_dns_query(query, name, type, class);
	int got;

	if (!n)
		return give_up(NO_RECOVERY);
	got = res_send(query, (int)n, reply, room);
	if (got < 0)
		return give_up(TRY_AGAIN);
	switch (bn_dns_rcode(reply, (size_t)got)) {
	case 0: return reply[6] || reply[7] ? got : give_up(NO_DATA);
	case NXDOMAIN: return give_up(HOST_NOT_FOUND);
	}
	return give_up(TRY_AGAIN);
}

BN_EXPORT int res_search(const char *name, int class, int type, unsigned char *reply, int room)
{
	return res_query(name, class, type, reply, room);
}

BN_EXPORT int res_nsend(void *state, const unsigned char *query, int n, unsigned char *reply, int room)
{
	(void)state;
	return res_send(query, n, reply, room);
}

BN_EXPORT int res_nquery(void *state, const char *name, int class, int type, unsigned char *reply, int room)
{
	(void)state;
	return res_query(name, class, type, reply, room);
}

BN_EXPORT int res_nsearch(void *state, const char *name, int class, int type, unsigned char *reply, int room)
{
	(void)state;
	return res_query(name, class, type, reply, room);
}

/* The names that glibc has given them in programs. */
#define BN_ALIAS(name) extern __typeof__(name) __##name __attribute__((alias(#name), visibility("default")))
BN_ALIAS(res_send);
BN_ALIAS(res_query);
BN_ALIAS(res_search);
BN_ALIAS(res_nsend);
BN_ALIAS(res_nquery);
BN_ALIAS(res_nsearch);
