/*
 * Puts another socket into the place of one that the program knows. dup3() alone
 * would lose the old one's registrations with epoll, which belong to the open file
 * and not to the number: a program that adds a socket before it listens would wait
 * for ever. So they are read from /proc/self/fdinfo first and made again after.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "preload.h"

#define MAX_REGISTRATIONS 16 /* of one socket; programs have one */
#define MAX_LINK 32
#define MAX_INFO 4096 /* of fdinfo that is read at a time */

struct registration {
	int epoll;
	struct epoll_event event;
};

struct registrations {
	int n;
	struct registration list[MAX_REGISTRATIONS];
};

/* copy_option() - give to what from has */
static void copy_option(int from, int to, int level, int name)
{
	unsigned char value[16];
	socklen_t len = sizeof(value);

	if (bn_sys(SYS_getsockopt, from, level, name, value, &len) == 0)
		bn_sys(SYS_setsockopt, to, level, name, value, len);
}

static void copy_options(int from, int to)
{
	static const struct {
		int level, name;
	} options[] = {
		{ SOL_SOCKET, SO_REUSEADDR }, { SOL_SOCKET, SO_REUSEPORT },	 { SOL_SOCKET, SO_KEEPALIVE },
		{ SOL_SOCKET, SO_LINGER },    { SOL_SOCKET, SO_RCVTIMEO },	 { SOL_SOCKET, SO_SNDTIMEO },
		{ IPPROTO_TCP, TCP_NODELAY }, { IPPROTO_TCP, TCP_DEFER_ACCEPT }, { IPPROTO_IPV6, IPV6_V6ONLY },
	};
	size_t i;

	for (i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		copy_option(from, to, options[i].level, options[i].name);
}

/* path_of() - "/proc/self/" dir "/" n */
static void path_of(char *p, const char *dir, int n)
{
	static const char self[] = "/proc/self/";
	char digits[12], *d = digits + sizeof(digits) - 1;
	size_t len;

	bn_copy(p, self, sizeof(self) - 1);
	p += sizeof(self) - 1;
	len = bn_strlen(dir);
	bn_copy(p, dir, len);
	p += len;
	*d = '\0';
	do
		*--d = (char)('0' + n % 10);
	while (n /= 10);
	bn_copy(p, d, bn_strlen(d) + 1);
}

/* is_epoll() - whether a descriptor is an epoll instance */
static int is_epoll(int fd)
{
	static const char want[] = "anon_inode:[eventpoll]";
	char path[48], link[MAX_LINK];
	long n;

	path_of(path, "fd/", fd);
	n = bn_sys(SYS_readlinkat, BN_AT_FDCWD, path, link, sizeof(link) - 1);
	if (n < 0)
		return 0;
	link[n] = '\0';
	return bn_streq(link, want);
}

/* field() - the number after a word of a line of fdinfo; false if it is not there */
static int field(const char **p, const char *word, unsigned base, uint64_t *value)
{
	const char *s = *p;
	size_t n = bn_strlen(word), i;

	for (; *s && *s != '\n'; s++) {
		for (i = 0; i < n && s[i] == word[i]; i++)
			;
		if (i == n)
			break;
	}
	if (!*s || *s == '\n')
		return 0;
	s += n;
	while (*s == ' ')
		s++;
	for (*value = 0;; s++) {
		unsigned digit = *s >= '0' && *s <= '9'	  ? (unsigned)(*s - '0')
				 : *s >= 'a' && *s <= 'f' ? (unsigned)(*s - 'a' + 10)
							  : 99;
		if (digit >= base)
			break;
		*value = *value * base + digit;
	}
	*p = s;
	return 1;
}

/* parse_line() - "tfd:        5 events:       19 data:                5 ..." (proc(5)) */
static void parse_line(const char *line, int epoll, int fd, struct registrations *r)
{
	uint64_t tfd, events, data;
	struct registration *to;

	if (!field(&line, "tfd:", 10, &tfd) || (int)tfd != fd || !field(&line, "events:", 16, &events) ||
	    !field(&line, "data:", 16, &data) || r->n == MAX_REGISTRATIONS)
		return;
	to = &r->list[r->n++];
	to->epoll = epoll;
	to->event.events = (uint32_t)events;
	to->event.data.u64 = data;
}

static void read_epoll(int epoll, int fd, struct registrations *r)
{
	char path[48], buf[MAX_INFO];
	size_t have = 0;
	long n;
	int info;

	path_of(path, "fdinfo/", epoll);
	info = (int)bn_open(path, O_RDONLY | O_CLOEXEC);
	if (info < 0)
		return;
	while ((n = bn_read(info, buf + have, sizeof(buf) - 1 - have)) > 0) {
		size_t at = 0, i;

		have += (size_t)n;
		buf[have] = '\0';
		for (i = 0; i < have; i++) {
			if (buf[i] != '\n')
				continue;
			parse_line(buf + at, epoll, fd, r);
			at = i + 1;
		}
		for (i = at; i < have; i++)
			buf[i - at] = buf[i];
		have -= at;
		if (have == sizeof(buf) - 1)
			have = 0; /* no line is that long */
	}
	bn_close(info);
}

struct directory_entry {
	uint64_t inode;
	int64_t offset;
	uint16_t size;
	uint8_t type;
	char name[];
};

/* find_registrations() - where fd is registered */
static void find_registrations(int fd, struct registrations *r)
{
	_Alignas(8) char buf[2048];
	int dir = (int)bn_open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	long n, at;

	r->n = 0;
	if (dir < 0)
		return;
	while ((n = bn_sys(SYS_getdents64, dir, buf, sizeof(buf))) > 0)
		for (at = 0; at < n;) {
			const struct directory_entry *e = (const void *)(buf + at);
			const char *p = e->name;
			int number = 0;

			for (; *p >= '0' && *p <= '9'; p++)
				number = number * 10 + *p - '0';
			if (!*p && p != e->name && is_epoll(number))
				read_epoll(number, fd, r);
			at += e->size;
		}
	bn_close(dir);
}

long bn_swap(int fd, int other)
{
	struct registrations r;
	long flags, ret;
	int i;

	find_registrations(fd, &r);
	flags = bn_sys(SYS_fcntl, fd, F_GETFL);
	if (flags >= 0)
		bn_sys(SYS_fcntl, other, F_SETFL, flags);
	flags = bn_sys(SYS_fcntl, fd, F_GETFD);
	/* A duplicate elsewhere, perhaps still the helper's, would keep the old registrations. */
	for (i = 0; i < r.n; i++)
		bn_sys(SYS_epoll_ctl, r.list[i].epoll, EPOLL_CTL_DEL, fd, NULL);
	ret = bn_sys(SYS_dup3, other, fd, flags & FD_CLOEXEC ? O_CLOEXEC : 0);
	for (i = 0; ret >= 0 && i < r.n; i++)
		bn_sys(SYS_epoll_ctl, r.list[i].epoll, EPOLL_CTL_ADD, fd, &r.list[i].event);
	return ret < 0 ? ret : 0;
}

int bn_host_twin(int fd)
{
	int domain = bn_domain(fd), type = bn_type(fd), twin;

	if (domain < 0)
		return domain;
	if (type < 0)
		return type;
	twin = (int)bn_sys(SYS_socket, domain, type | SOCK_CLOEXEC);
	if (twin >= 0)
		copy_options(fd, twin);
	return twin;
}
