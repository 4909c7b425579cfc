/* Kerberos, NTLM and certificates: what client and gssd say to each other passes through here. */
#include "authd.h"

#include <stdio.h>
#include <string.h>

enum { ANSWER_S = 30 };

bool integrated_is(const struct login *l)
{
	return l->mechanism == MECHANISM_EXTERNAL || ((l->mechanism & MECHANISMS_INTEGRATED) != 0 && l->authd->servers[l->server].dovecot == NULL);
}

void integrated_step(struct login *l)
{
	struct authd *a = l->authd;
	if (a->gssd == NULL || l->lost) {
		login_failed(l);
		return;
	}
	if (l->begun)
		send_gss_step(a->gssd, (struct msg_gss_step){.serial = l->number, .response = buffer_span(&l->response)}, -1);
	else
		send_gss_begin(a->gssd, (struct msg_gss_begin){.serial = l->number, .server = l->server, .mechanism = l->mechanism, .initial = !l->first, .response = buffer_span(&l->response),
			.certificates = buffer_span(&l->certificates)}, -1);
	l->begun = true;
	l->first = false;
	login_wait_for_backend(l, ANSWER_S);
}

void integrated_forget(const struct login *l)
{
	if (l->begun && !l->lost && l->authd->gssd != NULL)
		send_gss_end(l->authd->gssd, (struct msg_gss_end){.serial = l->number}, -1);
}

int integrated_on_offer(struct channel *c, struct message *m)
{
	HANDLE(c, m, gss_offer, offer);
	struct authd *a = c->program;
	if (offer.server >= SERVERS_MOST || (offer.mechanisms & ~(uint32_t)(MECHANISMS_INTEGRATED | MECHANISM_EXTERNAL)) != 0)
		return EBADMSG;
	a->servers[offer.server].integrated = offer.mechanisms;
	if (offer.server < a->proc.config.servers_n)
		users_offer_all(a, offer.server);
	return 0;
}

int integrated_on_answer(struct channel *c, struct message *m)
{
	HANDLE(c, m, gss_answer, got);
	struct authd *a = c->program;
	struct login *l = login_by_number(a, got.serial);
	char why[120];
	if (l == NULL || l->wait != WAITS_BACKEND || !integrated_is(l))
		return 0;
	switch (got.status) {
	case INTEGRATED_GOES_ON:
		login_challenge(l, got.text);
		break;
	case INTEGRATED_GOOD:
		login_take_name(l, got.text);
		login_accept(l);
		break;
	case INTEGRATED_BAD:
		(void)snprintf(why, sizeof why, "%.*s", (int)(got.text.n < sizeof why ? got.text.n : sizeof why - 1), got.text.at);
		login_refuse(l, why);
		break;
	default:
		login_failed(l);
		break;
	}
	return 0;
}

void integrated_gone(struct authd *a)
{
	a->gssd = NULL;
	for (struct login *l = a->logins, *next; l != NULL; l = next) {
		next = l->next;
		if (integrated_is(l) && l->wait == WAITS_BACKEND)
			login_failed(l);
		else if (integrated_is(l))
			l->lost = true;
	}
	for (uint32_t i = 0; i < a->proc.config.servers_n; i++) {
		a->servers[i].integrated = 0;
		users_offer_all(a, i);
	}
}
