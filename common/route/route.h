/* route: from an address to where its mail goes, as a pure function of the configuration. */
#ifndef ROUTE_ROUTE_H
#define ROUTE_ROUTE_H

#include "base/base.h"
#include "params/params.h"
#include "smtp/smtp.h"

enum route_kind { ROUTE_LOCAL, ROUTE_NEXTHOP, ROUTE_LITERAL };
#define ROUTE_REASONS(X) \
	X(NO_DOMAIN, "no domain: taken as the default domain's") \
	X(DEFAULT_DOMAIN, "the default domain") \
	X(ALIAS_DOMAIN, "an alias domain") \
	X(LOCAL_DOMAIN, "a local domain") \
	X(REMOTE_ROUTE, "a remote domain with a route") \
	X(REMOTE_MX, "a remote domain without a route: its MX") \
	X(LITERAL, "an address literal") \
	X(MX, "no rule: the domain's MX")
enum route_reason {
#define REASON(name, text) ROUTE_BY_##name,
	ROUTE_REASONS(REASON)
#undef REASON
	ROUTE_REASON_COUNT
};
const char *route_reason_text(enum route_reason r);

struct route {
	enum route_kind kind;
	enum route_reason reason;
	const struct domain *domain; /* the section that decided, NULL: none */
	struct span nexthop;         /* in the forms of MISSION 0; empty for local */
};
/* Spans of *out point into the configuration or into a. */
void route_find(const struct server *s, const struct address *a, struct route *out);

enum relay_reason { RELAY_OWN_DOMAIN, RELAY_DOMAIN_YES, RELAY_DOMAIN_NEVER, RELAY_LISTED, RELAY_DEFAULT };
/* MISSION C5: the first rule that fits.  client NULL: none (local origin). */
bool relay_allows(const struct server *s, const struct client_list *exceptions, const struct sockaddr *client,
	const struct route *r, enum relay_reason *why);

#endif
