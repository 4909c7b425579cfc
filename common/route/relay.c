/* Who may send to an address. */
#include "route/route.h"

struct applicant {
	const struct server *server;
	const struct client_list *exceptions;
	const struct relay_client *client;
	const struct route *route;
};

static enum listed fits(bool whether)
{
	return whether ? LISTED_YES : LISTED_NO;
}

static enum listed is_own(const struct applicant *a)
{
	return fits(a->route->kind == ROUTE_LOCAL);
}

static enum listed domain_says(const struct applicant *a, enum domain_relay word)
{
	const struct domain *d = a->route->domain;
	return fits(d != NULL && d->p.relay == (int64_t)word);
}

static enum listed domain_says_yes(const struct applicant *a)
{
	return domain_says(a, DOMAIN_RELAY_YES);
}

static enum listed domain_says_never(const struct applicant *a)
{
	return domain_says(a, DOMAIN_RELAY_NEVER);
}

static enum listed has_logged_in(const struct applicant *a)
{
	return fits(a->client->logged_in && a->server->p.relay_authenticated == 0);
}

static enum listed is_listed(const struct applicant *a)
{
	return a->client->address == NULL ? LISTED_NO : reverse_listed(a->exceptions, a->client->address, a->client->names);
}

static enum listed is_any_client(const struct applicant *a)
{
	(void)a;
	return LISTED_YES;
}

enum answer { yes, no, as_relay, not_as_relay };
static const struct {
	enum listed (*test)(const struct applicant *);
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

enum relay_answer relay_decide(const struct server *s, const struct client_list *exceptions, const struct relay_client *client,
	const struct route *r, enum relay_reason *why)
{
	struct applicant a = {s, exceptions, client, r};
	bool open = s->p.relay == 1, taken = false;
	size_t i = 0;
	enum listed fit;
	while ((fit = rules[i].test(&a)) == LISTED_NO)
		i++;
	*why = (enum relay_reason)i;
	if (fit != LISTED_YES)
		return fit == LISTED_NEEDS_NAMES ? RELAY_NEEDS_NAMES : RELAY_UNKNOWN;
	switch (rules[i].answer) {
	case yes: taken = true; break;
	case no: break;
	case as_relay: taken = open; break;
	case not_as_relay: taken = !open; break;
	}
	return taken ? RELAY_TAKEN : RELAY_REFUSED;
}
