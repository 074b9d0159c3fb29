/* What else sockets can do, and whose addresses they have. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "conform.h"

void sockets(void)
{
	struct sockaddr_storage ss;
	socklen_t len = fill(&ss, "127.0.0.1", 0);
	struct linger abort = { 1, 0 };
	int a = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), b, c, on = 1, fd;
	off_t from = 0;

	/* A listener by a duplicate that was made before it listened. */
	b = dup(a);
	c = bind(a, (void *)&ss, len) < 0 || listen(a, 5) < 0 ? errno : 0;
	if (c)
		say("sockets/dup", "%s", error(c));
	fd = dial("127.0.0.1", port_of(a));
	c = accept(patient(b), NULL, NULL);
	if (c < 0 || write(c, "hello", 5) != 5) {
		/* Nobody has taken the connection, and nobody would end it. */
		say("sockets/dup", "%s", error(errno));
		close(fd);
	} else {
		close(c);
		say("sockets/dup", "%s", hear(fd));
	}
	close(a);
	close(b);

	a = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	b = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(a, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	setsockopt(b, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	c = bind(a, (void *)&ss, len) < 0 || listen(a, 5) < 0 ? errno : 0;
	getsockname(a, (void *)&ss, &len);
	if (!c)
		c = bind(b, (void *)&ss, len) < 0 || listen(b, 5) < 0 ? errno : 0;
	say("sockets/reuseport", "%s", error(c));
	close(a);
	close(b);

	pass(dial(LEDGER, 11));

	fd = dial(LEDGER, 9);
	if (fd >= 0 && (write(fd, "12345", 5) != 5 || shutdown(fd, SHUT_WR) < 0))
		say("sockets/half-close", "%s", error(errno));
	say("sockets/half-close", "%.10s", hear(fd));

	fd = dial(LEDGER, 9);
	a = open(self, O_RDONLY | O_CLOEXEC);
	c = sendfile(fd, a, &from, 1000);
	shutdown(fd, SHUT_WR);
	say("sockets/sendfile", "%d sent, %.13s", c, hear(fd));
	close(a);

	fd = patient(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof(on));
	len = fill(&ss, LEDGER, 9);
	c = connect(fd, (void *)&ss, len) < 0 || write(fd, "123", 3) != 3 || shutdown(fd, SHUT_WR) < 0 ? errno : 0;
	say("sockets/fast open", "%.10s", c ? error(c) : hear(fd));

	fd = dial(LEDGER, 7);
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &abort, sizeof(abort));
	say("sockets/linger", "%s", error(close(fd) < 0 ? errno : 0));
}

void interfaces(void)
{
	struct ifaddrs *list, *i;
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	char text[INET_ADDRSTRLEN];
	int seen = 0, fd = dial(LEDGER, 7);

	if (getifaddrs(&list) == 0)
		for (i = list; i; i = i->ifa_next)
			if (i->ifa_addr && i->ifa_addr->sa_family == AF_INET)
				seen |= !strcmp(POD, inet_ntop(AF_INET, &((struct sockaddr_in *)i->ifa_addr)->sin_addr, text, sizeof(text)));
	say("source/interfaces", "%s", seen ? POD : "others");
	getsockname(fd, (void *)&ss, &len);
	say("source/own", "%s", inet_ntop(AF_INET, &((struct sockaddr_in *)&ss)->sin_addr, text, sizeof(text)));
	close(fd);
	say("source/seen", "%s", who());
}
