/* Asks the helper of a session's namespace for descriptors. */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "../abi.h"
#include "sys.h"

int bn_dial(const char *path, size_t len, int type)
{
	struct sockaddr_un sa;
	long ret;
	size_t i;
	int fd;

	if (len >= sizeof(sa.sun_path))
		return -ENAMETOOLONG;
	sa.sun_family = AF_UNIX;
	for (i = 0; i < len; i++)
		sa.sun_path[i] = path[i];
	sa.sun_path[len] = '\0';
	fd = (int)bn_sys(SYS_socket, AF_UNIX, type | SOCK_CLOEXEC);
	if (fd < 0)
		return fd;
	do
		ret = bn_sys(SYS_connect, fd, &sa, offsetof(struct sockaddr_un, sun_path) + len + 1);
	while (ret == -EINTR);
	if (ret < 0) {
		bn_close(fd);
		return (int)ret;
	}
	return fd;
}

/* bn_receive() - the helper's answer: a descriptor or a negative errno */
static int bn_receive(int conn)
{
	/* Room for one descriptor, aligned as a struct cmsghdr. */
	union {
		struct cmsghdr hdr;
		unsigned char room[CMSG_SPACE(sizeof(int))];
	} control;
	unsigned char error = 0;
	struct iovec iov = { &error, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
	};
	long n;

	do
		n = bn_sys(SYS_recvmsg, conn, &msg, MSG_CMSG_CLOEXEC);
	while (n == -EINTR);
	if (n <= 0)
		return -ENETDOWN;
	if (error)
		return -(int)error;
	if (msg.msg_controllen < CMSG_LEN(sizeof(int)) || control.hdr.cmsg_type != SCM_RIGHTS)
		return -EMFILE; /* unix(7): there was no room for it */
	return *(int *)CMSG_DATA(&control.hdr);
}

int bn_helper(const char *path, size_t len, int domain, int type, int protocol)
{
	struct bn_socket_request request = { (uint32_t)domain, (uint32_t)type, (uint32_t)protocol };
	int conn, fd;
	long n;

	conn = bn_dial(path, len, SOCK_SEQPACKET);
	if (conn == -EMFILE || conn == -ENFILE || conn == -ENOMEM)
		return conn;
	if (conn < 0)
		return -ENETDOWN;
	do
		n = bn_sys(SYS_sendto, conn, &request, sizeof(request), MSG_NOSIGNAL);
	while (n == -EINTR);
	fd = n == (long)sizeof(request) ? bn_receive(conn) : -ENETDOWN;
	if (fd < 0) {
		bn_close(conn);
		return fd;
	}
	/* It takes the connection's place: that was the lowest number that was free. */
	n = bn_sys(SYS_dup3, fd, conn, type & SOCK_CLOEXEC ? O_CLOEXEC : 0);
	bn_close(fd);
	if (n < 0)
		bn_close(conn);
	return (int)n;
}
