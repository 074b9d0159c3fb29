/* Results, and the connections that all checks are made of. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "conform.h"

const char *error(int e)
{
	static const struct {
		int e;
		const char *name;
	} names[] = {
		{ 0, "ok" }, { ECONNREFUSED, "ECONNREFUSED" }, { EHOSTUNREACH, "EHOSTUNREACH" }, { ETIMEDOUT, "ETIMEDOUT" },
		{ EADDRINUSE, "EADDRINUSE" }, { EMFILE, "EMFILE" }, { EPERM, "EPERM" },
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (names[i].e == e)
			return names[i].name;
	return strerror(e);
}

void say(const char *check, const char *format, ...)
{
	char line[500];
	int n = snprintf(line, sizeof(line), "%s: ", check);
	va_list args;

	va_start(args, format);
	n += vsnprintf(line + n, sizeof(line) - n - 1, format, args);
	va_end(args);
	line[n++] = '\n';
	if (write(1, line, n) != n)
		_exit(1);
}

int fill(struct sockaddr_storage *ss, const char *host, int port)
{
	struct sockaddr_in *in = (void *)ss;
	struct sockaddr_in6 *in6 = (void *)ss;

	memset(ss, 0, sizeof(*ss));
	if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		return sizeof(*in);
	}
	inet_pton(AF_INET6, host, &in6->sin6_addr);
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(port);
	return sizeof(*in6);
}

int patient(int fd)
{
	struct timeval limit = { 30, 0 };

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return fd;
}

int dial(const char *host, int port)
{
	struct sockaddr_storage ss;
	int len = fill(&ss, host, port), fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	if (connect(fd, (void *)&ss, len) < 0) {
		int e = errno;

		close(fd);
		return -e;
	}
	return patient(fd);
}

void refused(const char *check, const char *host, int port)
{
	int fd = dial(host, port);

	say(check, "%s", error(fd < 0 ? -fd : 0));
	if (fd >= 0)
		close(fd);
}

const char *hear(int fd)
{
	static char buf[2000];
	size_t n = 0;
	ssize_t got;

	if (fd < 0)
		return error(-fd);
	while (n < sizeof(buf) - 1 && (got = read(fd, buf + n, sizeof(buf) - 1 - n)) > 0)
		n += got;
	buf[n] = 0;
	close(fd);
	if (n && buf[n - 1] == '\n')
		buf[n - 1] = 0;
	return buf;
}

int port_of(int fd)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);

	getsockname(fd, (void *)&ss, &len);
	return ntohs(((struct sockaddr_in *)&ss)->sin_port); /* both families have it there */
}

const char *who(void)
{
	char *heard = (char *)hear(dial(LEDGER, 11));

	heard[strcspn(heard, ":")] = 0;
	return heard;
}
