#include "route/route.h"

#include <string.h>

/* What the rules are asked about. */
struct question {
	const struct server *server;
	const struct address *address;
	const struct domain *section;
};

const struct domain *route_section(const struct server *s, struct span name)
{
	const struct domain *best = NULL;
	size_t best_n = 0;
	for (size_t i = 0; i < s->domains_n; i++) {
		const struct domain *d = &s->domains[i];
		struct span pattern = span_of(d->name);
		if (pattern.at[0] != '*') {
			if (span_case_eq(pattern, name))
				return d;
			continue;
		}
		struct span below = {pattern.at + 1, pattern.n - 1}; /* ".example.org" */
		if (name.n > below.n && span_ends_case(name, below) && below.n > best_n) {
			best = d;
			best_n = below.n;
		}
	}
	return best;
}

/* ---- tests of the rules ---- */

static bool has_no_domain(const struct question *q)
{
	return q->address->domain.n == 0;
}

static bool is_default_domain(const struct question *q)
{
	return span_case_is(q->address->domain, q->server->p.default_domain);
}

static bool is_literal(const struct question *q)
{
	return q->address->domain.n > 0 && q->address->domain.at[0] == '[';
}

/* postmaster@[192.0.2.1]: the address of a listener, at any port. */
static bool is_own_literal(const struct question *q)
{
	struct listen_walk w = {0};
	struct endpoint e;
	struct sockaddr_storage sa;
	socklen_t n;
	unsigned char own[16], asked[16];
	if (!is_literal(q) || literal_to_sockaddr(q->address->domain, 0, &sa, &n) != 0 || sockaddr_to_v6((const struct sockaddr *)&sa, asked) != 0)
		return false;
	while (server_listen_next(q->server, &w, &e))
		if (!e.any && sockaddr_to_v6((const struct sockaddr *)&e.addr, own) == 0 && memcmp(own, asked, sizeof own) == 0)
			return true;
	return false;
}

static bool is_of_type(const struct question *q, enum domain_type type)
{
	return q->section != NULL && q->section->p.type == (int64_t)type;
}

static bool is_alias(const struct question *q)
{
	return is_of_type(q, DOMAIN_ALIAS);
}

static bool is_local(const struct question *q)
{
	return is_of_type(q, DOMAIN_LOCAL);
}

static bool is_remote(const struct question *q)
{
	return is_of_type(q, DOMAIN_REMOTE);
}

static bool has_route(const struct question *q)
{
	return is_remote(q) && q->section->p.route[0] != '\0';
}

static bool has_smart_host(const struct question *q)
{
	return q->server->p.smart_host[0] != '\0';
}

static bool goes_direct_first(const struct question *q)
{
	return has_smart_host(q) && q->server->p.smart_host_direct_first == 1;
}

static bool is_anything(const struct question *q)
{
	(void)q;
	return true;
}

/* ---- targets ---- */

static void nowhere(const struct question *q, struct route *r)
{
	(void)q;
	r->nexthop = (struct span){"", 0};
}

static void own_hosts(const struct question *q, struct route *r)
{
	r->nexthop = q->address->domain;
}

static void domain_route(const struct question *q, struct route *r)
{
	r->nexthop = span_of(q->section->p.route);
}

static void smart(const struct question *q, struct route *r)
{
	r->nexthop = span_of(q->server->p.smart_host);
}

static void own_then_smart(const struct question *q, struct route *r)
{
	r->nexthop = q->address->domain;
	r->fallback = span_of(q->server->p.smart_host);
}

static const struct rule {
	bool (*test)(const struct question *);
	enum route_kind kind;
	void (*target)(const struct question *, struct route *);
	const char *text;
} rules[] = {
#define ROUTE(name, test, kind, target, text) {test, ROUTE_##kind, target, text},
#include "route/routes.def"
};

const char *route_reason_text(enum route_reason r)
{
	return r < ROUTE_REASON_COUNT ? rules[r].text : "";
}

void route_trace(const struct server *s, const struct address *a, struct route *out,
	void (*step)(void *context, enum route_reason rule, bool fits), void *context)
{
	struct question q = {s, a, a->domain.n == 0 ? NULL : route_section(s, a->domain)};
	for (size_t i = 0; i < COUNT_OF(rules); i++) {
		bool fits = rules[i].test(&q);
		if (step != NULL)
			step(context, (enum route_reason)i, fits);
		if (!fits)
			continue;
		*out = (struct route){.kind = rules[i].kind, .reason = (enum route_reason)i, .domain = q.section, .fallback = {"", 0}};
		rules[i].target(&q, out);
		return;
	}
}

void route_find(const struct server *s, const struct address *a, struct route *out)
{
	route_trace(s, a, out, NULL, NULL);
}

bool route_domain_is_own(const struct server *s, struct span domain)
{
	const struct domain *d;
	if (span_case_is(domain, s->p.default_domain))
		return true;
	d = route_section(s, domain);
	return d != NULL && d->p.type != DOMAIN_REMOTE;
}

void route_put_text(struct buffer *b, const struct route *r)
{
	buffer_put_span(b, r->nexthop);
	if (r->fallback.n == 0)
		return;
	buffer_putc(b, ';');
	buffer_put_span(b, r->fallback);
}

const struct domain *route_node_section(const struct server *s, struct span node)
{
	char below[260];
	if (node.n == 0 || node.at[0] != '@')
		return route_section(s, node);
	struct span domain = {node.at + 1, node.n - 1};
	const struct domain *d = route_section(s, domain);
	if (d != NULL || domain.n > 255)
		return d;
	(void)snprintf(below, sizeof below, "*.%.*s", SPAN_ARG(domain));
	return server_domain(s, span_of(below));
}

bool domain_may_be_taken(const struct domain *d, struct span login)
{
	struct span rest = span_of(d->p.atrn_users), name;
	if (d->p.type != DOMAIN_REMOTE || d->p.etrn != 1)
		return false;
	while ((name = span_word(&rest, " \t,")).n > 0)
		if (span_case_eq(name, login))
			return true;
	return false;
}

bool route_may_take(const struct server *s, struct span node, struct span login)
{
	const struct domain *d = route_node_section(s, node);
	return d != NULL && domain_may_be_taken(d, login);
}
