#include "lease/lease.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

int64_t lease_clock_ms(void)
{
	struct timespec t;
	(void)clock_gettime(CLOCK_BOOTTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

bool lease_holds(const struct lease_slot *s)
{
	return s == NULL || lease_clock_ms() < atomic_load_explicit(&s->until_ms, memory_order_acquire);
}

uint32_t lease_token(const struct lease_slot *s)
{
	return s == NULL ? 0 : atomic_load_explicit(&s->token, memory_order_acquire);
}

/* One block, written at once; a text, so that people can read it. */
void lease_put(char out[LEASE_BYTES], const struct lease_record *r)
{
	char line[LEASE_BYTES - 20];
	int n = snprintf(line, sizeof line, "posthorn-lease 1 %s %s %u %llu %s", r->node, r->boot, r->token, (unsigned long long)r->count, r->held ? "held" : "free");
	memset(out, ' ', LEASE_BYTES);
	out[LEASE_BYTES - 1] = '\n';
	if (n > 0 && (size_t)n < sizeof line)
		(void)memcpy(out, line, (size_t)n);
	n = snprintf(line, sizeof line, "%08x", crc32c(0, out, LEASE_BYTES - 10));
	(void)memcpy(out + LEASE_BYTES - 9, line, (size_t)n);
}

static bool take_text(struct span *rest, char *out, size_t size)
{
	struct span word = span_word(rest, " ");
	if (word.n == 0 || word.n >= size)
		return false;
	for (size_t i = 0; i < word.n; i++)
		if (word.at[i] <= ' ' || word.at[i] >= 0x7f)
			return false;
	(void)snprintf(out, size, "%.*s", SPAN_ARG(word));
	return true;
}

int lease_parse(struct span text, struct lease_record *out)
{
	struct lease_record r = {.token = 0};
	char crc[16], state[8];
	uint64_t token, count;
	if (text.n != LEASE_BYTES)
		return EBADMSG;
	(void)snprintf(crc, sizeof crc, "%08x", crc32c(0, text.at, LEASE_BYTES - 10));
	struct span rest = {text.at, LEASE_BYTES - 10};
	if (memcmp(text.at + LEASE_BYTES - 9, crc, 8) != 0 || !span_is(span_word(&rest, " "), "posthorn-lease") || !span_is(span_word(&rest, " "), "1"))
		return EBADMSG;
	if (!take_text(&rest, r.node, sizeof r.node) || !take_text(&rest, r.boot, sizeof r.boot))
		return EBADMSG;
	if (parse_u64(span_word(&rest, " "), UINT32_MAX, &token) != 0 || parse_u64(span_word(&rest, " "), UINT64_MAX, &count) != 0 || !take_text(&rest, state, sizeof state))
		return EBADMSG;
	if (strcmp(state, "held") != 0 && strcmp(state, "free") != 0)
		return EBADMSG;
	r.token = (uint32_t)token;
	r.count = count;
	r.held = strcmp(state, "held") == 0;
	*out = r;
	return 0;
}

bool lease_is_of(const struct lease_record *r, const struct lease_record *node)
{
	return strcmp(r->node, node->node) == 0 && strcmp(r->boot, node->boot) == 0;
}

bool lease_same(const struct lease_record *a, const struct lease_record *b)
{
	return lease_is_of(a, b) && a->token == b->token && a->count == b->count && a->held == b->held;
}

int64_t lease_renew_ms(int64_t term_ms)
{
	return term_ms / 5;
}

int64_t lease_hold_ms(int64_t term_ms)
{
	return term_ms / 2;
}

int64_t lease_silent_ms(int64_t term_ms)
{
	return term_ms * 2;
}

/* Longer than one can hold who renewed it just before it was taken. */
int64_t lease_settle_ms(int64_t term_ms)
{
	return lease_hold_ms(term_ms) + lease_renew_ms(term_ms);
}

static enum lease_step begin_watch(struct lease_watch *w, const struct lease_record *seen, int64_t now_ms)
{
	*w = (struct lease_watch){.since_ms = now_ms, .there = seen != NULL};
	if (seen != NULL)
		w->first = *seen;
	return LEASE_WATCH;
}

enum lease_step lease_judge(struct lease_watch *w, const struct lease_record *seen, const struct lease_record *own, bool alone, int64_t now_ms, int64_t term_ms)
{
	if (seen != NULL && !seen->held)
		return LEASE_TAKE;
	if (seen != NULL && own->token != 0 && seen->token == own->token && lease_is_of(seen, own))
		return LEASE_GO_ON;
	if (seen != NULL && alone && lease_is_of(seen, own)) /* whoever held it here has ended */
		return LEASE_TAKE;
	if (w->since_ms == 0)
		return begin_watch(w, seen, now_ms);
	if (w->there != (seen != NULL))
		return begin_watch(w, seen, now_ms);
	if (seen != NULL && !lease_same(seen, &w->first))
		return LEASE_ELSEWHERE;
	return now_ms - w->since_ms >= lease_silent_ms(term_ms) ? LEASE_TAKE : LEASE_WATCH;
}
