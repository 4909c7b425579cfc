/* spool_directory/sts/tls-reports: what is counted, as text; written once a minute, so that much may be missing after a crash. */
#include "reports.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_OF_REPORTS "tls-reports"
enum { ALL_MOST = 256 * 1024 * 1024 };

static void put_lines(struct buffer *b, const char *key, const char *text)
{
	struct span rest = span_of(text);
	while (rest.n > 0) {
		struct span line = span_until(&rest, '\n');
		buffer_printf(b, "%s %.*s\n", key, SPAN_ARG(line));
	}
}

static void put_tally(struct buffer *b, const struct tally *t)
{
	buffer_printf(b, "tally %lld %u %llu %llu\nserver %s\ndomain %s\n", (long long)t->day, (unsigned)t->kind, (unsigned long long)t->successes, (unsigned long long)t->failures, t->server, t->domain);
	put_lines(b, "policy", t->policy);
	put_lines(b, "host", t->hosts);
	for (const struct detail *d = t->details; d != NULL; d = d->next)
		buffer_printf(b, "failed %u %llu\nat %s\naddress %s\nfrom %s\nreason %s\n", (unsigned)d->result, (unsigned long long)d->n, d->host, d->address, d->local, d->reason);
	buffer_puts(b, "end\n");
}

void tallies_write(struct sts_agent *a)
{
	struct buffer b;
	if (!a->tallies_changed)
		return;
	buffer_init(&b, ALL_MOST);
	for (size_t i = 0; i < TALLY_BUCKETS; i++)
		for (const struct tally *t = a->tallies[i]; t != NULL; t = t->next)
			put_tally(&b, t);
	int error = !buffer_ok(&b) ? ENOMEM : replace_file_at(a->dir_fd, FILE_OF_REPORTS, buffer_span(&b), 0600);
	if (error != 0)
		LOG(&a->proc.log, cache_failed, NO_ID, F("file", SPAN_LIT(FILE_OF_REPORTS)), F("reason", span_of(strerror(error))));
	a->tallies_changed = error != 0;
	if (a->tallies_lost > 0) {
		char n[24];
		(void)snprintf(n, sizeof n, "%u", a->tallies_lost);
		LOG(&a->proc.log, reports_lost, NO_ID, F("sessions", span_of(n)));
		a->tallies_lost = 0;
	}
	buffer_free(&b);
}

/* A tally as it is read. */
struct reading {
	struct tally key;
	uint64_t successes, failures, told;
	struct buffer policy, hosts;
	struct detail *details, *last;
	size_t details_n;
};

static bool take_numbers(struct span line, uint64_t *out, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (parse_u64(span_word(&line, " "), INT64_MAX, &out[i]) != 0)
			return false;
	return line.n == 0;
}

static void copy(char *out, size_t size, struct span text)
{
	(void)snprintf(out, size, "%.*s", (int)(text.n < size ? text.n : size - 1), text.at);
}

static bool begin_tally(struct reading *r, struct span line)
{
	uint64_t v[4];
	if (!take_numbers(line, v, 4) || v[1] >= POLICY_KINDS || v[0] > 100000)
		return false;
	r->key = (struct tally){.day = (int64_t)v[0], .kind = (enum policy_kind)v[1]};
	r->successes = v[2];
	r->failures = v[3];
	r->told = 0;
	r->details_n = 0;
	buffer_clear(&r->policy);
	buffer_clear(&r->hosts);
	return true;
}

static bool begin_detail(struct reading *r, struct span line)
{
	uint64_t v[2];
	if (!take_numbers(line, v, 2) || v[0] >= RESULT_COUNT || r->details_n == DETAILS_MOST)
		return false;
	r->last = &r->details[r->details_n++];
	*r->last = (struct detail){.result = (enum session_result)v[0], .n = v[1]};
	r->told += v[1];
	return true;
}

static bool end_tally(struct sts_agent *a, struct reading *r)
{
	r->key.policy = (char *)(uintptr_t)buffer_cstr(&r->policy);
	r->key.hosts = (char *)(uintptr_t)buffer_cstr(&r->hosts);
	struct tally *t = r->key.domain[0] == '\0' || r->key.server[0] == '\0' || r->told > r->failures ? NULL : tally_get(a, &r->key);
	if (t == NULL)
		return false;
	t->successes += r->successes;
	t->failures += r->failures - r->told;
	for (size_t i = 0; i < r->details_n; i++)
		detail_add(t, &r->details[i], r->details[i].n);
	return true;
}

static bool take_line(struct sts_agent *a, struct reading *r, struct span line)
{
	struct span key = span_until(&line, ' ');
	struct buffer *lines = span_is(key, "policy") ? &r->policy : span_is(key, "host") ? &r->hosts : NULL;
	if (span_is(key, "tally"))
		return begin_tally(r, line);
	if (span_is(key, "failed"))
		return begin_detail(r, line);
	if (span_is(key, "end"))
		return end_tally(a, r);
	if (lines != NULL) {
		buffer_printf(lines, "%.*s\n", SPAN_ARG(line));
		return true;
	}
	if (span_is(key, "server"))
		copy(r->key.server, sizeof r->key.server, line);
	else if (span_is(key, "domain"))
		copy(r->key.domain, sizeof r->key.domain, line);
	else if (r->details_n == 0)
		return false;
	else if (span_is(key, "at"))
		copy(r->last->host, sizeof r->last->host, line);
	else if (span_is(key, "address"))
		copy(r->last->address, sizeof r->last->address, line);
	else if (span_is(key, "from"))
		copy(r->last->local, sizeof r->last->local, line);
	else if (span_is(key, "reason"))
		copy(r->last->reason, sizeof r->last->reason, line);
	return true;
}

void tallies_read(struct sts_agent *a)
{
	struct buffer text;
	struct reading r = {.details = calloc(DETAILS_MOST, sizeof *r.details)};
	buffer_init(&text, ALL_MOST);
	buffer_init(&r.policy, STS_TEXT_MOST);
	buffer_init(&r.hosts, STS_TEXT_MOST);
	int error = r.details == NULL ? ENOMEM : read_file_at(a->dir_fd, FILE_OF_REPORTS, ALL_MOST, &text);
	struct span rest = buffer_span(&text);
	bool good = error == 0 || error == ENOENT;
	while (good && rest.n > 0)
		good = take_line(a, &r, span_until(&rest, '\n'));
	if (!good)
		LOG(&a->proc.log, cache_failed, NO_ID, F("file", SPAN_LIT(FILE_OF_REPORTS)), F("reason", error != 0 ? span_of(strerror(error)) : SPAN_LIT("it is damaged: what stands before is taken")));
	buffer_free(&text);
	buffer_free(&r.policy);
	buffer_free(&r.hosts);
	free(r.details);
}
