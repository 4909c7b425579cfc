#include "reports.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct tally **bucket_of(struct sts_agent *a, const char *domain)
{
	return &a->tallies[crc32c(0, domain, strlen(domain)) % TALLY_BUCKETS];
}

static void free_tally(struct tally *t)
{
	while (t->details != NULL) {
		struct detail *d = t->details;
		t->details = d->next;
		free(d);
	}
	free(t->policy);
	free(t->hosts);
	free(t);
}

struct tally *tally_get(struct sts_agent *a, const struct tally *key)
{
	struct tally **bucket = bucket_of(a, key->domain), *t = *bucket;
	while (t != NULL && (t->day != key->day || t->kind != key->kind || strcmp(t->domain, key->domain) != 0 || strcmp(t->server, key->server) != 0 || strcmp(t->policy, key->policy) != 0))
		t = t->next;
	if (t != NULL)
		return t;
	t = a->tallies_n >= TALLIES_MOST ? NULL : malloc(sizeof *t);
	if (t == NULL)
		return NULL;
	*t = *key;
	t->policy = strdup(key->policy);
	t->hosts = strdup(key->hosts);
	if (t->policy == NULL || t->hosts == NULL) {
		free_tally(t);
		return NULL;
	}
	t->next = *bucket;
	*bucket = t;
	a->tallies_n++;
	return t;
}

bool tally_is_of(const struct tally *t, const struct report *r)
{
	return t->day == r->day && strcmp(t->domain, r->domain) == 0 && strcmp(t->server, r->server) == 0;
}

void tally_put_off(struct sts_agent *a, const struct report *r, int64_t retry_s)
{
	for (struct tally *t = *bucket_of(a, r->domain); t != NULL; t = t->next) {
		if (!tally_is_of(t, r))
			continue;
		t->retry_s = retry_s;
		t->mailed = t->mailed || (r->rua != NULL && !r->mail_failed);
		t->posted = t->posted || (r->rua != NULL && !r->post_failed);
	}
}

void tally_drop(struct sts_agent *a, const struct report *r)
{
	for (struct tally **p = bucket_of(a, r->domain); *p != NULL;) {
		struct tally *t = *p;
		if (!tally_is_of(t, r)) {
			p = &t->next;
			continue;
		}
		*p = t->next;
		free_tally(t);
		a->tallies_n--;
		a->tallies_changed = true;
	}
}

void detail_add(struct tally *t, const struct detail *from, uint64_t n)
{
	struct detail *d = t->details;
	t->failures += n;
	while (d != NULL && (d->result != from->result || strcmp(d->host, from->host) != 0 || strcmp(d->address, from->address) != 0 ||
		strcmp(d->local, from->local) != 0 || strcmp(d->reason, from->reason) != 0))
		d = d->next;
	if (d == NULL && t->details_n < DETAILS_MOST) { /* beyond them a failure is a number in the sum */
		d = malloc(sizeof *d);
		if (d == NULL)
			return;
		*d = *from;
		d->n = 0;
		d->next = t->details;
		t->details = d;
		t->details_n++;
	}
	if (d != NULL)
		d->n += n;
}

/* One line, of what a peer may have said. */
static void put_line(char *out, size_t size, struct span text)
{
	size_t n = text.n < size - 1 ? text.n : size - 1;
	for (size_t i = 0; i < n; i++)
		out[i] = text.at[i] < ' ' || text.at[i] > '~' ? '?' : text.at[i];
	out[n] = '\0';
}

void tally_add(struct sts_agent *a, const struct seen *s)
{
	struct tally key = {.day = clock_wall_us() / 1000000 / DAY_S, .kind = s->kind};
	struct detail d = {.result = s->result};
	if (a->proc.config.servers[s->server].p.tls_report != TLS_REPORT_YES || s->domain.n == 0 || s->domain.n > 253)
		return;
	put_line(key.server, sizeof key.server, span_of(a->proc.config.servers[s->server].name));
	put_line(key.domain, sizeof key.domain, s->domain);
	key.policy = span_dup(s->policy);
	key.hosts = span_dup(s->hosts);
	struct tally *t = key.policy == NULL || key.hosts == NULL ? NULL : tally_get(a, &key);
	free(key.policy);
	free(key.hosts);
	if (t == NULL) {
		a->tallies_lost++;
		return;
	}
	a->tallies_changed = true;
	if (s->result == RESULT_SUCCESS) {
		t->successes++;
		return;
	}
	put_line(d.host, sizeof d.host, s->host);
	put_line(d.address, sizeof d.address, s->address);
	put_line(d.local, sizeof d.local, s->local);
	put_line(d.reason, sizeof d.reason, s->reason);
	detail_add(t, &d, 1);
}

/* What an agent saw; the policy of a domain is our own to tell. */
int tally_on_result(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, tls_result, got);
	struct sts_agent *a = ch->program;
	if (got.server >= a->proc.config.servers_n)
		return 0;
	if (got.kind >= POLICY_KINDS || got.result >= RESULT_COUNT)
		return EBADMSG;
	struct buffer policy, hosts;
	buffer_init(&policy, 2 * STS_TEXT_MOST);
	buffer_init(&hosts, STS_TEXT_MOST);
	struct seen s = {.server = got.server, .kind = (enum policy_kind)got.kind, .result = (enum session_result)got.result, .domain = got.domain, .host = got.host, .address = got.address, .local = got.local, .reason = got.reason};
	const struct domain_policy *d = s.kind == KIND_STS ? domain_find(a, authorities_of(a, got.server), got.domain) : NULL;
	if (d != NULL && domain_holds(d)) {
		domain_put_policy(d, &policy, &hosts);
	} else if (s.kind == KIND_TLSA) {
		buffer_put_span(&policy, got.tlsa);
		buffer_printf(&hosts, "%.*s\n", SPAN_ARG(got.host));
	}
	s.policy = buffer_span(&policy);
	s.hosts = buffer_span(&hosts);
	tally_add(a, &s);
	buffer_free(&policy);
	buffer_free(&hosts);
	return 0;
}
