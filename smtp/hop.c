/* Next hops: MX, addresses, idle connections. */
#include "smtp_agent.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct hop **bucket_of(struct agent *a, uint32_t server, struct span nexthop)
{
	return &a->hops[crc32c(server, nexthop.at, nexthop.n) % HOP_BUCKETS];
}

struct hop *hop_get(struct agent *a, uint32_t server, struct span nexthop)
{
	struct hop **bucket = bucket_of(a, server, nexthop), *h = *bucket;
	while (h != NULL && (h->server != server || !span_is(nexthop, h->nexthop)))
		h = h->next;
	if (h == NULL) {
		h = calloc(1, sizeof *h);
		if (h == NULL)
			return NULL;
		*h = (struct hop){.nexthop = span_dup(nexthop), .server = server, .next = *bucket};
		if (h->nexthop == NULL) {
			free(h);
			return NULL;
		}
		*bucket = h;
	}
	h->users++;
	return h;
}

void hop_release(struct agent *a, struct hop *h)
{
	if (--h->users > 0 || h->idle != NULL || h->resolving || clock_mono_ms() < h->no_tls_until_ms || clock_mono_ms() < h->fresh_until_ms)
		return;
	struct hop **p = bucket_of(a, h->server, span_of(h->nexthop));
	while (*p != h)
		p = &(*p)->next;
	*p = h->next;
	free(h->nexthop);
	free(h->targets);
	free(h->hosts);
	free(h->reason);
	free(h);
}

void hop_remove_idle(struct conn *c)
{
	struct conn **p = &c->hop->idle;
	while (*p != NULL && *p != c)
		p = &(*p)->next_idle;
	if (*p == c)
		*p = c->next_idle;
	c->next_idle = NULL;
}

static void finish(struct agent *a, struct hop *h)
{
	h->resolving = false;
	h->fresh_until_ms = clock_mono_ms() + CACHE_MS;
	if (h->state == HOP_DEFERRED)
		h->fresh_until_ms = clock_mono_ms() + 1000;
	h->users++;
	while (h->waiting != NULL) {
		struct job *j = h->waiting;
		h->waiting = j->next;
		j->next = NULL;
		j->target_at = 0;
		job_start(j);
	}
	hop_release(a, h);
}

static void fail(struct agent *a, struct hop *h, bool for_good, const char *enhanced, const char *reason)
{
	h->state = for_good ? HOP_FAILED : HOP_DEFERRED;
	(void)snprintf(h->enhanced, sizeof h->enhanced, "%s", enhanced);
	free(h->reason);
	h->reason = span_dup(span_of(reason));
	finish(a, h);
}

static int add_target(struct hop *h, const char *name, struct span raw, uint16_t port)
{
	if (h->targets_n >= ADDRESSES_MOST)
		return 0;
	struct target *more = realloc(h->targets, (h->targets_n + 1) * sizeof *more);
	if (more == NULL)
		return ENOMEM;
	h->targets = more;
	struct target *t = &more[h->targets_n++];
	memset(t, 0, sizeof *t);
	(void)snprintf(t->name, sizeof t->name, "%s", name);
	if (raw.n == 4) {
		struct sockaddr_in *v4 = (struct sockaddr_in *)&t->addr;
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		memcpy(&v4->sin_addr, raw.at, 4);
		t->addr_n = sizeof *v4;
	} else {
		struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&t->addr;
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		memcpy(&v6->sin6_addr, raw.at, 16);
		t->addr_n = sizeof *v6;
	}
	return 0;
}

static void ask(struct agent *a, struct hop *h, enum dns_kind kind, const char *name)
{
	struct query *q = calloc(1, sizeof *q);
	if (q == NULL || a->resolver == NULL) {
		free(q);
		h->host_tempfail = true;
		return;
	}
	*q = (struct query){.serial = ++a->serial, .hop = h, .kind = kind, .next = a->queries};
	a->queries = q;
	h->asking++;
	send_dns_query(a->resolver, (struct msg_dns_query){.serial = q->serial, .kind = (uint32_t)kind, .limit_ms = DNS_LIMIT_MS, .name = span_of(name)}, -1);
}

static void ask_host(struct agent *a, struct hop *h)
{
	while (h->host_at < h->hosts_n && h->targets_n < ADDRESSES_MOST) {
		const char *name = h->hosts[h->host_at].name;
		ask(a, h, DNS_A, name);
		ask(a, h, DNS_AAAA, name);
		if (h->asking > 0)
			return;
		h->host_at++;
	}
	if (h->targets_n > 0) {
		h->state = HOP_READY;
		finish(a, h);
	} else if (h->host_tempfail) {
		fail(a, h, false, "4.4.3", "the next hop's addresses could not be looked up");
	} else {
		fail(a, h, true, "5.1.2", "the next hop has no address");
	}
}

static int add_host(struct hop *h, uint32_t preference, struct span name)
{
	struct mx_host *more = realloc(h->hosts, (h->hosts_n + 1) * sizeof *more);
	uint32_t order = 0;
	if (more == NULL)
		return ENOMEM;
	h->hosts = more;
	(void)!fill_random(&order, sizeof order);
	more[h->hosts_n] = (struct mx_host){.preference = preference, .order = order};
	(void)snprintf(more[h->hosts_n++].name, sizeof more->name, "%.*s", SPAN_ARG(name));
	return 0;
}

/* Preference first; equal ones in an order drawn by lot (RFC 5321 5.1). */
static int compare_hosts(const void *x, const void *y)
{
	const struct mx_host *a = x, *b = y;
	if (a->preference != b->preference)
		return a->preference < b->preference ? -1 : 1;
	return a->order < b->order ? -1 : a->order > b->order;
}

static void take_mx(struct agent *a, struct hop *h, struct span records)
{
	struct dns_mx mx;
	uint32_t own = UINT32_MAX;
	const char *fqdn = agent_params(a, h->server)->fqdn;
	size_t n = 0;
	bool null_mx = false;
	for (; dns_take_mx(&records, &mx); n++) {
		null_mx = mx.host.n == 0;
		if (span_case_is(mx.host, fqdn) && mx.preference < own)
			own = mx.preference;
		if (mx.host.n > 0)
			(void)!add_host(h, mx.preference, mx.host);
	}
	if (null_mx && n == 1) { /* RFC 7505 */
		fail(a, h, true, "5.1.10", "the domain takes no mail (null MX)");
		return;
	}
	if (h->hosts_n > 0)
		qsort(h->hosts, h->hosts_n, sizeof *h->hosts, compare_hosts);
	while (h->hosts_n > 0 && h->hosts[h->hosts_n - 1].preference >= own)
		h->hosts_n--; /* RFC 5321 5.1: only what is better than ourselves */
	if (h->hosts_n == 0) {
		fail(a, h, true, "5.4.6", "mail for the domain loops back to this server");
		return;
	}
	ask_host(a, h);
}

static void take_answer(struct agent *a, struct hop *h, enum dns_kind kind, const struct msg_dns_answer *m)
{
	struct nexthop n;
	struct span records = m->records, raw;
	if (kind == DNS_MX) {
		switch ((enum dns_status)m->status) {
		case DNS_OK: take_mx(a, h, records); return;
		case DNS_NXDOMAIN: fail(a, h, true, "5.1.2", "the domain does not exist"); return;
		case DNS_NODATA: /* RFC 5321 5.1: the domain itself is its MX */
			if (nexthop_parse(span_of(h->nexthop), &n) == 0)
				(void)!add_host(h, 0, n.name);
			ask_host(a, h);
			return;
		case DNS_BOGUS: fail(a, h, false, "4.7.5", "the MX answer failed its DNSSEC validation"); return;
		case DNS_TEMPFAIL: break;
		}
		fail(a, h, false, "4.4.3", "the MX look-up failed for now");
		return;
	}
	if (m->status == DNS_OK)
		while (take_lspan(&records, &raw))
			if (raw.n == 4 || raw.n == 16)
				(void)!add_target(h, h->hosts[h->host_at].name, raw, h->port);
	if (m->status == DNS_TEMPFAIL || m->status == DNS_BOGUS)
		h->host_tempfail = true;
	if (h->asking > 0)
		return;
	h->host_at++;
	ask_host(a, h);
}

int hop_on_answer(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, dns_answer, answer);
	struct agent *a = ch->program;
	for (struct query **p = &a->queries; *p != NULL; p = &(*p)->next) {
		struct query *q = *p;
		if (q->serial != answer.serial)
			continue;
		struct hop *h = q->hop;
		enum dns_kind kind = q->kind;
		*p = q->next;
		free(q);
		h->asking--;
		take_answer(a, h, kind, &answer);
		return 0;
	}
	return 0; /* the answer to a forgotten question */
}

void hop_resolver_gone(struct agent *a)
{
	while (a->queries != NULL) {
		struct query *q = a->queries;
		struct hop *h = q->hop;
		a->queries = q->next;
		free(q);
		if (--h->asking == 0)
			fail(a, h, false, "4.4.3", "the resolver is being replaced");
	}
}

static bool literal_address(struct span name, char raw[16], size_t *n)
{
	char text[64];
	if (name.n > 5 && span_case_eq((struct span){name.at, 5}, SPAN_LIT("IPv6:"))) {
		name.at += 5;
		name.n -= 5;
	}
	if (name.n >= sizeof text)
		return false;
	memcpy(text, name.at, name.n);
	text[name.n] = '\0';
	*n = 4;
	if (inet_pton(AF_INET, text, raw) == 1)
		return true;
	*n = 16;
	return inet_pton(AF_INET6, text, raw) == 1;
}

/* An address literal of a recipient: [192.0.2.1], [IPv6:...]. */
static struct span literal_of(struct span nexthop)
{
	if (nexthop.n > 7 && nexthop.at[0] == '[' && span_case_eq((struct span){nexthop.at + 1, 5}, SPAN_LIT("IPv6:")) && nexthop.at[nexthop.n - 1] == ']')
		return (struct span){nexthop.at + 1, nexthop.n - 2};
	return (struct span){"", 0};
}

void hop_resolve(struct agent *a, struct hop *h)
{
	struct nexthop n = {.kind = NEXTHOP_ADDRESS};
	char raw[16];
	size_t raw_n;
	if (h->resolving)
		return;
	h->resolving = true;
	h->targets_n = h->hosts_n = h->host_at = 0;
	h->host_tempfail = false;
	n.name = literal_of(span_of(h->nexthop));
	if (n.name.n == 0 && nexthop_parse(span_of(h->nexthop), &n) != 0) {
		fail(a, h, true, "5.1.2", "the next hop's name is not good");
		return;
	}
	h->port = n.port != 0 ? n.port : (uint16_t)agent_params(a, h->server)->outbound_port;
	switch (n.kind) {
	case NEXTHOP_ADDRESS: {
		char name[64];
		(void)snprintf(name, sizeof name, "%.*s", SPAN_ARG(n.name));
		if (!literal_address(n.name, raw, &raw_n) || add_target(h, name, (struct span){raw, raw_n}, h->port) != 0) {
			fail(a, h, true, "5.1.2", "the next hop's address is not good");
			return;
		}
		h->state = HOP_READY;
		finish(a, h);
		return;
	}
	case NEXTHOP_HOST:
		(void)!add_host(h, 0, n.name);
		ask_host(a, h);
		return;
	case NEXTHOP_MX: {
		char name[256];
		(void)snprintf(name, sizeof name, "%.*s", SPAN_ARG(n.name));
		ask(a, h, DNS_MX, name);
		if (h->asking == 0)
			fail(a, h, false, "4.4.3", "the resolver is away");
		return;
	}
	}
}
