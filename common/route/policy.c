#include "route/route.h"

#include <string.h>

static const char *const prefixes[] = {[DEMAND_NONE] = "", [DEMAND_TLS] = "requiretls:", [DEMAND_LESS] = "tlsoptional:"};

const char *demand_prefix(enum tls_demand d)
{
	return prefixes[d];
}

enum tls_demand demand_take(struct span *nexthop)
{
	for (enum tls_demand d = DEMAND_TLS; d < DEMAND_COUNT; d++) {
		size_t n = strlen(prefixes[d]);
		if (nexthop->n > n && memcmp(nexthop->at, prefixes[d], n) == 0) {
			*nexthop = span_from(*nexthop, n);
			return d;
		}
	}
	return DEMAND_NONE;
}

bool policy_asks_tlsa(const struct outbound_params *p, enum tls_demand demand)
{
	if (p->outbound_tls == OUT_TLS_NONE)
		return false;
	return p->outbound_tls == OUT_TLS_DANE_ONLY || demand == DEMAND_TLS || (p->outbound_dane == DANE_YES && demand != DEMAND_LESS);
}

bool policy_asks_sts(const struct outbound_params *p, enum tls_demand demand)
{
	return p->outbound_tls != OUT_TLS_NONE && p->outbound_tls != OUT_TLS_DANE_ONLY && p->outbound_mta_sts == STS_YES && demand != DEMAND_LESS;
}

/* MISSION C9: what the administrator and the sender ask for, raised by what the host publishes. */
enum tls_level policy_level(const struct outbound_params *p, enum tls_demand demand, const struct lookup_target *t)
{
	bool published = t->tlsa != NULL && policy_asks_tlsa(p, demand);
	if (p->outbound_tls == OUT_TLS_NONE)
		return demand == DEMAND_TLS ? LEVEL_REFUSED : LEVEL_NONE;
	if (published && t->tlsa->usable)
		return LEVEL_DANE;
	if (p->outbound_tls == OUT_TLS_DANE_ONLY)
		return LEVEL_REFUSED;
	if (t->sts == STS_ENFORCE && policy_asks_sts(p, demand))
		return LEVEL_STS;
	if (p->outbound_tls == OUT_TLS_VERIFY || demand == DEMAND_TLS)
		return LEVEL_VERIFY;
	/* RFC 7672 2.2: encryption is due, though nothing can be checked */
	return p->outbound_tls == OUT_TLS_REQUIRE || published ? LEVEL_REQUIRE : LEVEL_OPPORTUNISTIC;
}

const char *policy_text(enum tls_level level)
{
	static const char *const texts[] = {[LEVEL_NONE] = "none", [LEVEL_OPPORTUNISTIC] = "opportunistic", [LEVEL_REQUIRE] = "required", [LEVEL_VERIFY] = "verified by its certificate",
		[LEVEL_STS] = "verified by its certificate (MTA-STS)", [LEVEL_DANE] = "verified by DANE", [LEVEL_REFUSED] = "dane-only, and there is no usable TLSA record; or the message requires TLS, and outbound_tls = none"};
	return texts[level];
}
