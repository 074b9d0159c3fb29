/* What listens: at every kind of address, for the test and for itself. */
#define _GNU_SOURCE
#include <errno.h>
#include <unistd.h>

#include "conform.h"

int listener(const char *check, const char *at, int port, int v6only)
{
	struct sockaddr_storage ss;
	int len = fill(&ss, *at ? at : POD, port), fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	if (ss.ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof(v6only));
	if (port) /* as servers do: connections of the last minute are remembered at a port that is asked for again */
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if ((*at && bind(fd, (void *)&ss, len) < 0) || listen(fd, 5) < 0) {
		say(check, "%s", error(errno));
		close(fd);
		return -1;
	}
	return patient(fd);
}

/* welcome() - tells the test where to connect to, and greets it */
static void welcome(const char *check, const char *at, int v6only)
{
	int fd = listener(check, at, 0, v6only), c;

	if (fd < 0)
		return;
	say(check, "at %d", port_of(fd));
	c = accept(fd, NULL, NULL);
	if (c < 0 || write(c, "hello", 5) != 5)
		say(check, "accept: %s", error(errno));
	close(c);
	close(fd);
}

/* own() - a listener that the program itself connects to */
static void own(const char *check, const char *at, int port)
{
	int fd = listener(check, at, port, 0), peer, c;

	if (fd < 0)
		return;
	peer = dial(at, port_of(fd));
	if (peer < 0) {
		say(check, "connect: %s", error(-peer));
	} else {
		c = accept(fd, NULL, NULL);
		if (write(c, "hello", 5) != 5)
			say(check, "accept: %s", error(errno));
		close(c);
		say(check, "%s", hear(peer));
	}
	close(fd);
}

void listeners(void)
{
	welcome("listen/127.0.0.1", "127.0.0.1", 0);
	welcome("listen/0.0.0.0", "0.0.0.0", 0);
	welcome("listen/::", "::", 0);
	welcome("listen/v6only", "::", 1);
	welcome("listen/unbound", "", 0);
	own("listen/pod", POD, 0);
	own("listen/low", POD, low_port);
}
