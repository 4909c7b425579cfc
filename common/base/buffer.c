#include "base/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buffer_init(struct buffer *b, size_t limit)
{
	*b = (struct buffer){.limit = limit};
}

void buffer_free(struct buffer *b)
{
	free(b->at);
	buffer_init(b, b->limit);
}

void buffer_wipe(struct buffer *b)
{
	if (b->at != NULL)
		explicit_bzero(b->at, b->size);
	buffer_free(b);
}

void buffer_clear(struct buffer *b)
{
	b->n = 0;
	b->failed = false;
}

bool buffer_ok(const struct buffer *b)
{
	return !b->failed;
}

struct span buffer_span(const struct buffer *b)
{
	return (struct span){b->at == NULL ? "" : b->at, b->n};
}

int buffer_reserve(struct buffer *b, size_t more)
{
	size_t need;
	if (__builtin_add_overflow(b->n, more, &need) || need > b->limit) {
		b->failed = true;
		return EOVERFLOW;
	}
	if (need <= b->size)
		return 0;
	size_t size = b->size < 128 ? 128 : b->size;
	while (size < need)
		size *= 2;
	if (size > b->limit)
		size = b->limit;
	char *at = realloc(b->at, size);
	if (at == NULL) {
		b->failed = true;
		return ENOMEM;
	}
	b->at = at;
	b->size = size;
	return 0;
}

void buffer_put(struct buffer *b, const void *bytes, size_t n)
{
	if (n == 0 || (n > b->size - b->n && buffer_reserve(b, n) != 0))
		return;
	memcpy(b->at + b->n, bytes, n);
	b->n += n;
}

void buffer_put_span(struct buffer *b, struct span s)
{
	buffer_put(b, s.at, s.n);
}

void buffer_puts(struct buffer *b, const char *text)
{
	buffer_put(b, text, strlen(text));
}

void buffer_putc(struct buffer *b, char c)
{
	if (b->n == b->size && buffer_reserve(b, 1) != 0)
		return;
	b->at[b->n++] = c;
}

void buffer_printf(struct buffer *b, const char *format, ...)
{
	va_list args, again;
	va_start(args, format);
	va_copy(again, args);
	/* most of what is written fits into what is there: one pass */
	if (b->at == NULL && b->limit > 0)
		(void)buffer_reserve(b, 1);
	size_t room = b->size - b->n;
	int n = vsnprintf(room == 0 ? NULL : b->at + b->n, room, format, args); /* NOLINT(clang-analyzer-valist.Uninitialized): va_start is above */
	va_end(args);
	if (n >= 0 && (size_t)n < room) {
		b->n += (size_t)n;
	} else if (n >= 0 && buffer_reserve(b, (size_t)n + 1) == 0) {
		(void)vsnprintf(b->at + b->n, (size_t)n + 1, format, again);
		b->n += (size_t)n;
	} else {
		b->failed = true;
	}
	va_end(again);
}

void buffer_put_decimal(struct buffer *b, uint64_t v, unsigned least)
{
	char digits[20];
	unsigned n = 0;
	for (; n < least || v > 0 || n == 0; v /= 10)
		digits[sizeof digits - ++n] = (char)('0' + v % 10);
	buffer_put(b, digits + sizeof digits - n, n);
}

void buffer_drop(struct buffer *b, size_t n)
{
	if (n >= b->n) {
		b->n = 0;
		return;
	}
	memmove(b->at, b->at + n, b->n - n);
	b->n -= n;
}

const char *buffer_cstr(struct buffer *b)
{
	if (buffer_reserve(b, 1) != 0)
		return "";
	b->at[b->n] = '\0';
	return b->at;
}

void buffer_put_escaped(struct buffer *b, struct span s, size_t limit)
{
	size_t n = s.n < limit ? s.n : limit;
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s.at[i];
		if (c < 0x20 || c == 0x7f)
			buffer_printf(b, "\\x%02x", c);
		else if (c == '\\' || c == '"')
			buffer_printf(b, "\\%c", c);
		else
			buffer_putc(b, (char)c);
	}
	if (n < s.n)
		buffer_puts(b, "...");
}

/* Length of a UTF-8 sequence beyond ASCII at the front of s, 0: malformed (overlong and surrogates too). */
static size_t utf8_length(struct span s)
{
	const unsigned char *p = (const unsigned char *)s.at;
	size_t n = p[0] >= 0xc2 && p[0] <= 0xdf ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : p[0] >= 0xf0 && p[0] <= 0xf4 ? 4 : 0;
	if (n == 0 || s.n < n)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	bool bad = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f);
	return bad ? 0 : n;
}

void buffer_put_json(struct buffer *b, struct span s)
{
	buffer_putc(b, '"');
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.at[i];
		size_t n = c < 0x80 ? 1 : utf8_length((struct span){s.at + i, s.n - i});
		if (c < 0x20 || c == 0x7f) {
			buffer_printf(b, "\\u%04x", c);
		} else if (c == '"' || c == '\\') {
			buffer_printf(b, "\\%c", c);
		} else if (n == 0) { /* a peer's bytes need not be UTF-8; JSON must be */
			buffer_puts(b, "\\ufffd");
		} else {
			buffer_put(b, s.at + i, n);
			i += n - 1;
		}
	}
	buffer_putc(b, '"');
}

void store_u32(void *at, uint32_t v)
{
	unsigned char *p = at;
	for (int i = 0; i < 4; i++)
		p[i] = (unsigned char)(v >> (8 * i));
}

void store_u64(void *at, uint64_t v)
{
	unsigned char *p = at;
	for (int i = 0; i < 8; i++)
		p[i] = (unsigned char)(v >> (8 * i));
}

uint32_t load_u32(const void *at)
{
	const unsigned char *p = at;
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

uint64_t load_u64(const void *at)
{
	const unsigned char *p = at;
	return (uint64_t)load_u32(p) | (uint64_t)load_u32(p + 4) << 32;
}

void buffer_put_u8(struct buffer *b, uint8_t v)
{
	buffer_put(b, &v, 1);
}

void buffer_put_u32(struct buffer *b, uint32_t v)
{
	char raw[4];
	store_u32(raw, v);
	buffer_put(b, raw, sizeof raw);
}

void buffer_put_u64(struct buffer *b, uint64_t v)
{
	char raw[8];
	store_u64(raw, v);
	buffer_put(b, raw, sizeof raw);
}

void buffer_put_lspan(struct buffer *b, struct span s)
{
	buffer_put_u32(b, (uint32_t)s.n);
	buffer_put_span(b, s);
}

static bool take(struct span *from, size_t n, const char **at)
{
	if (from->n < n)
		return false;
	*at = from->at;
	from->at += n;
	from->n -= n;
	return true;
}

bool take_u8(struct span *from, uint8_t *out)
{
	const char *at;
	if (!take(from, 1, &at))
		return false;
	*out = (uint8_t)*at;
	return true;
}

bool take_u32(struct span *from, uint32_t *out)
{
	const char *at;
	if (!take(from, 4, &at))
		return false;
	*out = load_u32(at);
	return true;
}

bool take_u64(struct span *from, uint64_t *out)
{
	const char *at;
	if (!take(from, 8, &at))
		return false;
	*out = load_u64(at);
	return true;
}

bool take_lspan(struct span *from, struct span *out)
{
	uint32_t n;
	const char *at;
	if (!take_u32(from, &n) || !take(from, n, &at))
		return false;
	*out = (struct span){at, n};
	return true;
}
