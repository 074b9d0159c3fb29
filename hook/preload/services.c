/* Name services of the laptop, which would resolve names outside of the session. */
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "preload.h"

static int begins(const char *s, const char *with)
{
	while (*with)
		if (*s++ != *with++)
			return 0;
	return 1;
}

/* last() - what comes after the last slash */
static const char *last(const char *path)
{
	const char *base = path;

	for (; *path; path++)
		if (*path == '/')
			base = path + 1;
	return base;
}

/* is_resolvectl() - whether this program is systemd-resolved's own client */
static int is_resolvectl(void)
{
	char exe[256];
	long n = bn_sys(SYS_readlinkat, BN_AT_FDCWD, "/proc/self/exe", exe, sizeof(exe) - 1);

	if (n <= 0)
		return 0;
	exe[n] = '\0';
	return bn_streq(last(exe), "resolvectl");
}

int bn_resolves_names(const struct sockaddr *sa, socklen_t len)
{
	char path[sizeof(((struct sockaddr_un *)0)->sun_path) + 1] = { 0 };
	size_t offset = offsetof(struct sockaddr_un, sun_path), n;
	const char *p = path;

	if (!sa || len <= offset || sa->sa_family != AF_UNIX)
		return 0;
	n = len - offset;
	bn_copy(path, (const char *)sa + offset, n < sizeof(path) - 1 ? n : sizeof(path) - 1);
	if (begins(p, "/var/"))
		p += 4;
	return bn_streq(p, "/run/nscd/socket") || bn_streq(p, "/run/avahi-daemon/socket") ||
	       begins(p, "/run/systemd/resolve/") || (bn_streq(last(p), "system_bus_socket") && is_resolvectl());
}
