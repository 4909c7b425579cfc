/* auth_backend = pam: PLAIN and LOGIN; what they say goes to pamd. */
#include "authd.h"

#include <stdio.h>
#include <string.h>

enum { ANSWER_S = 60 /* a check takes up to 30, and may stand in line */ };

bool pam_is(const struct authd *a, size_t server)
{
	return strcmp(a->proc.config.servers[server].p.auth_backend, "pam") == 0;
}

uint32_t pam_offers(const struct authd *a)
{
	return a->pamd == NULL ? 0 : MECHANISM_PLAIN | MECHANISM_LOGIN;
}

/* PAM knows the users of this machine by their bare names. */
void pam_ask(struct login *l, const char *password)
{
	struct authd *a = l->authd;
	const char *domain = a->proc.config.servers[l->server].p.auth_default_domain, *at = strrchr(l->name, '@');
	struct span user = span_of(l->name);
	struct buffer client;
	if (at != NULL && domain[0] != '\0' && span_case_is(span_of(at + 1), domain))
		user.n = (size_t)(at - l->name);
	l->begun = true;
	if (a->pamd == NULL)
		return; /* login_run answers */
	buffer_init(&client, 100);
	login_put_client(l, &client);
	send_pam_check(a->pamd, (struct msg_pam_check){.serial = l->number, .server = l->server, .user = user, .password = span_of(password), .client = buffer_span(&client)}, -1);
	buffer_free(&client);
}

/* After a step: true, it is pamd's turn. */
bool pam_waits(struct login *l)
{
	if (!l->begun)
		return false;
	if (l->authd->pamd == NULL)
		login_failed(l);
	else
		login_wait_for_backend(l, ANSWER_S);
	return true;
}

int pam_on_answer(struct channel *c, struct message *m)
{
	HANDLE(c, m, pam_answer, said);
	struct authd *a = c->program;
	struct login *l = login_by_number(a, said.serial);
	if (l == NULL || l->wait != WAITS_BACKEND || !pam_is(a, l->server))
		return 0;
	if (said.status == PAM_GOOD)
		login_accept(l);
	else if (said.status == PAM_BAD)
		login_refuse(l, "PAM says no");
	else
		login_failed(l);
	return 0;
}

void pam_gone(struct authd *a)
{
	a->pamd = NULL;
	for (struct login *l = a->logins, *next; l != NULL; l = next) {
		next = l->next;
		if (l->wait == WAITS_BACKEND && pam_is(a, l->server))
			login_failed(l);
	}
	for (uint32_t i = 0; i < a->proc.config.servers_n; i++)
		if (pam_is(a, i))
			users_offer_all(a, i);
}
