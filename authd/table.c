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

enum { SCRAM = MECHANISM_SCRAM_SHA_256_PLUS | MECHANISM_SCRAM_SHA_256 };

uint32_t table_offers(const struct authd *a, size_t server)
{
	uint32_t scram = a->proc.config.servers[server].p.auth_map_scram == 1 ? (uint32_t)SCRAM : 0;
	return a->maps == NULL ? 0 : MECHANISM_PLAIN | MECHANISM_LOGIN | scram;
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
	passwd_free(&l->keys);
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
	struct span hash = span_until(&value, ':'); /* the keys of SCRAM may follow */
	const struct passwd_row row = {.hash = hash};
	bool is_hash = hash.n > 3 && hash.at[0] == '$'; /* what crypt(3) takes besides is broken long since */
	return passwd_verify(is_hash ? &row : NULL, span_of(l->password));
}

/* ---- SCRAM: the keys have to be there before the first step ---- */

/* "n,,n=NAME,r=...": the name, with =2C and =3D for what would end it (RFC 5802 5.1, 7). */
static bool take_scram_name(struct login *l)
{
	struct span rest = buffer_span(&l->response), field;
	char name[PASSWD_NAME_MOST + 1];
	size_t n = 0;
	(void)span_until(&rest, ','); /* the channel's binding */
	(void)span_until(&rest, ','); /* as whom */
	field = span_until(&rest, ',');
	if (field.n < 3 || field.at[0] != 'n' || field.at[1] != '=')
		return false;
	for (field = span_from(field, 2); field.n > 0 && n < sizeof name - 1; field = span_from(field, 1)) {
		struct span code = {field.at, field.n < 3 ? field.n : 3};
		bool comma = span_is(code, "=2C");
		if (field.at[0] == '=' && !comma && !span_is(code, "=3D"))
			return false;
		name[n++] = comma ? ',' : field.at[0];
		field = field.at[0] == '=' ? span_from(field, 2) : field;
	}
	name[n] = '\0';
	return field.n == 0 && memchr(name, '\0', n) == NULL && sasl_take_name(l, name) == 0;
}

bool table_asks_first(struct login *l)
{
	struct buffer words = l->response;
	if (!table_is(l->authd, l->server) || (l->mechanism & SCRAM) == 0 || l->keys_asked || l->response.n == 0)
		return false;
	l->keys_asked = true;
	if (!take_scram_name(l))
		return false; /* libgsasl says no to it, or nobody has such a name */
	buffer_init(&l->response, LOGIN_RESPONSE);
	l->wants_keys = true;
	login_wait_for_backend(l, ANSWER_S);
	l->response = words; /* they are not taken yet */
	ask(l);
	return true;
}

static void take_keys(struct login *l, struct span value)
{
	struct buffer line;
	unsigned bad;
	buffer_init(&line, 4096);
	buffer_printf(&line, "x:%.*s\n", SPAN_ARG(span_trim(value)));
	if (value.n > 0 && buffer_ok(&line) && passwd_parse(buffer_span(&line), &l->keys, &bad) != 0)
		l->keys = (struct passwd_file){.n = 0}; /* a hash alone: as nobody */
	buffer_wipe(&line);
	l->wants_keys = false;
	login_resume(l);
}

const struct passwd_row *table_row(const struct login *l)
{
	return l->keys.n > 0 ? &l->keys.rows[0] : NULL;
}

int table_on_answer(struct channel *c, struct message *m)
{
	HANDLE(c, m, map_answer, said);
	struct authd *a = c->program;
	struct login *l = login_by_number(a, said.serial);
	if (l == NULL || l->wait != WAITS_BACKEND || (l->password == NULL && !l->wants_keys))
		return 0;
	if (said.status == ANSWER_FAILED)
		login_failed(l);
	else if (l->wants_keys)
		take_keys(l, said.status == ANSWER_ADDRESSES ? said.value : (struct span){"", 0});
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
		if (l->wait == WAITS_BACKEND && (l->password != NULL || l->wants_keys))
			ask(l);
	for (uint32_t i = 0; i < a->proc.config.servers_n; i++)
		if (table_is(a, i))
			users_offer_all(a, i);
}
