/* resolve - print the addresses of names as the C library's getaddrinfo() finds
 * them: a line per name with its addresses, "none" if it does not exist, or
 * getaddrinfo()'s error. */
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
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

int main(int argc, char **argv)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };

	for (int i = 1; i < argc; i++) {
		struct addrinfo *found = NULL;
		int err = getaddrinfo(argv[i], NULL, &hints, &found);

		printf("%s", argv[i]);
		if (err == EAI_NONAME)
			printf(" none");
		else if (err)
			printf(" error-%d", err);
		for (struct addrinfo *a = found; a; a = a->ai_next)
			print(a->ai_addr);
		putchar('\n');
		if (found)
			freeaddrinfo(found);
	}
	return 0;
}
