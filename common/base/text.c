#include "base/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int parse_u64(struct span s, uint64_t max, uint64_t *out)
{
	uint64_t v = 0;
	if (s.n == 0)
		return EINVAL;
	for (size_t i = 0; i < s.n; i++) {
		if (s.at[i] < '0' || s.at[i] > '9')
			return EINVAL;
		uint64_t digit = (uint64_t)(s.at[i] - '0');
		if (__builtin_mul_overflow(v, UINT64_C(10), &v) || __builtin_add_overflow(v, digit, &v))
			return ERANGE;
	}
	if (v > max)
		return ERANGE;
	*out = v;
	return 0;
}

/* Sum of NUMBER UNIT pairs; unit_value says what a unit is worth, 0: no such unit. */
static int parse_units(struct span s, int64_t (*unit_value)(char), int64_t *out)
{
	int64_t sum = 0;
	size_t i = 0;
	if (s.n == 0)
		return EINVAL;
	while (i < s.n) {
		size_t start = i;
		while (i < s.n && s.at[i] >= '0' && s.at[i] <= '9')
			i++;
		uint64_t n;
		int error = parse_u64((struct span){s.at + start, i - start}, INT64_MAX, &n);
		if (error != 0)
			return error;
		int64_t unit = i < s.n ? unit_value(s.at[i++]) : 0, product;
		if (unit == 0)
			return EINVAL;
		if (__builtin_mul_overflow((int64_t)n, unit, &product) || __builtin_add_overflow(sum, product, &sum))
			return ERANGE;
	}
	*out = sum;
	return 0;
}

static int64_t time_unit(char c)
{
	switch (c) {
	case 's': return 1;
	case 'm': return 60;
	case 'h': return 3600;
	case 'd': return 86400;
	case 'w': return 604800;
	default: return 0;
	}
}

static int64_t size_unit(char c)
{
	switch (c) {
	case 'B': return 1;
	case 'K': return 1024;
	case 'M': return 1048576;
	case 'G': return 1073741824;
	default: return 0;
	}
}

int parse_duration(struct span s, int64_t *seconds)
{
	return parse_units(s, time_unit, seconds);
}

int parse_bytes(struct span s, int64_t *bytes)
{
	return parse_units(s, size_unit, bytes);
}

void format_duration(struct buffer *b, int64_t seconds)
{
	static const struct { char unit; int64_t seconds; } units[] = {{'d', 86400}, {'h', 3600}, {'m', 60}, {'s', 1}};
	if (seconds == 0)
		buffer_puts(b, "0s");
	for (size_t i = 0; i < COUNT_OF(units); i++) {
		if (seconds / units[i].seconds > 0)
			buffer_printf(b, "%lld%c", (long long)(seconds / units[i].seconds), units[i].unit);
		seconds %= units[i].seconds;
	}
}

int64_t clock_mono_ms(void)
{
	struct timespec t;
	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int64_t clock_wall_us(void)
{
	struct timespec t;
	(void)clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

void format_rfc3339(struct buffer *b, int64_t wall_s)
{
	time_t t = (time_t)wall_s;
	struct tm tm;
	char text[64];
	if (localtime_r(&t, &tm) == NULL || strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S%z", &tm) < 24) {
		buffer_puts(b, "1970-01-01T00:00:00+00:00");
		return;
	}
	/* +0100 becomes +01:00 */
	buffer_printf(b, "%.22s:%s", text, text + 22);
}

int parse_rfc3339(struct span s, int64_t *wall_s)
{
	char text[32], sign;
	int h, m;
	if (s.n != 25)
		return EINVAL;
	memcpy(text, s.at, 25);
	text[25] = '\0';
	struct tm tm = {0};
	const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	if (rest == NULL || strlen(rest) != 6 || (rest[0] != '+' && rest[0] != '-'))
		return EINVAL;
	sign = rest[0];
	h = (rest[1] - '0') * 10 + rest[2] - '0';
	m = (rest[4] - '0') * 10 + rest[5] - '0';
	int64_t offset = h * 3600 + m * 60;
	*wall_s = (int64_t)timegm(&tm) - (sign == '+' ? offset : -offset);
	return 0;
}

void complain(struct complaint *c, const char *file, unsigned line, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	if (file != c->file)
		(void)snprintf(c->file, sizeof c->file, "%s", file == NULL ? "" : file);
	c->line = line;
	(void)vsnprintf(c->reason, sizeof c->reason, format, args); /* NOLINT(clang-analyzer-valist.Uninitialized): va_start is above */
	va_end(args);
}

/* Levenshtein distance of two short words; 99 when one is too long to be near. */
static unsigned distance(struct span a, struct span b)
{
	enum { MAX = 64 };
	unsigned row[MAX + 1];
	if (a.n > MAX || b.n > MAX)
		return 99;
	for (unsigned j = 0; j <= b.n; j++)
		row[j] = j;
	for (size_t i = 1; i <= a.n; i++) {
		unsigned diagonal = row[0];
		row[0] = (unsigned)i;
		for (size_t j = 1; j <= b.n; j++) {
			unsigned best = diagonal + (a.at[i - 1] == b.at[j - 1] ? 0 : 1);
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			diagonal = row[j];
			row[j] = best;
		}
	}
	return row[b.n];
}

const char *nearest_word(struct span word, const char *const *words, size_t n)
{
	const char *best = NULL;
	unsigned least = (unsigned)(word.n / 3) + 2;
	for (size_t i = 0; i < n; i++) {
		unsigned d = distance(word, span_of(words[i]));
		if (d < least) {
			least = d;
			best = words[i];
		}
	}
	return best;
}
