/* Who may send to an address. */
#include "route/route.h"

struct applicant {
	const struct client_list *exceptions;
	const struct sockaddr *client;
	const struct route *route;
};

static bool is_own(const struct applicant *a)
{
	return a->route->kind == ROUTE_LOCAL;
}

static bool domain_says(const struct applicant *a, enum domain_relay word)
{
	const struct domain *d = a->route->domain;
	return d != NULL && d->p.relay == (int64_t)word;
}

static bool domain_says_yes(const struct applicant *a)
{
	return domain_says(a, DOMAIN_RELAY_YES);
}

static bool domain_says_never(const struct applicant *a)
{
	return domain_says(a, DOMAIN_RELAY_NEVER);
}

static bool is_listed(const struct applicant *a)
{
	return a->client != NULL && client_list_has(a->exceptions, a->client);
}

static bool is_any_client(const struct applicant *a)
{
	(void)a;
	return true;
}

enum answer { yes, no, as_relay, not_as_relay };
static const struct {
	bool (*test)(const struct applicant *);
	enum answer answer;
	const char *text;
} rules[] = {
#define RELAY(name, test, answer, text) {test, answer, text},
#include "route/relays.def"
};

const char *relay_reason_text(enum relay_reason r)
{
	return r < RELAY_REASON_COUNT ? rules[r].text : "";
}

bool relay_allows(const struct server *s, const struct client_list *exceptions, const struct sockaddr *client,
	const struct route *r, enum relay_reason *why)
{
	struct applicant a = {exceptions, client, r};
	bool open = s->p.relay == 1;
	size_t i = 0;
	while (!rules[i].test(&a))
		i++;
	*why = (enum relay_reason)i;
	switch (rules[i].answer) {
	case yes: return true;
	case no: return false;
	case as_relay: return open;
	case not_as_relay: return !open;
	}
	return false;
}
