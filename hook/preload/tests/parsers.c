/*
 * Feeds what reads foreign bytes, DNS replies and program files, with broken ones. Built
 * with -fsanitize=address,undefined by hook/parsers_linux_test.go; argv[1] is a file to
 * write programs to, argv[2] a program that is whole.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../dns.h"
#include "../image.h"
#include "../preload.h"

#define ROUNDS 20000
#define FILES 3000
#define HEAD 1500

void bn_copy(void *to, const void *from, size_t n) { memmove(to, from, n); }
size_t bn_strlen(const char *s) { return strlen(s); }
int bn_streq(const char *a, const char *b) { return !strcmp(a, b); }
int bn_mode(void) { return BN_NAMESPACED; }
const char *bn_preload(void) { return ""; }

int bn_ask(struct bn_request *request, const void *payload, int fd, struct bn_answer *answer, void *room, size_t limit)
{
	(void)request, (void)payload, (void)fd, (void)answer, (void)room, (void)limit;
	return -1;
}

/* A reply with a compressed name, an alias, both kinds of address and a pointer. */
static const unsigned char whole[] = {
	0,    1,  0x81, 0x80, 0,    1,	  0,  4,  0,  0,    0, 0,   3,	  'w', 'e', 'b', 4,    's', 'h',  'o', 'p',
	0,    0,  1,	0,    1,    0xc0, 12, 0,  5,  0,    1, 0,   0,	  0,   5,   0,	 6,    3,   'a',  'p', 'i',
	0xc0, 16, 0xc0, 38,   0,    1,	  0,  1,  0,  0,    0, 5,   0,	  4,   192, 0,	 2,    1,   0xc0, 38,  0,
	28,   0,  1,	0,    0,    0,	  5,  0,  16, 0x20, 1, 0xd, 0xb8, 0,   0,   0,	 0,    0,   0,	  0,   0,
	0,    0,  0,	1,    0xc0, 12,	  0,  12, 0,  1,    0, 0,   0,	  5,   0,   2,	 0xc0, 12,
};

static void replies(void)
{
	static const int types[] = { BN_TYPE_A, BN_TYPE_AAAA, BN_TYPE_PTR };
	struct bn_names names = { 0 };
	int i, j;

	bn_dns_read(whole, sizeof(whole), BN_TYPE_A, &names);
	if (names.n != 1 || names.list[0].addr[3] != 1 || strcmp(names.name, "api.shop")) {
		printf("the whole reply: %d addresses, called %s\n", names.n, names.name);
		exit(1);
	}
	for (i = 0; i < ROUNDS; i++) {
		size_t n = i % 4 ? sizeof(whole) : (size_t)rand() % (sizeof(whole) + 1);
		unsigned char *m = malloc(n ? n : 1); /* so that one byte too far is seen */

		memcpy(m, whole, n);
		for (j = rand() % 8; n && j > 0; j--)
			m[(size_t)rand() % n] = (unsigned char)rand();
		memset(&names, 0, sizeof(names));
		bn_dns_rcode(m, n);
		bn_dns_read(m, n, types[i % 3], &names);
		free(m);
	}
}

static void queries(void)
{
	unsigned char query[BN_MAX_QUERY];
	char name[400];
	int i, j, n;

	for (i = 0; i < ROUNDS; i++) {
		n = rand() % (int)sizeof(name);
		for (j = 0; j < n; j++)
			name[j] = rand() % 9 ? 'a' : '.';
		name[n] = '\0';
		if (bn_dns_query(query, name, 1, 1) > sizeof(query))
			exit(1);
	}
	if (bn_dns_query(query, "web.shop.", 1, 1) != 26 || bn_dns_query(query, "a..b", 1, 1) != 0 ||
	    bn_dns_query(query, ".", 1, 1) != 17)
		exit(1);
}

static void put(const char *path, const char *buf, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0700);

	if (fd < 0 || write(fd, buf, n) != (ssize_t)n)
		exit(1);
	close(fd);
}

static void programs(const char *path, const char *program)
{
	char head[HEAD], buf[HEAD];
	int fd = open(program, O_RDONLY), i, j;
	ssize_t have = read(fd, head, sizeof(head));

	close(fd);
	if (have < 64)
		exit(1);
	for (i = 0; i < FILES; i++) {
		size_t n = i % 4 ? (size_t)have : (size_t)rand() % ((size_t)have + 1);

		memcpy(buf, head, n);
		for (j = rand() % 6; n && j > 0; j--)
			buf[(size_t)rand() % (n < 400 ? n : 400)] = (char)rand();
		if (i % 5 == 0 && n > 300) {
			const char *line = rand() % 2 ? "#!/usr/bin/env -S " : "#! ";

			memset(buf, 'x', n);
			memcpy(buf, line, strlen(line));
		}
		put(path, buf, n);
		bn_examine(path);
	}
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	srand(1);
	replies();
	queries();
	programs(argv[1], argv[2]);
	return 0;
}
