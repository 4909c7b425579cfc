/* The client's half of logins at other servers: smtp passes words, and has no password (MISSION C4). */
#include "authd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PASSWORD_MOST = 1024, ROUNDS_MOST = 1000000 /* of SCRAM, which the peer chooses */, OUTWARD_MOST = 4000 };

struct outward_password {
	uint32_t server;
	char *domain, *text; /* domain "": the server's own */
	struct outward_password *next;
};

struct outward {
	struct authd *authd;
	struct channel *agent;
	uint64_t serial;
	uint32_t server, mechanism;
	char *domain, *host;
	Gsasl_session *gsasl;
	struct buffer challenge;
	bool begun, queued;
	uint64_t number;       /* at gssc; 0: the mechanisms are libgsasl's */
	bool gssc_asked;       /* it is to say something */
	struct outward *next, *next_turn;
};

/* ---- passwords ---- */

static void passwords_free(struct outward_password *p)
{
	for (struct outward_password *next; p != NULL; p = next) {
		next = p->next;
		if (p->text != NULL)
			explicit_bzero(p->text, strlen(p->text));
		free(p->text);
		free(p->domain);
		free(p);
	}
}

/* The first line of the file. */
static char *read_password(int fd, const char **fault)
{
	char bytes[PASSWORD_MOST + 2];
	off_t size = lseek(fd, 0, SEEK_END);
	size_t n = size < 0 ? 0 : (size_t)size < sizeof bytes ? (size_t)size : sizeof bytes;
	*fault = size < 0 || pread_all(fd, bytes, n, 0) != 0 ? "cannot be read" : NULL;
	struct span rest = {bytes, n}, line = span_until(&rest, '\n');
	if (line.n > 0 && line.at[line.n - 1] == '\r')
		line.n--;
	if (*fault == NULL && (line.n == 0 || line.n > PASSWORD_MOST || memchr(line.at, '\0', line.n) != NULL))
		*fault = line.n == 0 ? "its first line is empty" : "its first line is no password: too long, or with a NUL";
	char *text = *fault == NULL ? span_dup(line) : NULL;
	explicit_bzero(bytes, sizeof bytes);
	return text;
}

int outward_on_file(struct channel *c, struct message *m)
{
	HANDLE(c, m, password_file, said);
	struct authd *a = c->program;
	const char *fault;
	if (m->fds_n != 1 || said.server >= a->proc.config.servers_n)
		return EBADMSG;
	struct outward_password *p = calloc(1, sizeof *p);
	char *text = p == NULL ? NULL : read_password(m->fds[0], &fault);
	if (text == NULL) {
		LOG(&a->proc.log, password_unusable, NO_ID, F("server", span_of(a->proc.config.servers[said.server].name)), F("file", said.file),
			F("reason", span_of(p == NULL || fault == NULL ? "no memory" : fault)));
		free(p);
		return 0;
	}
	*p = (struct outward_password){.server = said.server, .domain = span_dup(said.domain), .text = text, .next = a->fresh_passwords};
	a->fresh_passwords = p;
	return p->domain == NULL ? ENOMEM : 0;
}

int outward_on_files_end(struct channel *c, struct message *m)
{
	HANDLE(c, m, passwords_end, end);
	struct authd *a = c->program;
	passwords_free(a->passwords);
	a->passwords = a->fresh_passwords;
	a->fresh_passwords = NULL;
	return 0;
}

static const char *password_of(const struct outward *o)
{
	for (const struct outward_password *p = o->authd->passwords; p != NULL; p = p->next)
		if (p->server == o->server && strcmp(p->domain, o->domain) == 0)
			return p->text;
	return NULL;
}

/* NULL: the domain is gone. */
static const struct outbound_params *params_of(const struct outward *o)
{
	const struct server *s = &o->authd->proc.config.servers[o->server];
	const struct domain *d = o->domain[0] == '\0' ? NULL : server_domain(s, span_of(o->domain));
	return o->domain[0] == '\0' ? &s->p.out : d == NULL ? NULL : &d->p.out;
}

/* ---- the conversation ---- */

static void end(struct outward *o)
{
	struct authd *a = o->authd;
	struct outward **p = &a->outward;
	while (*p != o)
		p = &(*p)->next;
	*p = o->next;
	for (p = &a->outward_turns; o->queued && *p != NULL; p = &(*p)->next_turn)
		if (*p == o) {
			*p = o->next_turn;
			break;
		}
	if (o->gsasl != NULL)
		gsasl_finish(o->gsasl);
	if (o->number != 0 && a->gssc != NULL)
		send_gssc_end(a->gssc, (struct msg_gssc_end){.serial = o->number}, -1);
	buffer_free(&o->challenge);
	free(o->domain);
	free(o->host);
	free(o);
	a->outward_n--;
}

static void fail(struct outward *o, const char *why)
{
	send_prove_answer(o->agent, (struct msg_prove_answer){.serial = o->serial, .status = PROVE_FAILED, .text = span_of(why)}, -1);
	end(o);
}

/* A peer that asks for more rounds than a login may cost wants something else (RFC 5802 9: the count is the server's). */
static bool asks_too_much(const struct outward *o)
{
	const char *at = o->challenge.n == 0 ? NULL : memmem(o->challenge.at, o->challenge.n, ",i=", 3);
	uint64_t rounds = 0;
	if ((o->mechanism & (MECHANISM_SCRAM_SHA_256 | MECHANISM_SCRAM_SHA_256_PLUS)) == 0 || at == NULL)
		return false;
	struct span rest = {at + 3, o->challenge.n - (size_t)(at + 3 - o->challenge.at)};
	return parse_u64(span_until(&rest, ','), ROUNDS_MOST, &rounds) != 0;
}

static void step(struct outward *o)
{
	char *out = NULL;
	size_t n = 0;
	bool first = !o->begun;
	o->begun = true;
	if (first && o->mechanism == MECHANISM_LOGIN) { /* not every server takes the name with AUTH */
		send_prove_answer(o->agent, (struct msg_prove_answer){.serial = o->serial, .status = PROVE_GOES_ON, .mechanism = o->mechanism}, -1);
		return;
	}
	if (asks_too_much(o)) {
		fail(o, "the peer asks for too many rounds of SCRAM");
		return;
	}
	int r = gsasl_step(o->gsasl, o->challenge.n == 0 ? NULL : o->challenge.at, o->challenge.n, &out, &n);
	buffer_clear(&o->challenge);
	if (r == GSASL_OK || r == GSASL_NEEDS_MORE)
		send_prove_answer(o->agent, (struct msg_prove_answer){.serial = o->serial, .status = r == GSASL_OK ? PROVE_DONE : PROVE_GOES_ON, .mechanism = o->mechanism,
			.first = first, .text = {out, n}}, -1);
	if (out != NULL)
		explicit_bzero(out, n);
	gsasl_free(out);
	if (r != GSASL_OK && r != GSASL_NEEDS_MORE)
		fail(o, r == GSASL_AUTHENTICATION_ERROR ? "the peer did not prove that it knows the password" : gsasl_strerror(r));
}

/* One a turn, as in login.c: a step hashes for some 30 ms. */
void outward_run(struct authd *a)
{
	struct outward *o = a->outward_turns;
	if (o == NULL)
		return;
	a->outward_turns = o->next_turn;
	o->queued = false;
	step(o);
}

static void take_turn(struct outward *o)
{
	static const struct timeval now = {0};
	struct outward **last = &o->authd->outward_turns;
	while (*last != NULL)
		last = &(*last)->next_turn;
	*last = o;
	o->next_turn = NULL;
	o->queued = true;
	(void)event_add(o->authd->turn, &now);
}

static uint32_t best_of(uint32_t offered, bool bound)
{
	static const uint32_t order[] = {MECHANISM_SCRAM_SHA_256_PLUS, MECHANISM_SCRAM_SHA_256, MECHANISM_PLAIN, MECHANISM_LOGIN};
	for (size_t i = 0; i < COUNT_OF(order); i++)
		if ((offered & order[i]) != 0 && (bound || order[i] != MECHANISM_SCRAM_SHA_256_PLUS))
			return order[i];
	return 0;
}

/* Kerberos and NTLM are gssc's. */
static const char *begin_integrated(struct outward *o, uint32_t offered, const char *user, const char *password)
{
	struct authd *a = o->authd;
	offered &= MECHANISM_GSSAPI | MECHANISM_NTLM;
	if (offered == 0)
		return "the peer offers neither GSSAPI nor NTLM";
	if (a->gssc == NULL)
		return "gssc is not there";
	o->number = ++a->outward_made;
	o->gssc_asked = true;
	send_gssc_begin(a->gssc, (struct msg_gssc_begin){.serial = o->number, .mechanisms = offered, .user = span_of(user), .password = span_of(password), .host = span_of(o->host)}, -1);
	return NULL;
}

/* What is wrong, NULL: nothing. */
static const char *begin(struct outward *o, const struct msg_prove_begin *m)
{
	o->domain = span_dup(m->domain);
	o->host = span_dup(m->host);
	if (o->domain == NULL || o->host == NULL)
		return "not enough memory";
	const struct outbound_params *p = params_of(o);
	const char *password = password_of(o), *user = p == NULL ? "" : p->outbound_user;
	if (password == NULL || user[0] == '\0')
		return "outbound_password_file holds no password";
	if (p->outbound_auth == AUTH_INTEGRATED)
		return begin_integrated(o, m->mechanisms, user, password);
	o->mechanism = best_of(m->mechanisms, m->exporter.n > 0 || m->unique.n > 0);
	if (o->mechanism == 0)
		return "the peer offers no mechanism for a login";
	if (gsasl_client_start(o->authd->gsasl, sasl_word(o->mechanism), &o->gsasl) != GSASL_OK)
		return "not enough memory";
	if (o->mechanism == MECHANISM_SCRAM_SHA_256_PLUS) /* without PLUS libgsasl refuses to know them */
		sasl_bind(o->gsasl, m->exporter, m->unique);
	bool set = gsasl_property_set(o->gsasl, GSASL_AUTHID, user) == GSASL_OK && gsasl_property_set(o->gsasl, GSASL_PASSWORD, password) == GSASL_OK &&
		gsasl_property_set(o->gsasl, GSASL_SERVICE, "smtp") == GSASL_OK && gsasl_property_set(o->gsasl, GSASL_HOSTNAME, o->host) == GSASL_OK;
	return set ? NULL : "not enough memory";
}

static struct outward *find(struct authd *a, const struct channel *agent, uint64_t serial)
{
	struct outward *o = a->outward;
	while (o != NULL && (o->agent != agent || o->serial != serial))
		o = o->next;
	return o;
}

int outward_on_begin(struct channel *c, struct message *m)
{
	HANDLE(c, m, prove_begin, said);
	struct authd *a = c->program;
	if (said.server >= a->proc.config.servers_n || find(a, c, said.serial) != NULL)
		return EBADMSG;
	struct outward *o = a->outward_n >= OUTWARD_MOST ? NULL : calloc(1, sizeof *o);
	if (o == NULL) {
		send_prove_answer(c, (struct msg_prove_answer){.serial = said.serial, .status = PROVE_FAILED, .text = SPAN_LIT("too many logins at a time")}, -1);
		return 0;
	}
	*o = (struct outward){.authd = a, .agent = c, .serial = said.serial, .server = said.server, .next = a->outward};
	a->outward = o;
	a->outward_n++;
	buffer_init(&o->challenge, LOGIN_RESPONSE);
	const char *fault = begin(o, &said);
	if (fault != NULL)
		fail(o, fault);
	else if (o->number == 0)
		take_turn(o);
	return 0;
}

int outward_on_step(struct channel *c, struct message *m)
{
	HANDLE(c, m, prove_step, said);
	struct outward *o = find(c->program, c, said.serial);
	if (o == NULL) { /* begun with the authd before this one */
		send_prove_answer(c, (struct msg_prove_answer){.serial = said.serial, .status = PROVE_FAILED, .text = SPAN_LIT("authd was replaced")}, -1);
		return 0;
	}
	if (o->number != 0) {
		if (o->gssc_asked)
			return EBADMSG;
		o->gssc_asked = true;
		send_gssc_step(o->authd->gssc, (struct msg_gssc_step){.serial = o->number, .challenge = said.challenge}, -1);
		return 0;
	}
	buffer_put_span(&o->challenge, said.challenge);
	if (o->queued || !buffer_ok(&o->challenge))
		return EBADMSG;
	take_turn(o);
	return 0;
}

int outward_on_end(struct channel *c, struct message *m)
{
	HANDLE(c, m, prove_end, said);
	struct outward *o = find(c->program, c, said.serial);
	if (o != NULL)
		end(o);
	return 0;
}

int outward_on_answer(struct channel *c, struct message *m)
{
	HANDLE(c, m, gssc_answer, got);
	struct authd *a = c->program;
	struct outward *o = a->outward;
	while (o != NULL && o->number != got.serial)
		o = o->next;
	if (o == NULL || got.serial == 0) /* its agent has let go of it */
		return 0;
	o->gssc_asked = false;
	if (got.status == PROVE_FAILED)
		o->number = 0; /* it has ended there */
	send_prove_answer(o->agent, (struct msg_prove_answer){.serial = o->serial, .status = got.status, .mechanism = got.mechanism, .first = got.first, .text = got.text}, -1);
	if (got.status == PROVE_FAILED)
		end(o);
	return 0;
}

void outward_gssc_gone(struct authd *a)
{
	struct outward *next;
	a->gssc = NULL;
	for (struct outward *o = a->outward; o != NULL; o = next) {
		next = o->next;
		if (o->number != 0)
			fail(o, "gssc was replaced");
	}
}

void outward_agent_gone(struct authd *a, const struct channel *agent)
{
	struct outward *next;
	for (struct outward *o = a->outward; o != NULL; o = next) {
		next = o->next;
		if (o->agent == agent)
			end(o);
	}
}
