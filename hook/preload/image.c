/* What kind of program a file is: ELF(5), and the first line of scripts. */
#include "image.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "preload.h"

#define MAX_SCRIPTS 4 /* interpreters that are scripts themselves, execve(2) */
#define MAX_HEADERS 64
#define NOTES 1024 /* of a note segment */
#define HEAD 256 /* of a script's first line; Linux reads as much */

#if defined(__x86_64__)
#define MACHINE EM_X86_64
#else
#define MACHINE EM_AARCH64
#endif

static const char *base_name(const char *path)
{
	const char *p, *base = path;

	for (p = path; *p; p++)
		if (*p == '/')
			base = p + 1;
	return base;
}

/* is_go() - whether a note segment has one that the Go linker writes */
static int is_go(int fd, const Elf64_Phdr *h)
{
	_Alignas(4) char notes[NOTES];
	long n = bn_sys(SYS_pread64, fd, notes, sizeof(notes), h->p_offset);
	size_t at = 0, end = n < 0 ? 0 : (size_t)n < h->p_filesz ? (size_t)n : h->p_filesz;

	while (at + sizeof(Elf64_Nhdr) + 4 <= end) {
		const Elf64_Nhdr *note = (const void *)(notes + at);
		const char *name = notes + at + sizeof(*note);

		if (note->n_namesz == 4 && name[0] == 'G' && name[1] == 'o' && name[2] == '\0')
			return 1;
		if (note->n_namesz > NOTES || note->n_descsz > NOTES)
			return 0;
		at += sizeof(*note) + ((note->n_namesz + 3u) & ~3u) + ((note->n_descsz + 3u) & ~3u);
	}
	return 0;
}

static enum bn_image examine_elf(int fd, const Elf64_Ehdr *e)
{
	Elf64_Phdr h[MAX_HEADERS];
	size_t size = e->e_phnum * sizeof(h[0]);
	int i, loader = 0, go = 0;

	if (e->e_ident[EI_CLASS] != ELFCLASS64 || e->e_machine != MACHINE)
		return BN_IMAGE_OTHER;
	if (e->e_phnum > MAX_HEADERS || e->e_phentsize != sizeof(h[0]) ||
	    bn_sys(SYS_pread64, fd, h, size, e->e_phoff) != (long)size)
		return BN_IMAGE_FITS; /* the kernel judges it better */
	for (i = 0; i < e->e_phnum; i++) {
		loader |= h[i].p_type == PT_INTERP;
		go |= h[i].p_type == PT_NOTE && is_go(fd, &h[i]);
	}
	return go ? BN_IMAGE_GO : loader ? BN_IMAGE_FITS : BN_IMAGE_STATIC;
}

static int is_privileged(int fd)
{
	struct stat st;

	return bn_sys(SYS_fstat, fd, &st) == 0 &&
	       (((st.st_mode & S_ISUID) && st.st_uid != (uid_t)bn_sys(SYS_geteuid)) ||
		((st.st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && st.st_gid != (gid_t)bn_sys(SYS_getegid)));
}

/* word() - cut the next word off a line */
static char *word(char **line)
{
	char *p = *line, *start;

	while (*p == ' ' || *p == '\t')
		p++;
	start = p;
	while (*p && *p != ' ' && *p != '\t' && *p != '\n')
		p++;
	*line = *p ? p + 1 : p;
	*p = '\0';
	return start;
}

/* interpreter() - what runs a script; what env(1) looks up counts, not env itself */
static int interpreter(char *line, char *path, size_t room)
{
	char *name = word(&line), *p, *base = name;
	size_t n = bn_strlen(name);

	for (p = name; *p; p++)
		if (*p == '/')
			base = p + 1;
	if (bn_streq(base, "env")) {
		char *command = word(&line);

		if (bn_streq(command, "-S"))
			command = word(&line);
		if (*command && *command != '-' && bn_find(path, room, command))
			return 1;
	}
	if (!n || n >= room)
		return 0;
	bn_copy(path, name, n + 1);
	return 1;
}

/* is_ours() - borrownet's own commands know the session without the library */
static int is_ours(const char *path)
{
	const char *name = base_name(path);

	return bn_streq(name, "borrownet") || bn_streq(name, "kubectl-borrownet") || bn_streq(name, "borrownet-enter");
}

enum bn_image bn_examine(const char *path)
{
	char next[HEAD];
	int depth;

	if (is_ours(path))
		return BN_IMAGE_FITS;

	for (depth = 0; depth < MAX_SCRIPTS; depth++) {
		union {
			Elf64_Ehdr elf;
			char text[HEAD];
		} head;
		enum bn_image image = BN_IMAGE_FITS;
		int fd = (int)bn_open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
		long n;

		if (fd < 0)
			return BN_IMAGE_FITS; /* executing it says why, if it matters */
		n = bn_read(fd, &head, sizeof(head) - 1);
		if (n >= (long)sizeof(head.elf) && head.text[0] == 0x7f && head.text[1] == 'E' && head.text[2] == 'L' &&
		    head.text[3] == 'F')
			image = is_privileged(fd) ? BN_IMAGE_PRIVILEGED : examine_elf(fd, &head.elf);
		bn_close(fd);
		if (n < 3 || head.text[0] != '#' || head.text[1] != '!')
			return image;
		head.text[n] = '\0';
		if (!interpreter(head.text + 2, next, sizeof(next)))
			return BN_IMAGE_FITS;
		path = next;
	}
	return BN_IMAGE_FITS;
}

int bn_find(char *path, size_t room, const char *file)
{
	extern char **environ;
	const char *p = "/usr/local/bin:/bin:/usr/bin", *s;
	size_t name = bn_strlen(file), n;
	char **e;

	for (s = file; *s && *s != '/'; s++)
		;
	if (*s || !name) {
		if (name >= room)
			return 0;
		bn_copy(path, file, name + 1);
		return 1;
	}
	for (e = environ; e && *e; e++)
		if ((*e)[0] == 'P' && (*e)[1] == 'A' && (*e)[2] == 'T' && (*e)[3] == 'H' && (*e)[4] == '=')
			p = *e + 5;
	for (;; p += n + 1) {
		for (n = 0; p[n] && p[n] != ':'; n++)
			;
		if (n + name + 2 <= room) {
			bn_copy(path, n ? p : ".", n ? n : 1);
			path[n ? n : 1] = '/';
			bn_copy(path + (n ? n : 1) + 1, file, name + 1);
			if (bn_sys(SYS_faccessat, BN_AT_FDCWD, path, 1 /* X_OK */) == 0)
				return 1;
		}
		if (!p[n])
			return 0;
	}
}

static void append(char *to, size_t room, size_t *at, const char *s)
{
	while (*s && *at < room)
		to[(*at)++] = *s++;
}

void bn_say_image(const char *path, enum bn_image image)
{
	static const char *const what[] = {
		[BN_IMAGE_STATIC] = " is statically linked",
		[BN_IMAGE_GO] = " is a Go program, which makes its system calls itself",
		[BN_IMAGE_OTHER] = " is not for this kind of machine",
		[BN_IMAGE_PRIVILEGED] = " is set-user-id",
	};
	char line[512];
	size_t n = 0;

	append(line, sizeof(line), &n, "borrownet: ");
	append(line, sizeof(line) / 2, &n, base_name(path));
	append(line, sizeof(line), &n, what[image]);
	if (bn_mode() == BN_RELAYED)
		append(line, sizeof(line), &n, ": not started, hook preload-relay cannot see it");
	else if (image == BN_IMAGE_PRIVILEGED)
		append(line, sizeof(line), &n, ": it is on this machine's own network");
	else
		append(line, sizeof(line), &n, ": it runs inside the session's namespace (hook netns)");
	append(line, sizeof(line), &n, "\n");
	bn_write(2, line, n);
}

int bn_enter_path(char *path, size_t room)
{
	static const char name[] = "borrownet-enter";
	const char *library = bn_preload();
	size_t n = 0, at = 0;

	/* The first entry of LD_PRELOAD is ours. */
	for (; library[n] && library[n] != ':' && library[n] != ' '; n++)
		if (library[n] == '/')
			at = n + 1;
	if (at + sizeof(name) > room)
		return 0;
	bn_copy(path, library, at);
	bn_copy(path + at, name, sizeof(name));
	return 1;
}
