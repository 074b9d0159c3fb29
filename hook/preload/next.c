/*
 * Finds the functions that this library stands in front of. dlsym(RTLD_NEXT) would
 * do, but before glibc 2.34 it is in a library of its own that a program need not
 * have loaded.
 */
#include <elf.h>
#include <link.h>

#include "preload.h"

#define HIDDEN_VERSION 0x8000 /* in DT_VERSYM: an old version, not the default */

struct object {
	uintptr_t base;
	const Elf64_Sym *symbols;
	const char *strings;
	const uint32_t *gnu_hash, *hash;
	const uint16_t *versions;
};

struct search {
	const char *name;
	int past_us;
	void *found;
};

/* address() - glibc relocates the addresses in a dynamic section, musl does not */
static const void *address(uintptr_t base, uintptr_t p) { return (const void *)(p < base ? p + base : p); }

static int read_object(const struct dl_phdr_info *info, struct object *o)
{
	const Elf64_Dyn *d = NULL;
	int i;

	for (i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
			d = (const Elf64_Dyn *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
	if (!d)
		return 0;
	*o = (struct object){ .base = info->dlpi_addr };
	for (; d->d_tag != DT_NULL; d++) {
		const void *p = address(o->base, d->d_un.d_ptr);

		switch (d->d_tag) {
		case DT_SYMTAB: o->symbols = p; break;
		case DT_STRTAB: o->strings = p; break;
		case DT_GNU_HASH: o->gnu_hash = p; break;
		case DT_HASH: o->hash = p; break;
		case DT_VERSYM: o->versions = p; break;
		}
	}
	return o->symbols && o->strings && (o->gnu_hash || o->hash);
}

/* defines() - whether a symbol is the default definition of a function */
static int defines(const struct object *o, uint32_t i, const char *name)
{
	const Elf64_Sym *s = &o->symbols[i];

	return s->st_shndx != SHN_UNDEF && ELF64_ST_TYPE(s->st_info) == STT_FUNC &&
	       bn_streq(o->strings + s->st_name, name) && !(o->versions && o->versions[i] & HIDDEN_VERSION);
}

static uint32_t by_gnu_hash(const struct object *o, const char *name)
{
	const uint32_t *t = o->gnu_hash, *buckets, *chain;
	uint32_t h = 5381, i;
	const char *p;

	for (p = name; *p; p++)
		h = h * 33 + (unsigned char)*p;
	buckets = t + 4 + t[2] * (sizeof(uintptr_t) / sizeof(uint32_t));
	chain = buckets + t[0];
	i = t[0] ? buckets[h % t[0]] : 0;
	if (i < t[1])
		return 0;
	for (;; i++) {
		if ((chain[i - t[1]] | 1) == (h | 1) && defines(o, i, name))
			return i;
		if (chain[i - t[1]] & 1)
			return 0;
	}
}

static uint32_t by_hash(const struct object *o, const char *name)
{
	const uint32_t *t = o->hash;
	uint32_t h = 0, g, i;
	const char *p;

	for (p = name; *p; p++) {
		h = (h << 4) + (unsigned char)*p;
		g = h & 0xf0000000;
		h = (h ^ g >> 24) & ~g;
	}
	for (i = t[0] ? t[2 + h % t[0]] : 0; i; i = t[2 + t[0] + i])
		if (defines(o, i, name))
			return i;
	return 0;
}

static int contains(const struct dl_phdr_info *info, uintptr_t p)
{
	int i;

	for (i = 0; i < info->dlpi_phnum; i++) {
		const Elf64_Phdr *h = &info->dlpi_phdr[i];

		if (h->p_type == PT_LOAD && p - (info->dlpi_addr + h->p_vaddr) < h->p_memsz)
			return 1;
	}
	return 0;
}

static int visit(struct dl_phdr_info *info, size_t size, void *data)
{
	struct search *s = data;
	struct object o;
	uint32_t i;

	(void)size;
	if (!s->past_us) {
		s->past_us = contains(info, (uintptr_t)&visit);
		return 0;
	}
	if (!read_object(info, &o))
		return 0;
	i = o.gnu_hash ? by_gnu_hash(&o, s->name) : by_hash(&o, s->name);
	if (i)
		s->found = (void *)(o.base + o.symbols[i].st_value);
	return s->found != NULL;
}

void *bn_next(const char *name)
{
	struct search s = { .name = name };

	dl_iterate_phdr(visit, &s);
	return s.found;
}
