/*
 * execve() and its kin - a program that the library cannot be in is named, and put
 * into the session's namespace as a whole; without one it is refused
 * Return: as the C library's; EACCES for one that is refused
 *
 * The library's two variables are put back into an environment that has lost them:
 * what a program of the session starts is of the session.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <unistd.h>

#include "image.h"
#include "preload.h"

extern char **environ;
extern int *__errno_location(void);

#define MAX_PATH 4096
#define MAX_ARGUMENTS 32768

static size_t count(char *const *v)
{
	size_t n = 0;

	while (v && v[n])
		n++;
	return n;
}

static int begins(const char *s, const char *with)
{
	while (*with)
		if (*s++ != *with++)
			return 0;
	return 1;
}

/* fill() - an environment with the library's variables in it, which has room for two more */
static void fill(char **to, char *const *from, size_t n, char *setting, char *library)
{
	size_t i, out = 0;

	for (i = 0; i < n; i++)
		if (!begins(from[i], BN_ENV "=") && !begins(from[i], "LD_PRELOAD="))
			to[out++] = from[i];
	to[out++] = library;
	to[out++] = setting;
	to[out] = NULL;
}

/* complete() - whether an environment has both variables */
static int complete(char *const *envp)
{
	int found = 0;

	for (; envp && *envp; envp++)
		found |= begins(*envp, BN_ENV "=") ? 1 : begins(*envp, "LD_PRELOAD=") ? 2 : 0;
	return found == 3;
}

/* join() - "name=value" */
static void join(char *to, size_t room, const char *name, const char *value)
{
	size_t n = bn_strlen(name), v = bn_strlen(value);

	if (n + v + 1 > room)
		v = room - n - 1;
	bn_copy(to, name, n);
	bn_copy(to + n, value, v);
	to[n + v] = '\0';
}

/* The two ways to start a program, behind one judgement. */
struct start {
	long (*go)(const char *path, char *const *argv, char *const *envp, void *how);
	void *how;
};

/* with_environment() - start it with the library's variables */
static long with_environment(const struct start *s, const char *path, char *const *argv, char *const *envp)
{
	size_t n = count(envp);

	if (complete(envp) || n > MAX_ARGUMENTS)
		return s->go(path, argv, envp, s->how);
	{
		char setting[256], library[MAX_PATH];
		char *env[n + 3];

		join(setting, sizeof(setting), BN_ENV "=", bn_setting());
		join(library, sizeof(library), "LD_PRELOAD=", bn_preload());
		fill(env, envp, n, setting, library);
		return s->go(path, argv, env, s->how);
	}
}

/* enter() - start it inside the namespace, by borrownet-enter */
static long enter(const struct start *s, const char *path, char *const *argv, char *const *envp)
{
	size_t n = count(argv), i;
	char program[MAX_PATH];

	if (n > MAX_ARGUMENTS || !bn_enter_path(program, sizeof(program)))
		return -E2BIG;
	{
		char *args[n + 5], **to = args;

		*to++ = program;
		*to++ = (char *)(uintptr_t)bn_helper_path();
		*to++ = (char *)(uintptr_t)path;
		if (n == 0)
			*to++ = (char *)(uintptr_t)path;
		for (i = 0; i < n; i++)
			*to++ = argv[i];
		*to = NULL;
		return with_environment(s, program, args, envp);
	}
}

/* start() - judge a program and start it: what go returned, or a negative errno */
static long start(const struct start *s, const char *path, char *const *argv, char *const *envp)
{
	enum bn_image image;

	if (bn_mode() == BN_OFF)
		return s->go(path, argv, envp, s->how);
	image = bn_examine(path);
	if (image == BN_IMAGE_FITS)
		return with_environment(s, path, argv, envp);
	bn_say_image(path, image);
	if (bn_mode() == BN_RELAYED)
		return -EACCES;
	if (image == BN_IMAGE_PRIVILEGED)
		return with_environment(s, path, argv, envp); /* it would not be, in there */
	return enter(s, path, argv, envp);
}

static long go_execve(const char *path, char *const *argv, char *const *envp, void *how)
{
	(void)how;
	return bn_sys(SYS_execve, path, argv, envp);
}

static const struct start by_execve = { go_execve, NULL };

BN_EXPORT int execve(const char *path, char *const argv[], char *const envp[])
{
	return (int)bn_return(start(&by_execve, path, argv, envp));
}

BN_EXPORT int execv(const char *path, char *const argv[]) { return execve(path, argv, environ); }

/* shell() - execute a file without a first line that names its interpreter, as execvp(3) has it */
static long shell(const char *path, char *const *argv, char *const *envp)
{
	size_t n = count(argv), i;

	if (n > MAX_ARGUMENTS)
		return -E2BIG;
	{
		char *args[n + 3], **to = args;

		*to++ = (char *)"/bin/sh";
		*to++ = (char *)(uintptr_t)path;
		for (i = 1; i < n; i++)
			*to++ = argv[i];
		*to = NULL;
		return start(&by_execve, args[0], args, envp);
	}
}

static const char *path_variable(void)
{
	char **e;

	for (e = environ; e && *e; e++)
		if (begins(*e, "PATH="))
			return *e + 5;
	return "/usr/local/bin:/bin:/usr/bin";
}

BN_EXPORT int execvpe(const char *file, char *const argv[], char *const envp[])
{
	char path[MAX_PATH];
	const char *p = path_variable(), *s;
	size_t name = bn_strlen(file);
	long ret = -ENOENT, denied = 0;

	for (s = file; *s && *s != '/'; s++)
		;
	if (*s) {
		ret = start(&by_execve, file, argv, envp);
		return (int)bn_return(ret == -ENOEXEC ? shell(file, argv, envp) : ret);
	}
	if (!name)
		return (int)bn_return(-ENOENT);
	for (;;) {
		size_t n = 0;

		while (p[n] && p[n] != ':')
			n++;
		if (n + name + 2 <= sizeof(path)) {
			bn_copy(path, p, n);
			path[n] = '/';
			bn_copy(path + n + !!n, file, name + 1);
			ret = bn_sys(SYS_faccessat, BN_AT_FDCWD, path, 1 /* X_OK */);
			if (ret == 0)
				ret = start(&by_execve, path, argv, envp);
			if (ret == -ENOEXEC)
				ret = shell(path, argv, envp);
			if (ret == -EACCES)
				denied = ret;
			else if (ret != -ENOENT && ret != -ENOTDIR)
				break;
		}
		if (!p[n])
			break;
		p += n + 1;
	}
	return (int)bn_return(denied ? denied : ret);
}

BN_EXPORT int execvp(const char *file, char *const argv[]) { return execvpe(file, argv, environ); }

BN_EXPORT int fexecve(int fd, char *const argv[], char *const envp[])
{
	char path[32] = "/proc/self/fd/", digits[12], *d = digits + sizeof(digits) - 1;
	int n = fd;

	if (fd < 0)
		return (int)bn_return(-EBADF);
	*d = '\0';
	do
		*--d = (char)('0' + n % 10);
	while (n /= 10);
	bn_copy(path + 14, d, bn_strlen(d) + 1);
	return execve(path, argv, envp);
}

/* BN_ARGUMENTS() - the arguments of execl() and its kin as an array */
#define BN_ARGUMENTS(argv, first, ap)            \
	size_t bn_n_ = 1, bn_i_;                 \
	va_start(ap, first);                     \
	while (va_arg(ap, const char *))         \
		bn_n_++;                         \
	va_end(ap);                              \
	char *argv[bn_n_ + 1];                   \
	argv[0] = (char *)(uintptr_t)first;      \
	va_start(ap, first);                     \
	for (bn_i_ = 1; bn_i_ <= bn_n_; bn_i_++) \
	argv[bn_i_] = va_arg(ap, char *)

BN_EXPORT int execl(const char *path, const char *first, ...)
{
	va_list ap;
	BN_ARGUMENTS(argv, first, ap);
	va_end(ap);
	return execv(path, argv);
}

BN_EXPORT int execlp(const char *file, const char *first, ...)
{
	va_list ap;
	BN_ARGUMENTS(argv, first, ap);
	va_end(ap);
	return execvp(file, argv);
}

BN_EXPORT int execle(const char *path, const char *first, ...)
{
	va_list ap;
	BN_ARGUMENTS(argv, first, ap);
	char *const *envp = va_arg(ap, char *const *);
	va_end(ap);
	return execve(path, argv, envp);
}

/* What posix_spawn() has besides path, argv and envp. */
struct spawn {
	int (*real)(int *pid, const char *path, const void *actions, const void *attr, char *const *argv,
		    char *const *envp);
	int *pid;
	const void *actions, *attr;
};

static long go_spawn(const char *path, char *const *argv, char *const *envp, void *how)
{
	const struct spawn *s = how;

	return -s->real(s->pid, path, s->actions, s->attr, argv, envp);
}

typedef int spawn_function(int *, const char *, const void *, const void *, char *const *, char *const *);
spawn_function posix_spawn, posix_spawnp;

BN_EXPORT int posix_spawn(int *pid, const char *path, const void *actions, const void *attr, char *const *argv,
			  char *const *envp)
{
	struct spawn how = { BN_REAL(posix_spawn), pid, actions, attr };
	const struct start by_spawn = { go_spawn, &how };

	return how.real ? (int)-start(&by_spawn, path, argv, envp) : ENOSYS;
}

BN_EXPORT int posix_spawnp(int *pid, const char *file, const void *actions, const void *attr, char *const *argv,
			   char *const *envp)
{
	struct spawn how = { BN_REAL(posix_spawnp), pid, actions, attr };
	const struct start by_spawn = { go_spawn, &how };
	char path[MAX_PATH];

	if (!how.real)
		return ENOSYS;
	/* What it will find is judged; it finds it itself, with the name that was given. */
	if (bn_mode() == BN_OFF || !bn_find(path, sizeof(path), file) || bn_examine(path) == BN_IMAGE_FITS)
		return (int)-with_environment(&by_spawn, file, argv, envp);
	return posix_spawn(pid, path, actions, attr, argv, envp);
}
