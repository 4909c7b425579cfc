#include "base/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct arena_block {
	struct arena_block *next;
	size_t used, size;
	max_align_t bytes[];
};

enum { BLOCK_BYTES = 2048 };

void *arena_alloc(struct arena *a, size_t n)
{
	const size_t align = _Alignof(max_align_t);
	if (n > SIZE_MAX / 2) {
		a->failed = true;
		return NULL;
	}
	n = (n + align - 1) / align * align;
	struct arena_block *b = a->blocks;
	if (b == NULL || b->size - b->used < n) {
		size_t size = n > BLOCK_BYTES ? n : BLOCK_BYTES;
		b = malloc(sizeof *b + size);
		if (b == NULL) {
			a->failed = true;
			return NULL;
		}
		*b = (struct arena_block){.next = a->blocks, .size = size};
		a->blocks = b;
	}
	void *at = (char *)b->bytes + b->used;
	b->used += n;
	memset(at, 0, n);
	return at;
}

char *arena_dup(struct arena *a, struct span s)
{
	char *copy = arena_alloc(a, s.n + 1);
	if (copy != NULL && s.n > 0)
		memcpy(copy, s.at, s.n);
	return copy;
}

struct span arena_span(struct arena *a, struct span s)
{
	const char *copy = arena_dup(a, s);
	return copy == NULL ? (struct span){"", 0} : (struct span){copy, s.n};
}

char *arena_printf(struct arena *a, const char *format, ...)
{
	va_list args, again;
	va_start(args, format);
	va_copy(again, args);
	char text[256]; /* most fits: one pass */
	int n = vsnprintf(text, sizeof text, format, args); /* NOLINT(clang-analyzer-valist.Uninitialized): va_start is above */
	va_end(args);
	char *at = n < 0 ? NULL : arena_alloc(a, (size_t)n + 1);
	if (at != NULL && (size_t)n < sizeof text)
		memcpy(at, text, (size_t)n + 1);
	else if (at != NULL)
		(void)vsnprintf(at, (size_t)n + 1, format, again);
	va_end(again);
	return at;
}

void arena_free(struct arena *a)
{
	while (a->blocks != NULL) {
		struct arena_block *next = a->blocks->next;
		free(a->blocks);
		a->blocks = next;
	}
	a->failed = false;
}
