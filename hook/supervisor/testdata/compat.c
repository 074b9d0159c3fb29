/* compat.c - makes sockets by the 32-bit and the x32 calling convention
 *
 * Built with -nostdlib -static -no-pie, so that every address fits 32 bits.
 * Writes one 8-byte word per call: the namespace cookie of the socket, or the
 * negative errno; then the cookies of two sockets that were made to listen on
 * 127.0.0.1, by listen and by socketcall.
 */
#include <stdint.h>

static long call64(long nr, long a, long b, long c, long d, long e)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	long ret;

	__asm__ volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
	return ret;
}

static int call32(int nr, int a, int b, int c)
{
	int ret;

	__asm__ volatile("int $0x80" : "=a"(ret) : "a"(nr), "b"(a), "c"(b), "d"(c) : "r8", "r9", "r10", "r11", "memory");
	return ret;
}

static void report(long fd)
{
	static uint64_t word;
	static uint32_t size;

	word = (uint64_t)fd;
	size = sizeof(word);
	if (fd >= 0)
		call64(55, fd, 1, 71, (long)&word, (long)&size); /* getsockopt SO_NETNS_COOKIE */
	call64(1, 1, (long)&word, sizeof(word), 0, 0);
}

static uint32_t args[3] = { 2, 1, 0 };
static unsigned char loopback[16] = { 2, 0, 0, 0, 127, 0, 0, 1 };
static uint32_t backlog[2];

/* bound() - a socket that is bound to 127.0.0.1, by the 32-bit convention */
static int bound(void)
{
	int fd = call32(359, 2, 1, 0);

	call32(361, fd, (int)(long)loopback, sizeof(loopback));
	return fd;
}

void _start(void)
{
	report(call32(359, 2, 1, 0));                   /* socket */
	report(call32(102, 1, (int)(long)args, 0));     /* socketcall(SYS_SOCKET) */
	report(call64(0x40000000 + 41, 2, 1, 0, 0, 0)); /* x32 socket */
	int fd = bound();

	call32(363, fd, 5, 0); /* listen */
	report(fd);
	fd = bound();
	backlog[0] = (uint32_t)fd;
	backlog[1] = 5;
	call32(102, 4, (int)(long)backlog, 0); /* socketcall(SYS_LISTEN) */
	report(fd);
	call64(231, 0, 0, 0, 0, 0);
}
