#include "resolver.h"

#include <stdlib.h>
#include <string.h>
#include <unbound-event.h>

static const struct span none = {"", 0};

static struct question **bucket_of(struct resolver *r, enum dns_kind kind, struct span name)
{
	return &r->questions[crc32c((uint32_t)kind, name.at, name.n) % QUESTION_BUCKETS];
}

static void forget(struct question *q)
{
	struct question **p = bucket_of(q->resolver, q->kind, span_of(q->name));
	while (*p != q)
		p = &(*p)->next;
	*p = q->next;
	q->resolver->questions_n--;
	while (q->askers != NULL) {
		struct asker *a = q->askers;
		q->askers = a->next;
		free(a);
	}
	if (q->deadline != NULL)
		event_free(q->deadline);
	free(q->name);
	free(q);
}

static void answer(struct question *q, enum dns_status status, bool secure, uint32_t ttl, struct span records, struct span owner, const char *reason)
{
	q->answered = true;
	for (const struct asker *a = q->askers; a != NULL; a = a->next)
		if (a->channel != NULL)
			send_dns_answer(a->channel, (struct msg_dns_answer){.serial = a->serial, .status = (uint32_t)status, .secure = secure,
				.ttl_s = ttl, .records = records, .owner = owner, .reason = span_of(reason)}, -1);
	forget(q);
}

/* Judged in the order of the platform's notes: bogus, rcode, header, answers. */
static void on_answer(void *context, int rcode, void *packet, int n, int sec, char *why_bogus, int was_ratelimited)
{
	struct question *q = context;
	struct buffer records, owner;
	size_t found = 0;
	unsigned header_rcode = 0;
	(void)was_ratelimited;
	q->async_id = 0;
	if (sec == 1) {
		LOG(&q->resolver->proc.log, bogus, NO_ID, F("name", span_of(q->name)), F("reason", span_of(why_bogus)));
		answer(q, DNS_BOGUS, false, NEGATIVE_TTL, none, none, "DNSSEC validation failed");
		return;
	}
	if (rcode != 0 || n <= 0) {
		answer(q, DNS_TEMPFAIL, false, NEGATIVE_TTL, none, none, "the name servers gave no answer");
		return;
	}
	buffer_init(&records, 32 * 1024);
	buffer_init(&owner, 300);
	int error = dns_parse_answer((struct span){packet, (size_t)n}, q->kind, &records, &found, &header_rcode, &owner);
	if (error != 0 || (header_rcode != 0 && header_rcode != 3))
		answer(q, DNS_TEMPFAIL, false, NEGATIVE_TTL, none, none, "the name servers' answer is of no use");
	else if (header_rcode == 3)
		answer(q, DNS_NXDOMAIN, sec == 2, NEGATIVE_TTL, none, none, "no such name");
	else if (found == 0)
		answer(q, DNS_NODATA, sec == 2, NEGATIVE_TTL, none, none, "the name has no such record");
	else
		answer(q, DNS_OK, sec == 2, 300, buffer_span(&records), buffer_span(&owner), "");
	buffer_free(&records);
	buffer_free(&owner);
}

static void on_deadline(int fd, short what, void *context)
{
	struct question *q = context;
	(void)fd;
	(void)what;
	if (q->async_id != 0)
		(void)ub_cancel(q->resolver->context, q->async_id);
	answer(q, DNS_TEMPFAIL, false, NEGATIVE_TTL, none, none, "the name servers did not answer in time");
}

static int add_asker(struct question *q, struct channel *ch, uint64_t serial)
{
	struct asker *a = malloc(sizeof *a);
	if (a == NULL)
		return ENOMEM;
	*a = (struct asker){.channel = ch, .serial = serial, .next = q->askers};
	q->askers = a;
	return 0;
}

static struct question *make_question(struct resolver *r, enum dns_kind kind, struct span name, uint32_t limit_ms)
{
	struct question *q = calloc(1, sizeof *q);
	struct timeval tv = {.tv_sec = limit_ms / 1000, .tv_usec = (suseconds_t)(limit_ms % 1000 * 1000)};
	if (q == NULL)
		return NULL;
	*q = (struct question){.resolver = r, .kind = kind, .name = span_dup(name)};
	q->deadline = event_new(r->proc.base, -1, 0, on_deadline, q);
	if (q->name == NULL || q->deadline == NULL || event_add(q->deadline, &tv) != 0) {
		free(q->name);
		if (q->deadline != NULL)
			event_free(q->deadline);
		free(q);
		return NULL;
	}
	struct question **bucket = bucket_of(r, kind, name);
	q->next = *bucket;
	*bucket = q;
	r->questions_n++;
	return q;
}

static void refuse(struct channel *ch, uint64_t serial, const char *reason)
{
	send_dns_answer(ch, (struct msg_dns_answer){.serial = serial, .status = DNS_TEMPFAIL, .ttl_s = 1, .records = {"", 0}, .reason = span_of(reason)}, -1);
}

static bool is_known(enum dns_kind kind)
{
	static const enum dns_kind known[] = {DNS_MX, DNS_A, DNS_AAAA, DNS_PTR, DNS_TLSA, DNS_TXT, DNS_SRV};
	for (size_t i = 0; i < COUNT_OF(known); i++)
		if (known[i] == kind)
			return true;
	return false;
}

int resolver_on_query(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, dns_query, query);
	struct resolver *r = ch->program;
	enum dns_kind kind = (enum dns_kind)query.kind;
	if (!is_known(kind) || query.name.n == 0 || query.name.n > 253)
		return EBADMSG;
	struct question *q = *bucket_of(r, kind, query.name);
	while (q != NULL && (q->kind != kind || !span_case_is(query.name, q->name) || q->answered))
		q = q->next;
	if (q != NULL) {
		if (add_asker(q, ch, query.serial) != 0)
			refuse(ch, query.serial, "not enough memory");
		return 0;
	}
	if (r->questions_n >= QUESTIONS_LIMIT) {
		LOG(&r->proc.log, too_many, NO_ID, F("name", query.name));
		refuse(ch, query.serial, "too many questions are open");
		return 0;
	}
	q = make_question(r, kind, query.name, query.limit_ms);
	if (q == NULL || add_asker(q, ch, query.serial) != 0) {
		refuse(ch, query.serial, "not enough memory");
		return 0;
	}
	int id = 0;
	/* cached answers call back before this returns; q is gone then */
	int error = ub_resolve_event(r->context, q->name, (int)kind, 1, q, on_answer, &id);
	struct question *still = *bucket_of(r, kind, query.name);
	while (still != NULL && still != q)
		still = still->next;
	if (still == NULL)
		return 0;
	q->async_id = id;
	if (error != 0)
		answer(q, DNS_TEMPFAIL, false, 1, none, none, ub_strerror(error));
	return 0;
}

void resolver_forget(struct resolver *r, const struct channel *ch)
{
	for (size_t i = 0; i < QUESTION_BUCKETS; i++)
		for (struct question *q = r->questions[i]; q != NULL; q = q->next)
			for (struct asker *a = q->askers; a != NULL; a = a->next)
				if (a->channel == ch)
					a->channel = NULL;
}
