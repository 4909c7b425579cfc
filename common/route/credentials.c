#include "route/route.h"

#include <string.h>

bool domain_sets(const struct domain *d, const char *parameter)
{
	for (const struct setting *s = d->settings; s != NULL; s = s->next)
		if (strcmp(s->row->name, parameter) == 0)
			return true;
	return false;
}

/* MISSION C4: the server's credentials go to the smart host only, unless outbound_auth_to says all; a domain's to its route. */
enum credentials route_credentials(const struct server *s, const struct domain *d, struct span nexthop, bool fallback)
{
	bool own = d != NULL && domain_sets(d, "outbound_auth");
	bool by_route = !fallback && d != NULL && d->p.type == DOMAIN_REMOTE && d->p.route[0] != '\0' && span_is(nexthop, d->p.route);
	bool smart = fallback || (s->p.smart_host[0] != '\0' && span_is(nexthop, s->p.smart_host));
	if (own)
		return by_route && d->p.out.outbound_auth != AUTH_ANONYMOUS ? CREDENTIALS_OF_DOMAIN : CREDENTIALS_NONE;
	if (s->p.out.outbound_auth == AUTH_ANONYMOUS)
		return CREDENTIALS_NONE;
	return smart || s->p.outbound_auth_to == AUTH_TO_ALL ? CREDENTIALS_OF_SERVER : CREDENTIALS_NONE;
}
