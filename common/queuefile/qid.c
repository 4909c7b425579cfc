#include "queuefile/queuefile.h"

#include <stdio.h>
#include <string.h>

static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

static void put_base62(char *at, size_t n, uint64_t v)
{
	while (n-- > 0) {
		at[n] = digits[v % 62];
		v /= 62;
	}
}

static int digit_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'Z')
		return c - 'A' + 10;
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 36;
	return -1;
}

void qid_suffix(uint32_t node, uint32_t epoch, uint32_t instance, char out[QID_SUFFIX_N + 1])
{
	put_base62(out, 2, node);
	put_base62(out + 2, 2, epoch);
	put_base62(out + 4, 2, instance);
	out[QID_SUFFIX_N] = '\0';
}

struct qid qid_make(struct qid_maker *m, int64_t wall_us)
{
	struct qid id;
	if (wall_us <= m->last_us) /* unique within a process, whatever the clock does */
		wall_us = m->last_us + 1;
	m->last_us = wall_us;
	put_base62(id.text, QID_TIME_N, (uint64_t)wall_us);
	memcpy(id.text + QID_TIME_N, m->suffix, QID_SUFFIX_N + 1);
	return id;
}

int qid_parse(struct span s, struct qid *out)
{
	if (s.n != QID_N)
		return EINVAL;
	for (size_t i = 0; i < s.n; i++)
		if (digit_value(s.at[i]) < 0)
			return EINVAL;
	memcpy(out->text, s.at, QID_N);
	out->text[QID_N] = '\0';
	return 0;
}

int64_t qid_wall_us(const struct qid *id)
{
	int64_t v = 0;
	for (size_t i = 0; i < QID_TIME_N; i++)
		v = v * 62 + digit_value(id->text[i]);
	return v;
}

struct span qid_span(const struct qid *id)
{
	return (struct span){id->text, strlen(id->text)};
}

bool qid_same(const struct qid *a, const struct qid *b)
{
	return memcmp(a->text, b->text, QID_N) == 0;
}

uint64_t qid_hash(const struct qid *id)
{
	uint64_t a = load_u64(id->text), b = load_u64(id->text + 7);
	a = (a ^ (b * UINT64_C(0x9e3779b97f4a7c15))) * UINT64_C(0xff51afd7ed558ccd);
	return a ^ a >> 33;
}

void qid_path(const struct qid *id, const char *tail, char *out, size_t size)
{
	(void)snprintf(out, size, "%02x/%s%s", (unsigned)(qid_hash(id) & 0xff), id->text, tail);
}
