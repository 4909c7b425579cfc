/* auth_backend = sql, ldap: a table that maps asks holds a hash for each login; it is compared here. */
#include "authd.h"

#include <stdlib.h>
#include <string.h>

enum { ANSWER_S = 30 };

bool table_is(const struct authd *a, size_t server)
{
	const char *kind = a->proc.config.servers[server].p.auth_backend;
	return strcmp(kind, "sql") == 0 || strcmp(kind, "ldap") == 0;
}

uint32_t table_offers(const struct authd *a)
{
	return a->maps == NULL ? 0 : MECHANISM_PLAIN | MECHANISM_LOGIN;
}

static void ask(const struct login *l)
{
	if (l->authd->maps != NULL)
		send_map_query(l->authd->maps, (struct msg_map_query){.serial = l->number, .server = l->server, .question = ASK_SECRET, .address = span_of(l->name)}, -1);
}

void table_ask(struct login *l, const char *password)
{
	l->begun = true;
	l->password = strdup(password);
	if (l->password != NULL)
		ask(l);
}

void table_forget(struct login *l)
{
	if (l->password != NULL)
		explicit_bzero(l->password, strlen(l->password));
	free(l->password);
	l->password = NULL;
}

/* Like pam_waits: after a step. */
bool table_waits(struct login *l)
{
	if (!l->begun)
		return false;
	if (l->password == NULL)
		login_failed(l);
	else
		login_wait_for_backend(l, ANSWER_S);
	return true;
}

/* What a table has: a hash of crypt(5), with {CRYPT} in front as directories write it. */
static bool matches(const struct login *l, struct span value)
{
	static const char prefix[] = "{CRYPT}";
	value = span_trim(value);
	if (value.n > sizeof prefix - 1 && span_case_is((struct span){value.at, sizeof prefix - 1}, prefix))
		value = span_from(value, sizeof prefix - 1);
	const struct passwd_row row = {.hash = value};
	bool is_hash = value.n > 3 && value.at[0] == '$'; /* what crypt(3) takes besides is broken long since */
	return passwd_verify(is_hash ? &row : NULL, span_of(l->password));
}

int table_on_answer(struct channel *c, struct message *m)
{
	HANDLE(c, m, map_answer, said);
	struct authd *a = c->program;
	struct login *l = login_by_number(a, said.serial);
	if (l == NULL || l->wait != WAITS_BACKEND || l->password == NULL)
		return 0;
	if (said.status == ANSWER_FAILED)
		login_failed(l);
	else if (matches(l, said.status == ANSWER_ADDRESSES ? said.value : (struct span){"", 0}))
		login_accept(l);
	else
		login_refuse(l, "auth_map has nobody of that name and password");
	return 0;
}

/* A reload replaces maps: who waits is asked about again. */
void table_linked(struct authd *a)
{
	for (const struct login *l = a->logins; l != NULL; l = l->next)
		if (l->wait == WAITS_BACKEND && l->password != NULL)
			ask(l);
	for (uint32_t i = 0; i < a->proc.config.servers_n; i++)
		if (table_is(a, i))
			users_offer_all(a, i);
}
