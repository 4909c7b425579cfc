/* AUTH as a client (RFC 4954): authd says the responses, this passes them on in base64. */
#include "smtp_agent.h"
#include "route/route.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { AUTH_LINE_MOST = 512, MECHANISMS_OF_DOMAIN = MECHANISM_GSSAPI | MECHANISM_NTLM };
static const struct { uint32_t bit; const char *word; } mechanisms[] = {
#define MECHANISM(name, bit, word) {1u << (bit), word},
	MECHANISMS(MECHANISM)
#undef MECHANISM
};

void auth_take_extension(struct conn *c, struct span words)
{
	for (struct span word; (word = span_word(&words, " ")).n > 0;)
		for (size_t i = 0; i < COUNT_OF(mechanisms); i++)
			if (span_case_is(word, mechanisms[i].word) && (mechanisms[i].bit & (MECHANISMS_BASIC | MECHANISMS_OF_DOMAIN)) != 0)
				c->mechanisms |= mechanisms[i].bit;
}

static const struct domain *section_of(const struct conn *c)
{
	return c->hop->domain[0] == '\0' ? NULL : server_domain(&c->agent->proc.config.servers[c->hop->server], span_of(c->hop->domain));
}

static enum credentials credentials_of(const struct conn *c)
{
	struct span rest = span_of(c->hop->route);
	if (c->hop->lmtp || c->hop->turned)
		return CREDENTIALS_NONE;
	return route_credentials(&c->agent->proc.config.servers[c->hop->server], section_of(c), span_until(&rest, ';'), c->target.fallback);
}

bool auth_is_due(const struct conn *c)
{
	return !c->logged_in && credentials_of(c) != CREDENTIALS_NONE;
}

static const struct outbound_params *out_of(const struct conn *c, enum credentials which)
{
	return which == CREDENTIALS_OF_DOMAIN ? &section_of(c)->p.out : &agent_params(c->agent, c->hop->server)->out;
}

static const char *user_of(const struct conn *c)
{
	enum credentials which = credentials_of(c);
	return which == CREDENTIALS_NONE ? "nobody" : out_of(c, which)->outbound_user;
}

static void forget(struct conn *c)
{
	struct login *l = c->login, **p = &c->agent->logins;
	if (l == NULL)
		return;
	while (*p != l)
		p = &(*p)->next;
	*p = l->next;
	c->login = NULL;
	if (l->held.n > 0)
		explicit_bzero(l->held.at, l->held.n);
	buffer_free(&l->held);
	free(l);
}

void auth_forget(struct conn *c)
{
	if (c->login != NULL && c->agent->authd != NULL && !c->login->ended)
		send_prove_end(c->agent->authd, (struct msg_prove_end){.serial = c->login->serial}, -1);
	forget(c);
}

/* Nobody can log in here for now: the mail waits, and so does what stands behind it. */
static void put_off(struct conn *c, int code, struct span enhanced, const char *why)
{
	struct job *j = c->job;
	char text[700];
	(void)snprintf(text, sizeof text, "%s: no login as %s: %s", j->peer, user_of(c), why);
	LOG(&c->agent->proc.log, login_failed, qid_span(&j->id), F("peer", span_of(j->peer)), F("sasl_username", span_of(user_of(c))), F("reason", span_of(why)));
	job_set_all(j, OUTCOME_DEFERRED, code, enhanced, span_of(text));
	c->job = NULL;
	conn_close(c);
	job_finish(j, true);
}

void auth_begin(struct conn *c)
{
	struct buffer exporter, unique;
	enum credentials which = credentials_of(c);
	struct agent *a = c->agent;
	uint32_t offered = c->mechanisms & (out_of(c, which)->outbound_auth == AUTH_INTEGRATED ? (uint32_t)MECHANISMS_OF_DOMAIN : (uint32_t)MECHANISMS_BASIC);
	if (c->ssl == NULL && out_of(c, which)->outbound_auth_cleartext == 0) {
		put_off(c, 0, SPAN_LIT("4.7.11"), "the connection has no TLS, and outbound_auth_cleartext = no");
		return;
	}
	if (offered == 0) {
		put_off(c, 0, SPAN_LIT("4.7.0"), "the peer offers no mechanism for a login");
		return;
	}
	struct login *l = a->authd == NULL ? NULL : calloc(1, sizeof *l);
	if (l == NULL) {
		put_off(c, 0, SPAN_LIT("4.3.0"), "authd is not there");
		return;
	}
	*l = (struct login){.conn = c, .serial = ++a->serial, .asks = true, .next = a->logins};
	a->logins = c->login = l;
	buffer_init(&l->held, 2 * LOGIN_RESPONSE);
	buffer_init(&exporter, 200);
	buffer_init(&unique, 200);
	if (c->ssl != NULL)
		tls_put_bindings(c->ssl, &exporter, &unique);
	conn_state(c, CONN_AUTH, hop_out(c->hop)->outbound_command_timeout);
	send_prove_begin(a->authd, (struct msg_prove_begin){.serial = l->serial, .server = c->hop->server,
		.domain = span_of(which == CREDENTIALS_OF_DOMAIN ? c->hop->domain : ""), .mechanisms = offered, .host = span_of(c->target.name),
		.exporter = buffer_span(&exporter), .unique = buffer_span(&unique)}, -1);
	buffer_free(&exporter);
	buffer_free(&unique);
}

/* ---- what authd says ---- */

static bool put_base64(struct buffer *b, struct span bytes)
{
	if (buffer_reserve(b, b->n + bytes.n / 3 * 4 + 8) != 0)
		return false;
	b->n += (size_t)EVP_EncodeBlock((unsigned char *)b->at + b->n, (const unsigned char *)bytes.at, (int)bytes.n);
	return true;
}

static const char *word_of(uint32_t mechanism)
{
	for (size_t i = 0; i < COUNT_OF(mechanisms); i++)
		if (mechanism == mechanisms[i].bit)
			return mechanisms[i].word;
	return "";
}

/* AUTH is a command, and no longer than those are (RFC 4954 4): then the first response goes in a line of its own. */
static void say_auth(struct conn *c, const struct msg_prove_answer *got, struct buffer **to)
{
	const char *word = word_of(got->mechanism);
	bool fits = sizeof "AUTH  \r\n" - 1 + strlen(word) + (got->text.n + 2) / 3 * 4 <= AUTH_LINE_MOST;
	buffer_printf(&c->out, "AUTH %s", word);
	if (fits)
		buffer_puts(&c->out, got->first == 0 ? "" : got->text.n > 0 ? " " : " =");
	else
		*to = &c->login->held;
}

static void say_response(struct conn *c, const struct msg_prove_answer *got)
{
	struct login *l = c->login;
	struct buffer *to = &c->out;
	if (!l->begun)
		say_auth(c, got, &to);
	l->begun = true;
	if (!put_base64(to, got->text)) {
		dialog_broken(c, "not enough memory");
		return;
	}
	buffer_puts(&c->out, "\r\n");
	conn_arm(c, hop_out(c->hop)->outbound_command_timeout);
	conn_flush(c);
}

int auth_on_answer(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, prove_answer, got);
	struct agent *a = ch->program;
	struct login *l = a->logins;
	char why[300];
	while (l != NULL && l->serial != got.serial)
		l = l->next;
	if (l == NULL || !l->asks)
		return 0;
	l->asks = false;
	l->ended = got.status == PROVE_FAILED;
	l->done = got.status == PROVE_DONE;
	(void)snprintf(why, sizeof why, "%.*s", SPAN_ARG(got.text));
	if (l->ended)
		put_off(l->conn, 0, SPAN_LIT("4.7.8"), why);
	else
		say_response(l->conn, &got);
	return 0;
}

void auth_gone(struct agent *a)
{
	a->authd = NULL;
	for (struct login *l = a->logins, *next; l != NULL; l = next) {
		next = l->next;
		l->ended = true;
		if (l->asks) {
			put_off(l->conn, 0, SPAN_LIT("4.3.0"), "authd was replaced");
			next = a->logins; /* others may have ended with it */
		}
	}
}

/* ---- what the peer says ---- */

static bool decode(struct span text, struct buffer *out)
{
	if (text.n == 0)
		return true;
	if (text.n % 4 != 0 || text.n > LOGIN_RESPONSE / 3 * 4 || buffer_reserve(out, text.n / 4 * 3 + 4) != 0)
		return false;
	int n = EVP_DecodeBlock((unsigned char *)out->at, (const unsigned char *)text.at, (int)text.n);
	size_t padding = text.at[text.n - 1] != '=' ? 0 : text.at[text.n - 2] != '=' ? 1 : 2;
	out->n = n < 0 || (size_t)n < padding ? 0 : (size_t)n - padding;
	return n >= 0;
}

static void say_held(struct conn *c)
{
	struct buffer *held = &c->login->held;
	buffer_put_span(&c->out, buffer_span(held));
	buffer_puts(&c->out, "\r\n");
	explicit_bzero(held->at, held->n);
	buffer_clear(held);
	conn_arm(c, hop_out(c->hop)->outbound_command_timeout);
	conn_flush(c);
}

static void take_challenge(struct conn *c)
{
	struct buffer bytes;
	buffer_init(&bytes, 2 * LOGIN_RESPONSE);
	if (!decode(span_trim(buffer_span(&c->reply.text)), &bytes)) {
		buffer_free(&bytes);
		put_off(c, 0, SPAN_LIT("4.5.2"), "the peer's challenge is no base64");
		return;
	}
	if (c->agent->authd == NULL || c->login->ended) {
		put_off(c, 0, SPAN_LIT("4.3.0"), "authd was replaced");
	} else if (c->login->held.n > 0) {
		say_held(c);
	} else {
		c->login->asks = true;
		send_prove_step(c->agent->authd, (struct msg_prove_step){.serial = c->login->serial, .challenge = buffer_span(&bytes)}, -1);
	}
	buffer_free(&bytes);
}

/* By its code (fates.def); the account is named, so that whoever reads it knows which password is meant. */
static void refused(struct conn *c, enum reply_fate fate)
{
	struct job *j = c->job;
	char text[900];
	uint32_t outcome = fate == FATE_RETURN ? OUTCOME_FAILED : OUTCOME_DEFERRED;
	struct span enhanced = c->reply.enhanced.n > 0 ? c->reply.enhanced : outcome == OUTCOME_FAILED ? SPAN_LIT("5.7.8") : SPAN_LIT("4.7.0");
	(void)snprintf(text, sizeof text, "%s said: %d %.*s (AUTH as %s)", j->peer, c->reply.code, SPAN_ARG(buffer_span(&c->reply.text)), user_of(c));
	LOG(&c->agent->proc.log, login_failed, qid_span(&j->id), F("peer", span_of(j->peer)), F("sasl_username", span_of(user_of(c))), F("reason", span_of(text)));
	job_set_all(j, outcome, c->reply.code, enhanced, span_of(text));
	auth_forget(c);
	c->job = NULL;
	conn_say_quit(c);
	job_finish(j, outcome == OUTCOME_DEFERRED);
}

void auth_reply(struct conn *c)
{
	enum reply_fate fate = fate_of_reply(STAGE_AUTH, c->reply.code);
	if (c->login == NULL || c->login->asks) {
		dialog_broken(c, "an answer out of step");
	} else if (fate == FATE_GO_ON && c->reply.code == 334) {
		take_challenge(c);
	} else if (fate != FATE_GO_ON) {
		if (fate == FATE_TRY_NEXT)
			dialog_next_address(c, "AUTH");
		else
			refused(c, fate);
	} else if (!c->login->done) { /* RFC 5802 3: a server that can't prove that it knows the password is somebody else's */
		put_off(c, 0, SPAN_LIT("4.7.8"), "the peer did not prove that it knows the password");
	} else {
		auth_forget(c);
		c->logged_in = true;
		dialog_established(c);
	}
}
