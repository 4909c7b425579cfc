/* AUTH (RFC 4954): what authd and the client say to each other passes through here, in base64 on the one side. */
#include "worker.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

static const struct span no_detail = {"", 0};

enum { CERTIFICATES_MOST = 64 * 1024 };
enum { METHOD_ANONYMOUS = 1 }; /* of auth_methods */

static const struct { uint32_t bit; const char *word; } mechanisms[] = {
#define MECHANISM(name, bit, word) {1u << (bit), word},
	MECHANISMS(MECHANISM)
#undef MECHANISM
};

/* Or what leads to it: answers of NTLM and CRAM-MD5 can be tried against a list. */
static bool tells_password(uint32_t mechanism)
{
	return (mechanism & (MECHANISM_PLAIN | MECHANISM_LOGIN | MECHANISM_NTLM | MECHANISM_CRAM_MD5)) != 0;
}

/* Those that this session may use now. */
static uint32_t offered(const struct session *s)
{
	const struct server_params *p = session_params(s);
	uint32_t all = s->worker->servers[s->server].mechanisms;
	if (s->ssl == NULL || !tls_has_client(s->ssl))
		all &= ~(uint32_t)MECHANISM_EXTERNAL;
	if (s->ssl != NULL)
		return all;
	if (p->tls == TLS_REQUIRE_AUTH)
		return 0;
	all &= ~(uint32_t)MECHANISM_SCRAM_SHA_256_PLUS;
	return p->auth_basic_cleartext == 1 ? all : all & ~(uint32_t)(MECHANISM_PLAIN | MECHANISM_LOGIN | MECHANISM_NTLM | MECHANISM_CRAM_MD5);
}

void auth_put_extension(struct session *s)
{
	uint32_t set = offered(s);
	if (set == 0)
		return;
	buffer_puts(&s->out, "250-AUTH");
	for (size_t i = 0; i < COUNT_OF(mechanisms); i++)
		if ((set & mechanisms[i].bit) != 0)
			buffer_printf(&s->out, " %s", mechanisms[i].word);
	buffer_puts(&s->out, "\r\n");
}

bool auth_is_needed(const struct session *s)
{
	return !session_has_login(s) && (s->submission || (session_params(s)->auth_methods & METHOD_ANONYMOUS) == 0);
}

const char *auth_method(const struct session *s)
{
	for (size_t i = 0; i < COUNT_OF(mechanisms); i++)
		if (s->login->mechanism == mechanisms[i].bit)
			return mechanisms[i].word;
	return "";
}

/* ---- the conversation ---- */

static void leave_open(struct session_login *l)
{
	struct session_login **p = &l->session->worker->logins;
	while (*p != NULL && *p != l)
		p = &(*p)->next;
	if (*p != NULL)
		*p = l->next;
}

void auth_forget(struct session *s)
{
	struct worker *w = s->worker;
	if (s->login == NULL)
		return;
	if (!s->login->good && !s->login->lost && w->authd != NULL)
		send_auth_end(w->authd, (struct msg_auth_end){.serial = s->login->serial}, -1);
	leave_open(s->login);
	free(s->login->name);
	free(s->login);
	s->login = NULL;
}

/* The conversation is over without a login. */
static void give_up(struct session *s, enum reply r)
{
	auth_forget(s);
	s->state = ST_COMMAND;
	session_reply(s, r, no_detail);
}

/* Base64 as RFC 4648 4 has it, and nothing else; false: it is not, or is too long. */
static bool decode(struct span text, struct buffer *out)
{
	size_t padding = 0;
	while (padding < 2 && padding < text.n && text.at[text.n - 1 - padding] == '=')
		padding++;
	for (size_t i = 0; i + padding < text.n; i++)
		if (text.at[i] == '\0' || strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", text.at[i]) == NULL)
			return false;
	if (text.n % 4 != 0 || text.n / 4 * 3 - padding > LOGIN_RESPONSE || buffer_reserve(out, text.n / 4 * 3) != 0)
		return false;
	int n = EVP_DecodeBlock((unsigned char *)out->at, (const unsigned char *)text.at, (int)text.n);
	out->n = n < 0 ? 0 : (size_t)n - padding;
	return n >= 0;
}

static void begin(struct session *s, uint32_t mechanism, bool initial, struct span response)
{
	struct worker *w = s->worker;
	struct buffer exporter, unique, certificates;
	struct session_login *l = calloc(1, sizeof *l);
	if (l == NULL || w->authd == NULL) {
		free(l);
		session_reply(s, REPLY_AUTH_FAILED, no_detail);
		return;
	}
	*l = (struct session_login){.session = s, .serial = ++w->questions, .mechanism = mechanism, .next = w->logins};
	w->logins = s->login = l;
	buffer_init(&exporter, 200);
	buffer_init(&unique, 200);
	buffer_init(&certificates, CERTIFICATES_MOST);
	if (mechanism == MECHANISM_EXTERNAL)
		tls_put_client(s->ssl, &certificates);
	if (s->ssl != NULL)
		tls_put_bindings(s->ssl, &exporter, &unique);
	send_auth_begin(w->authd, (struct msg_auth_begin){.serial = l->serial, .session = s->fronts == w->fronts ? s->number : UINT32_MAX, .server = s->server,
		.mechanism = mechanism, .initial = initial, .response = response, .exporter = buffer_span(&exporter), .unique = buffer_span(&unique), .certificates = buffer_span(&certificates)}, -1);
	buffer_free(&exporter);
	buffer_free(&unique);
	buffer_free(&certificates);
	s->state = ST_ASKING;
}

void auth_command(struct session *s, struct span args)
{
	uint32_t mechanism = 0, set = offered(s), all = s->worker->servers[s->server].mechanisms;
	struct span word = span_word(&args, " "), response = span_trim(args);
	struct buffer bytes;
	for (size_t i = 0; i < COUNT_OF(mechanisms); i++)
		if (span_case_is(word, mechanisms[i].word))
			mechanism = mechanisms[i].bit;
	if ((session_params(s)->auth_methods & ~METHOD_ANONYMOUS) == 0 && session_params(s)->auth_mechanisms_extra == 0) {
		session_reply(s, REPLY_NOT_IMPLEMENTED, no_detail);
	} else if (s->login != NULL) { /* RFC 4954 4: once */
		session_reply(s, REPLY_SEQUENCE, no_detail);
	} else if (word.n == 0) {
		session_reply(s, REPLY_SYNTAX, no_detail);
	} else if (s->ssl == NULL && (session_params(s)->tls == TLS_REQUIRE_AUTH || (tells_password(mechanism) && (set & mechanism) == 0 && (all & mechanism) != 0))) {
		session_reply(s, REPLY_AUTH_CLEARTEXT, no_detail);
	} else if ((set & mechanism) == 0) {
		session_reply(s, REPLY_AUTH_MECHANISM, no_detail);
	} else {
		buffer_init(&bytes, LINE_LIMIT_AUTH);
		if (span_is(response, "=")) /* an empty one */
			begin(s, mechanism, true, no_detail);
		else if (!decode(response, &bytes))
			session_reply(s, REPLY_AUTH_BASE64, no_detail);
		else
			begin(s, mechanism, response.n > 0, buffer_span(&bytes));
		buffer_wipe(&bytes);
	}
}

void auth_line(struct session *s, struct span line)
{
	struct worker *w = s->worker;
	struct buffer bytes;
	if (span_is(line, "*")) {
		give_up(s, REPLY_AUTH_CANCELLED);
		return;
	}
	buffer_init(&bytes, LINE_LIMIT_AUTH);
	if (!decode(line, &bytes)) {
		give_up(s, REPLY_AUTH_BASE64);
	} else if (s->login->lost || w->authd == NULL) {
		give_up(s, REPLY_AUTH_FAILED);
	} else {
		send_auth_step(w->authd, (struct msg_auth_step){.serial = s->login->serial, .response = buffer_span(&bytes)}, -1);
		s->state = ST_ASKING;
	}
	buffer_wipe(&bytes);
}

void auth_bad_line(struct session *s, enum reply r)
{
	give_up(s, r);
}

/* ---- answers ---- */

static void challenge(struct session *s, struct span bytes)
{
	struct buffer text;
	buffer_init(&text, 2 * LINE_LIMIT_AUTH);
	if (bytes.n == 0) {
		buffer_puts(&s->out, "334 \r\n");
	} else if (buffer_reserve(&text, bytes.n / 3 * 4 + 8) == 0) {
		text.n = (size_t)EVP_EncodeBlock((unsigned char *)text.at, (const unsigned char *)bytes.at, (int)bytes.n);
		session_put(s, REPLY_AUTH_GOES_ON, buffer_span(&text));
	} else {
		s->dead = true;
	}
	buffer_free(&text);
	s->state = ST_LOGIN;
}

static void take_login(struct session *s, const struct msg_auth_answer *got)
{
	struct session_login *l = s->login;
	l->name = span_dup(got->text);
	if (l->name == NULL || got->proof.n != sizeof l->proof) {
		give_up(s, REPLY_AUTH_FAILED);
		return;
	}
	memcpy(l->proof, got->proof.at, sizeof l->proof);
	l->good = true;
	leave_open(l);
	s->state = ST_COMMAND;
	session_reply(s, REPLY_AUTH_OK, no_detail);
}

int auth_on_answer(struct channel *c, struct message *m)
{
	HANDLE(c, m, auth_answer, got);
	struct worker *w = c->program;
	struct session_login *l = w->logins;
	while (l != NULL && l->serial != got.serial)
		l = l->next;
	if (l == NULL || l->session->state != ST_ASKING)
		return 0;
	struct session *s = l->session;
	session_arm(s);
	switch (got.status) {
	case LOGIN_GOES_ON: challenge(s, got.text); break;
	case LOGIN_GOOD: take_login(s, &got); break;
	case LOGIN_BAD: give_up(s, REPLY_AUTH_BAD); break;
	case LOGIN_LIMITED: give_up(s, REPLY_AUTH_LIMITED); break;
	default: give_up(s, REPLY_AUTH_FAILED); break;
	}
	session_run(s);
	return 0;
}

int auth_on_offer(struct channel *c, struct message *m)
{
	HANDLE(c, m, auth_offer, offer);
	struct worker *w = c->program;
	if (offer.server >= SERVERS_MOST) /* one that has been made a moment ago may come before the configuration with it */
		return EBADMSG;
	w->servers[offer.server].mechanisms = offer.mechanisms;
	return 0;
}

/* One that waits for an answer, NULL: none does. */
static struct session *first_waiting(const struct worker *w)
{
	for (const struct session_login *l = w->logins; l != NULL; l = l->next)
		if (l->session->state == ST_ASKING)
			return l->session;
	return NULL;
}

void auth_gone(struct worker *w)
{
	struct session *s;
	w->authd = NULL;
	for (struct session_login *l = w->logins; l != NULL; l = l->next)
		l->lost = true; /* a client that is at it is told with its next line */
	while ((s = first_waiting(w)) != NULL) {
		session_arm(s);
		give_up(s, REPLY_AUTH_FAILED);
		session_run(s);
	}
}
