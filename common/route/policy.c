#include "route/route.h"

bool policy_asks_tlsa(const struct outbound_params *p)
{
	return p->outbound_tls != OUT_TLS_NONE && (p->outbound_dane == DANE_YES || p->outbound_tls == OUT_TLS_DANE_ONLY);
}

/* MISSION C9: what the administrator asks for, raised by what the host publishes. */
enum tls_level policy_level(const struct outbound_params *p, const struct lookup_target *t)
{
	bool published = t->tlsa != NULL && policy_asks_tlsa(p);
	if (p->outbound_tls == OUT_TLS_NONE)
		return LEVEL_NONE;
	if (published && t->tlsa->usable)
		return LEVEL_DANE;
	switch (p->outbound_tls) {
	case OUT_TLS_DANE_ONLY: return LEVEL_REFUSED;
	case OUT_TLS_VERIFY: return LEVEL_VERIFY;
	case OUT_TLS_REQUIRE: return LEVEL_REQUIRE;
	default: return published ? LEVEL_REQUIRE : LEVEL_OPPORTUNISTIC; /* RFC 7672 2.2: encryption is due, though nothing can be checked */
	}
}

const char *policy_text(enum tls_level level)
{
	static const char *const texts[] = {[LEVEL_NONE] = "none", [LEVEL_OPPORTUNISTIC] = "opportunistic", [LEVEL_REQUIRE] = "required", [LEVEL_VERIFY] = "verified by its certificate",
		[LEVEL_DANE] = "verified by DANE", [LEVEL_REFUSED] = "dane-only, and there is no usable TLSA record"};
	return texts[level];
}

bool policy_needs_ca(const struct server *s)
{
	bool needed = s->p.out.outbound_tls == OUT_TLS_VERIFY;
	for (size_t i = 0; i < s->domains_n && !needed; i++)
		needed = s->domains[i].p.out.outbound_tls == OUT_TLS_VERIFY;
	return needed;
}
