#include "sts_agent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int64_t now_s(void)
{
	return clock_wall_us() / 1000000;
}

static struct domain_policy **bucket_of(struct sts_agent *a, uint32_t authorities, struct span domain)
{
	return &a->domains[crc32c(authorities, domain.at, domain.n) % DOMAIN_BUCKETS];
}

static void unlink_used(struct domain_policy *d)
{
	struct sts_agent *a = d->agent;
	*(d->older != NULL ? &d->older->newer : &a->oldest) = d->newer;
	*(d->newer != NULL ? &d->newer->older : &a->newest) = d->older;
}

static void link_used(struct domain_policy *d)
{
	struct sts_agent *a = d->agent;
	d->older = a->newest;
	d->newer = NULL;
	*(a->newest != NULL ? &a->newest->newer : &a->oldest) = d;
	a->newest = d;
}

void domain_used(struct domain_policy *d)
{
	d->used_s = now_s();
	unlink_used(d);
	link_used(d);
}

static void drop(struct domain_policy *d)
{
	struct domain_policy **p = bucket_of(d->agent, d->authorities, span_of(d->domain));
	while (*p != d)
		p = &(*p)->next;
	*p = d->next;
	unlink_used(d);
	d->agent->domains_n--;
	buffer_free(&d->mx);
	buffer_free(&d->resolve.addresses);
	free(d);
}

void domain_forget(struct domain_policy *d)
{
	if (d->kept)
		store_remove(d);
	drop(d);
}

/* One without a policy makes room, else the one that was used longest ago: nobody pushes a domain out that mail goes to. */
static bool make_room(struct sts_agent *a)
{
	struct domain_policy *d = a->oldest;
	while (d != NULL && (d->phase != PHASE_REST || d->kept))
		d = d->newer;
	for (d = d != NULL ? d : a->oldest; d != NULL && d->phase != PHASE_REST;)
		d = d->newer;
	if (d == NULL)
		return false;
	domain_forget(d);
	return true;
}

/* In small letters.  False: no name of a domain, as it becomes part of a URL and of a file. */
static bool take_name(struct span domain, char name[256], struct span *key)
{
	if (domain.n == 0 || domain.n > 253)
		return false;
	for (size_t i = 0; i < domain.n; i++) {
		name[i] = domain.at[i] >= 'A' && domain.at[i] <= 'Z' ? (char)(domain.at[i] | 32) : domain.at[i];
		bool letter = (name[i] >= 'a' && name[i] <= 'z') || (name[i] >= '0' && name[i] <= '9') || name[i] == '-' || name[i] == '_';
		if (!letter && (name[i] != '.' || i == 0 || i + 1 == domain.n || name[i - 1] == '.'))
			return false;
	}
	*key = (struct span){name, domain.n};
	return true;
}

struct domain_policy *domain_find(struct sts_agent *a, uint32_t authorities, struct span domain)
{
	char name[256];
	struct span key;
	if (!take_name(domain, name, &key))
		return NULL;
	struct domain_policy *d = *bucket_of(a, authorities, key);
	while (d != NULL && (d->authorities != authorities || !span_is(key, d->domain)))
		d = d->next;
	return d;
}

struct domain_policy *domain_get(struct sts_agent *a, uint32_t authorities, struct span domain)
{
	char name[256];
	struct span key;
	struct domain_policy *d = domain_find(a, authorities, domain);
	if (d != NULL || !take_name(domain, name, &key))
		return d;
	if (a->domains_n >= DOMAINS_MOST && !make_room(a))
		return NULL;
	d = calloc(1, sizeof *d);
	if (d == NULL)
		return NULL;
	struct domain_policy **bucket = bucket_of(a, authorities, key);
	*d = (struct domain_policy){.agent = a, .authorities = authorities, .used_s = now_s(), .next = *bucket};
	(void)snprintf(d->domain, sizeof d->domain, "%.*s", SPAN_ARG(key));
	buffer_init(&d->mx, STS_TEXT_MOST + 4 * STS_HOSTS_MOST);
	*bucket = d;
	link_used(d);
	a->domains_n++;
	return d;
}

bool domain_holds(const struct domain_policy *d)
{
	return d->kept && now_s() < d->until_s;
}

/* What is said of it, for people. */
static void put_text(const struct domain_policy *d, struct buffer *b)
{
	if (domain_holds(d)) {
		buffer_printf(b, "MTA-STS policy %s of %s: %s, holds until ", d->id, d->domain, sts_mode_name(d->mode));
		format_rfc3339(b, d->until_s);
	}
	if (d->failure[0] != '\0')
		buffer_printf(b, "%s%s%s", b->n > 0 ? "; " : "MTA-STS of ", b->n > 0 ? "" : d->domain, b->n > 0 ? "" : ": ");
	buffer_puts(b, d->failure);
}

static void answer(struct domain_policy *d)
{
	struct buffer text;
	bool holds = domain_holds(d);
	buffer_init(&text, 2000);
	put_text(d, &text);
	while (d->askers != NULL) {
		struct asker *k = d->askers;
		d->askers = k->next;
		if (k->channel != NULL)
			send_sts_answer(k->channel, (struct msg_sts_answer){.serial = k->serial, .mode = holds ? (uint32_t)d->mode : d->untold ? STS_UNKNOWN : STS_NONE, .id = span_of(d->id),
				.mx = holds ? buffer_span(&d->mx) : (struct span){"", 0}, .text = buffer_span(&text)}, -1);
		free(k);
	}
	buffer_free(&text);
}

void domain_rest(struct domain_policy *d)
{
	d->phase = PHASE_REST;
	d->checked_s = now_s();
	if (d->kept && !domain_holds(d)) {
		store_remove(d);
		d->kept = false;
	}
	answer(d);
	d->untold = false;
	if (!domain_holds(d) && d->retry_s <= now_s())
		domain_forget(d);
}

int domain_on_query(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, sts_query, query);
	struct sts_agent *a = ch->program;
	struct domain_policy *d = query.server >= a->proc.config.servers_n ? NULL : domain_get(a, authorities_of(a, query.server), query.domain);
	struct asker *k = d == NULL ? NULL : malloc(sizeof *k);
	if (k == NULL) {
		send_sts_answer(ch, (struct msg_sts_answer){.serial = query.serial, .mode = STS_UNKNOWN, .id = {"", 0}, .mx = {"", 0}, .text = SPAN_LIT("too many MTA-STS policies are being fetched")}, -1);
		return 0;
	}
	*k = (struct asker){.channel = ch, .serial = query.serial, .server = query.server, .next = d->askers};
	d->askers = k;
	domain_used(d);
	if (d->phase == PHASE_REST)
		check_begin(d);
	return 0;
}

void domain_asker_gone(struct sts_agent *a, const struct channel *ch)
{
	for (struct domain_policy *d = a->oldest; d != NULL; d = d->newer)
		for (struct asker *k = d->askers; k != NULL; k = k->next)
			if (k->channel == ch)
				k->channel = NULL;
}

/* What has expired goes; what is in use is looked at before it does. */
void domain_sweep(struct sts_agent *a)
{
	int64_t now = now_s();
	for (struct domain_policy *d = a->oldest, *next; d != NULL; d = next) {
		next = d->newer;
		int64_t age = d->until_s - d->fetched_s, half = d->fetched_s + age / 2;
		if (d->phase != PHASE_REST)
			continue;
		if (!domain_holds(d) && d->retry_s <= now)
			domain_forget(d);
		else if (d->kept && d->retry_s <= now && d->used_s + STS_AGE_MOST / 12 > now && (now - d->checked_s >= REFRESH_S || (now >= half && now - d->checked_s >= SWEEP_S)))
			check_begin(d);
	}
}

void domain_put_policy(const struct domain_policy *d, struct buffer *policy, struct buffer *hosts)
{
	struct span rest = buffer_span(&d->mx), host;
	buffer_printf(policy, "version: STSv1\nmode: %s\n", sts_mode_name(d->mode));
	while (take_lspan(&rest, &host)) {
		buffer_printf(policy, "mx: %.*s\n", SPAN_ARG(host));
		buffer_printf(hosts, "%.*s\n", SPAN_ARG(host));
	}
	buffer_printf(policy, "max_age: %lld\n", (long long)(d->until_s - d->fetched_s));
}
