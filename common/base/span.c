#include "base/base.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct span span_of(const char *text)
{
	return (struct span){text == NULL ? "" : text, text == NULL ? 0 : strlen(text)};
}

bool span_eq(struct span a, struct span b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.at, b.at, a.n) == 0);
}

bool span_is(struct span a, const char *text)
{
	return span_eq(a, span_of(text));
}

bool span_case_eq(struct span a, struct span b)
{
	return a.n == b.n && (a.n == 0 || strncasecmp(a.at, b.at, a.n) == 0);
}

bool span_case_is(struct span a, const char *text)
{
	return span_case_eq(a, span_of(text));
}

bool span_ends_case(struct span a, struct span tail)
{
	return a.n >= tail.n && span_case_eq((struct span){a.at + a.n - tail.n, tail.n}, tail);
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

struct span span_from(struct span s, size_t n)
{
	size_t skip = n < s.n ? n : s.n;
	return (struct span){s.at + skip, s.n - skip};
}

struct span span_trim(struct span s)
{
	while (s.n > 0 && is_blank(s.at[0])) {
		s.at++;
		s.n--;
	}
	while (s.n > 0 && is_blank(s.at[s.n - 1]))
		s.n--;
	return s;
}

static bool is_one_of(char c, const char *set)
{
	return c != '\0' && strchr(set, c) != NULL;
}

struct span span_word(struct span *rest, const char *separators)
{
	while (rest->n > 0 && is_one_of(rest->at[0], separators)) {
		rest->at++;
		rest->n--;
	}
	struct span word = {rest->at, 0};
	while (word.n < rest->n && !is_one_of(rest->at[word.n], separators))
		word.n++;
	rest->at += word.n;
	rest->n -= word.n;
	return word;
}

struct span span_until(struct span *rest, char stop)
{
	const char *end = rest->n > 0 ? memchr(rest->at, stop, rest->n) : NULL;
	if (end == NULL) {
		struct span all = *rest;
		rest->at += rest->n;
		rest->n = 0;
		return all;
	}
	struct span part = {rest->at, (size_t)(end - rest->at)};
	rest->at = end + 1;
	rest->n -= part.n + 1;
	return part;
}

char *span_dup(struct span s)
{
	char *copy = malloc(s.n + 1);
	if (copy == NULL)
		return NULL;
	if (s.n > 0)
		memcpy(copy, s.at, s.n);
	copy[s.n] = '\0';
	return copy;
}
