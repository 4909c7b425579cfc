/* route: from an address to where its mail goes, as a pure function of the configuration. */
#ifndef ROUTE_ROUTE_H
#define ROUTE_ROUTE_H

#include "base/base.h"
#include "lookup/lookup.h"
#include "params/params.h"
#include "smtp/smtp.h"

enum route_kind { ROUTE_LOCAL, ROUTE_NEXTHOP, ROUTE_LITERAL };
enum route_reason {
#define ROUTE(name, ...) ROUTE_BY_##name,
#include "route/routes.def"
	ROUTE_REASON_COUNT
};
const char *route_reason_text(enum route_reason r);

struct route {
	enum route_kind kind;
	enum route_reason reason;
	const struct domain *domain; /* the section for the address's domain, NULL: none */
	struct span nexthop;         /* next hops in the forms of MISSION 0; empty for local */
	struct span fallback;        /* next hops for when none of nexthop's can be reached or looked up; empty: none */
};
/* Spans of *out point into the configuration or into a. */
void route_find(const struct server *s, const struct address *a, struct route *out);
/* The same; step is told each rule that was tried, and whether it fits. */
void route_trace(const struct server *s, const struct address *a, struct route *out,
	void (*step)(void *context, enum route_reason rule, bool fits), void *context);
/* The section for a name: the exact one, else the wildcard with the longest match (MISSION E4). NULL: none. */
const struct domain *route_section(const struct server *s, struct span name);
/* The same for a node of ETRN or ATRN: a name, or "@NAME" for it and all below it. */
const struct domain *route_node_section(const struct server *s, struct span node);
/* Whether a login may take the mail of the node by ATRN (RFC 2645). */
bool route_may_take(const struct server *s, struct span node, struct span login);
bool domain_may_be_taken(const struct domain *d, struct span login);
bool route_domain_is_own(const struct server *s, struct span domain); /* the default one, an alias or a local one */
/* Who logs in at a next hop (MISSION C4).  d: the section for the recipient's domain, NULL: none; nexthop: the route's, as in
 * struct route; fallback: it is the smart host that is tried when none of those can be reached. */
enum credentials { CREDENTIALS_NONE, CREDENTIALS_OF_SERVER, CREDENTIALS_OF_DOMAIN };
enum credentials route_credentials(const struct server *s, const struct domain *d, struct span nexthop, bool fallback);
bool domain_sets(const struct domain *d, const char *parameter); /* itself: it is not the server's */
/* What TLS a connection to an address must have. */
enum tls_level {
	LEVEL_NONE,
	LEVEL_OPPORTUNISTIC, /* when it can be had */
	LEVEL_REQUIRE,       /* whoever is at the other end */
	LEVEL_VERIFY,        /* with a certificate of its name that a CA vouches for */
	LEVEL_STS,           /* the same, of the host's own name, since the domain's MTA-STS policy demands it (RFC 8461) */
	LEVEL_DANE,          /* with one that its TLSA records name (RFC 7672) */
	LEVEL_REFUSED,       /* none would do: dane-only without records of use */
};
/* What a message asks for on its way (RFC 8689): it makes destinations of their own, whose text begins with the prefix. */
enum tls_demand {
	DEMAND_NONE,
	DEMAND_TLS,  /* REQUIRETLS */
	DEMAND_LESS, /* TLS-Required: No: what hosts publish does not matter */
	DEMAND_COUNT
};
const char *demand_prefix(enum tls_demand d);
enum tls_demand demand_take(struct span *nexthop); /* takes the prefix off */
enum tls_level policy_level(const struct outbound_params *p, enum tls_demand demand, const struct lookup_target *t);
bool policy_asks_tlsa(const struct outbound_params *p, enum tls_demand demand); /* do TLSA records matter? */
bool policy_asks_sts(const struct outbound_params *p, enum tls_demand demand);  /* does MTA-STS? */
const char *policy_text(enum tls_level level);
/* One text for a route: "NEXTHOPS" or "NEXTHOPS;FALLBACK".  Equal texts and sections are one destination. */
void route_put_text(struct buffer *b, const struct route *r);

enum relay_reason {
#define RELAY(name, ...) RELAY_##name,
#include "route/relays.def"
	RELAY_REASON_COUNT
};
const char *relay_reason_text(enum relay_reason r);
/* Who wants to send. */
struct relay_client {
	const struct sockaddr *address; /* NULL: none (local origin) */
	const struct reverse *names;    /* NULL: not looked up yet */
	bool logged_in;
};
enum relay_answer { RELAY_REFUSED, RELAY_TAKEN, RELAY_NEEDS_NAMES /* of the client, then once more */, RELAY_UNKNOWN /* the DNS does not say now */ };
/* MISSION C5: the first rule that fits decides. */
enum relay_answer relay_decide(const struct server *s, const struct client_list *exceptions, const struct relay_client *client,
	const struct route *r, enum relay_reason *why);

#endif
