/*
 * System calls without a C library. Each returns what the kernel returned: a
 * negative errno is an error. No function here touches errno.
 */
#ifndef BN_SYS_H
#define BN_SYS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

#if defined(__x86_64__)

static inline long bn_syscall6(long nr, long a, long b, long c, long d, long e, long f)
{
	long ret;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

#elif defined(__aarch64__)

static inline long bn_syscall6(long nr, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = nr;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;

	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
}

#else
#error "the preload library knows amd64 and arm64"
#endif

/* bn_sys() - a system call of up to six arguments, missing ones are zero */
#define bn_sys(...) BN_SYS_PICK(__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define BN_SYS_PICK(nr, a, b, c, d, e, f, ...) \
	bn_syscall6((nr), (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

#define BN_AT_FDCWD (-100)

static inline long bn_open(const char *path, int flags) { return bn_sys(SYS_openat, BN_AT_FDCWD, path, flags); }
static inline long bn_close(int fd) { return bn_sys(SYS_close, fd); }
static inline long bn_read(int fd, void *buf, size_t n) { return bn_sys(SYS_read, fd, buf, n); }
static inline long bn_write(int fd, const void *buf, size_t n) { return bn_sys(SYS_write, fd, buf, n); }

#endif
