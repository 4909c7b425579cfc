#include "route/route.h"

#include <string.h>

const char *route_reason_text(enum route_reason r)
{
	static const char *const texts[] = {
#define REASON(name, text) [ROUTE_BY_##name] = (text),
		ROUTE_REASONS(REASON)
#undef REASON
	};
	return r < ROUTE_REASON_COUNT ? texts[r] : "";
}

/* The section for a name: the exact one, else the wildcard with the longest match (MISSION E4). */
static const struct domain *find_domain(const struct server *s, struct span name)
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

void route_find(const struct server *s, const struct address *a, struct route *out)
{
	struct route r = {.kind = ROUTE_LOCAL, .nexthop = {"", 0}};
	const struct domain *d;
	if (a->domain.n == 0) {
		r.reason = ROUTE_BY_NO_DOMAIN;
	} else if (a->domain.at[0] == '[') {
		r.kind = ROUTE_LITERAL;
		r.reason = ROUTE_BY_LITERAL;
		r.nexthop = a->domain;
	} else if (span_case_is(a->domain, s->p.default_domain)) {
		r.reason = ROUTE_BY_DEFAULT_DOMAIN;
	} else if ((d = find_domain(s, a->domain)) == NULL) {
		r.kind = ROUTE_NEXTHOP;
		r.reason = ROUTE_BY_MX;
		r.nexthop = a->domain;
	} else if (d->p.type == DOMAIN_REMOTE) {
		r.domain = d;
		r.kind = ROUTE_NEXTHOP;
		r.reason = d->p.route[0] != '\0' ? ROUTE_BY_REMOTE_ROUTE : ROUTE_BY_REMOTE_MX;
		r.nexthop = d->p.route[0] != '\0' ? span_of(d->p.route) : a->domain;
	} else {
		r.domain = d;
		r.reason = d->p.type == DOMAIN_ALIAS ? ROUTE_BY_ALIAS_DOMAIN : ROUTE_BY_LOCAL_DOMAIN;
	}
	*out = r;
}

bool relay_allows(const struct server *s, const struct client_list *exceptions, const struct sockaddr *client,
	const struct route *r, enum relay_reason *why)
{
	*why = RELAY_OWN_DOMAIN;
	if (r->kind == ROUTE_LOCAL)
		return true;
	int64_t domain_rule = r->domain == NULL ? DOMAIN_RELAY_SERVER : r->domain->p.relay;
	if (domain_rule != DOMAIN_RELAY_SERVER) {
		*why = domain_rule == DOMAIN_RELAY_YES ? RELAY_DOMAIN_YES : RELAY_DOMAIN_NEVER;
		return domain_rule == DOMAIN_RELAY_YES;
	}
	bool allowed = s->p.relay == 1;
	*why = RELAY_DEFAULT;
	if (client != NULL && client_list_has(exceptions, client)) {
		*why = RELAY_LISTED;
		return !allowed;
	}
	return allowed;
}
