/* resolve - print the addresses of names as the C library's getaddrinfo() finds
 * them: a line per name with its addresses, "none" if it does not exist, or
 * getaddrinfo()'s error. With -srv print the targets and ports of SRV records as
 * res_search() finds them, or its h_errno; musl's is its res_query(). */
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static void print(const struct sockaddr *sa)
{
	char text[INET6_ADDRSTRLEN];
	const void *addr = sa->sa_family == AF_INET6
		? (const void *)&((const struct sockaddr_in6 *)sa)->sin6_addr
		: (const void *)&((const struct sockaddr_in *)sa)->sin_addr;

	if (inet_ntop(sa->sa_family, addr, text, sizeof text))
		printf(" %s", text);
}

static void addresses(const char *name)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	struct addrinfo *found = NULL;
	int err = getaddrinfo(name, NULL, &hints, &found);

	if (err == EAI_NONAME)
		printf(" none");
	else if (err)
		printf(" error-%d", err);
	for (struct addrinfo *a = found; a; a = a->ai_next)
		print(a->ai_addr);
	if (found)
		freeaddrinfo(found);
}

static void services(const char *name)
{
	unsigned char answer[4096];
	int len = res_search(name, ns_c_in, ns_t_srv, answer, sizeof answer);
	ns_msg msg;

	if (len < 0) {
		if (h_errno == HOST_NOT_FOUND || h_errno == NO_DATA)
			printf(" none");
		else
			printf(" error-%d", h_errno);
		return;
	}
	if (len > (int)sizeof answer || ns_initparse(answer, len, &msg) < 0) {
		printf(" no-message");
		return;
	}
	if (ns_msg_getflag(msg, ns_f_rcode)) /* musl returns these answers too */
		printf(" rcode-%d", ns_msg_getflag(msg, ns_f_rcode));
	for (int i = 0; i < ns_msg_count(msg, ns_s_an); i++) {
		ns_rr rr;
		const unsigned char *data; /* priority, weight, port, target: RFC 2782 */
		char target[NS_MAXDNAME];

		if (ns_parserr(&msg, ns_s_an, i, &rr) < 0)
			printf(" no-record");
		else if (ns_rr_type(rr) == ns_t_srv && ns_rr_rdlen(rr) > 6) {
			data = ns_rr_rdata(rr);
			if (dn_expand(ns_msg_base(msg), ns_msg_end(msg), data + 6, target, sizeof target) < 0)
				printf(" no-target");
			else
				printf(" %s:%d", target, data[4] << 8 | data[5]);
		}
	}
}

int main(int argc, char **argv)
{
	int srv = argc > 1 && !strcmp(argv[1], "-srv");

	for (int i = 1 + srv; i < argc; i++) {
		printf("%s", argv[i]);
		if (srv)
			services(argv[i]);
		else
			addresses(argv[i]);
		putchar('\n');
	}
	return 0;
}
