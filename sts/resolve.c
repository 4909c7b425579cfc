/* The addresses of a host to fetch from, by the resolver. */
#include "sts_agent.h"

#include <arpa/inet.h>

static bool ask(struct resolve *r, enum dns_kind kind)
{
	struct sts_agent *a = r->agent;
	if (a->resolver == NULL)
		return false;
	uint64_t *serial = &r->serials[kind == DNS_A];
	*serial = ++a->serial;
	send_dns_query(a->resolver, (struct msg_dns_query){.serial = *serial, .kind = (uint32_t)kind, .limit_ms = DNS_LIMIT_MS, .name = span_of(r->host)}, -1);
	return true;
}

void resolve_begin(struct resolve *r)
{
	struct sts_agent *a = r->agent;
	buffer_free(&r->addresses);
	buffer_init(&r->addresses, 64 * ADDRESSES_MOST);
	r->serials[0] = r->serials[1] = 0;
	if (!ask(r, DNS_AAAA) || !ask(r, DNS_A)) {
		r->done(r);
		return;
	}
	r->next = a->resolving;
	a->resolving = r;
}

static void take(struct resolve *r, bool four, struct span records)
{
	struct span raw;
	for (unsigned n = 0; take_lspan(&records, &raw) && n < ADDRESSES_MOST / 2; n++) {
		char text[INET6_ADDRSTRLEN];
		if (raw.n == (four ? 4u : 16u) && inet_ntop(four ? AF_INET : AF_INET6, raw.at, text, sizeof text) != NULL)
			buffer_printf(&r->addresses, "%s%s", r->addresses.n == 0 ? "" : ",", text);
	}
}

static void end(struct resolve **p)
{
	struct resolve *r = *p;
	*p = r->next;
	r->done(r);
}

bool resolve_on_answer(struct sts_agent *a, const struct msg_dns_answer *got)
{
	for (struct resolve **p = &a->resolving; *p != NULL; p = &(*p)->next) {
		struct resolve *r = *p;
		bool four = r->serials[1] == got->serial;
		if (!four && r->serials[0] != got->serial)
			continue;
		r->serials[four] = 0;
		if (got->status == DNS_OK)
			take(r, four, got->records);
		if (r->serials[0] == 0 && r->serials[1] == 0)
			end(p);
		return true;
	}
	return false;
}

void resolve_resolver_gone(struct sts_agent *a)
{
	while (a->resolving != NULL)
		end(&a->resolving);
}

/* Whoever waits is gone. */
void resolve_forget(struct resolve *r)
{
	struct resolve **p = &r->agent->resolving;
	while (*p != NULL && *p != r)
		p = &(*p)->next;
	if (*p == r)
		*p = r->next;
	buffer_free(&r->addresses);
}
