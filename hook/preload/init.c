/* Reads the environment, when the program starts or at the first call before that. */
#include <elf.h>
#include <errno.h>

#include "helper.h"
#include "image.h"
#include "preload.h"

extern char **environ;
extern unsigned long getauxval(unsigned long type);

#define MAX_PATH 108 /* of sockaddr_un */
#define MAX_SETTING (2 * MAX_PATH + 8)
#define MAX_LIBRARY 4096

/* Written once, by threads that all write the same; valid when state is not UNKNOWN. */
static struct {
	const char *broker, *helper; /* in setting */
	size_t broker_len, helper_len;
	char setting[MAX_SETTING];
	char library[MAX_LIBRARY];
} session;

enum { UNKNOWN = -1 };
static int state = UNKNOWN;

static const char *lookup(const char *name)
{
	size_t n = bn_strlen(name), i;
	char **e;

	for (e = environ; e && *e; e++) {
		for (i = 0; i < n && (*e)[i] == name[i]; i++)
			;
		if (i == n && (*e)[n] == '=')
			return *e + n + 1;
	}
	return NULL;
}

/* keep() - copy a string if it fits */
static int keep(char *to, size_t room, const char *from)
{
	size_t n = bn_strlen(from);

	if (n >= room)
		return 0;
	bn_copy(to, from, n + 1);
	return 1;
}

/* parse() - the mode that BN_ENV says; BN_OFF if it is not as abi.h has it */
static int parse(const char *value)
{
	const char *p = value;
	int mode;

	if (!keep(session.setting, sizeof(session.setting), value))
		return BN_OFF;
	p = session.setting;
	if (p[0] != '0' + BN_VERSION || p[1] != ':' || (p[2] != BN_NAMESPACED && p[2] != BN_RELAYED) || p[3] != ':')
		return BN_OFF;
	mode = p[2];
	session.broker = p += 4;
	while (*p && *p != ':')
		p++;
	if (!*p)
		return BN_OFF;
	session.broker_len = (size_t)(p - session.broker);
	session.helper = p + 1;
	session.helper_len = bn_strlen(session.helper);
	if (session.broker_len >= MAX_PATH || session.helper_len >= MAX_PATH)
		return BN_OFF;
	return mode;
}

/* read_environment() - find out what the program is part of */
static int read_environment(void)
{
	const char *value = lookup(BN_ENV), *library = lookup("LD_PRELOAD");
	int mode = BN_OFF;

	/* A set-user-id program must not be led by who started it. */
	if (value && !getauxval(AT_SECURE))
		mode = parse(value);
	if (library)
		keep(session.library, sizeof(session.library), library);
	__atomic_store_n(&state, mode, __ATOMIC_RELEASE);
	return mode;
}

__attribute__((constructor)) static void init(void) { read_environment(); }

int bn_mode(void)
{
	int mode = __atomic_load_n(&state, __ATOMIC_ACQUIRE);

	return mode == UNKNOWN ? read_environment() : mode;
}

const char *bn_helper_path(void) { return session.helper; }
const char *bn_setting(void) { return session.setting; }
const char *bn_preload(void) { return session.library; }

int bn_make(int domain, int type, int protocol)
{
	return bn_helper(session.helper, session.helper_len, domain, type, protocol);
}

/* transfer() - send or receive all of buf, false if the other end has gone */
static int transfer(long nr, int conn, void *buf, size_t n)
{
	char *p = buf;

	while (n > 0) {
		long done = bn_sys(nr, conn, p, n, nr == SYS_sendto ? MSG_NOSIGNAL : 0);

		if (done == -EINTR)
			continue;
		if (done <= 0)
			return 0;
		p += done;
		n -= (size_t)done;
	}
	return 1;
}

/* send_request() - the first message, with a descriptor if there is one */
static int send_request(int conn, struct bn_request *request, int fd)
{
	union {
		struct cmsghdr hdr;
		unsigned char room[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = { request, sizeof(*request) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	long n;

	if (fd >= 0) {
		control.hdr.cmsg_len = CMSG_LEN(sizeof(int));
		control.hdr.cmsg_level = SOL_SOCKET;
		control.hdr.cmsg_type = SCM_RIGHTS;
		*(int *)CMSG_DATA(&control.hdr) = fd;
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
	}
	do
		n = bn_sys(SYS_sendmsg, conn, &msg, MSG_NOSIGNAL);
	while (n == -EINTR);
	return n == (long)sizeof(*request); /* the first bytes of a stream go in one piece */
}

int bn_ask(struct bn_request *request, const void *payload, int fd, struct bn_answer *answer, void *room, size_t limit)
{
	int conn = bn_dial(session.broker, session.broker_len, SOCK_STREAM), ok;

	if (conn < 0)
		return conn == -EMFILE || conn == -ENFILE ? conn : -ENETDOWN;
	request->version = BN_VERSION;
	ok = send_request(conn, request, fd) && transfer(SYS_sendto, conn, (void *)(uintptr_t)payload, request->size) &&
	     transfer(SYS_recvfrom, conn, answer, sizeof(*answer)) && answer->size <= limit &&
	     transfer(SYS_recvfrom, conn, room, answer->size);
	bn_close(conn);
	return ok ? 0 : -ENETDOWN;
}
