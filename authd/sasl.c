/* The mechanisms, by libgsasl: what it asks is answered from the file of passwords. */
#include "authd.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *sasl_word(uint32_t mechanism)
{
#define MECHANISM(name, bit, word) if (mechanism == 1u << (bit)) return word;
	MECHANISMS(MECHANISM)
#undef MECHANISM
	return "";
}

static void set_binding(Gsasl_session *g, Gsasl_property property, struct span bytes)
{
	char *text = NULL;
	if (bytes.n == 0 || gsasl_base64_to(bytes.at, bytes.n, &text, NULL) != GSASL_OK)
		return;
	(void)gsasl_property_set(g, property, text);
	gsasl_free(text);
}

void sasl_bind(Gsasl_session *g, struct span exporter, struct span unique)
{
	set_binding(g, GSASL_CB_TLS_EXPORTER, exporter);
	set_binding(g, GSASL_CB_TLS_UNIQUE, unique);
}

int sasl_begin(struct login *l)
{
	char *prompt = NULL;
	size_t n;
	if (gsasl_server_start(l->authd->gsasl, sasl_word(l->mechanism), &l->gsasl) != GSASL_OK)
		return ENOMEM;
	gsasl_session_hook_set(l->gsasl, l);
	if (l->mechanism == MECHANISM_LOGIN && l->response.n > 0) { /* the name came with AUTH: nobody has to ask for it */
		(void)gsasl_step(l->gsasl, NULL, 0, &prompt, &n);
		gsasl_free(prompt);
	}
	return 0;
}

int sasl_step(struct login *l, char **out, size_t *n)
{
	*out = NULL;
	*n = 0;
	return gsasl_step(l->gsasl, l->response.n == 0 ? (l->first ? NULL : "") : l->response.at, l->response.n, out, n);
}

/* The name as it is known here: in small letters, with a domain (MISSION C2). */
int sasl_take_name(struct login *l, const char *said)
{
	const char *domain = l->authd->proc.config.servers[l->server].p.auth_default_domain;
	bool bare = strchr(said, '@') == NULL && domain[0] != '\0';
	int n = snprintf(l->name, sizeof l->name, "%s%s%s", said, bare ? "@" : "", bare ? domain : "");
	if (n < 0 || (size_t)n >= sizeof l->name || !passwd_name_is_valid(span_of(l->name))) {
		l->name[0] = '\0';
		return EINVAL;
	}
	passwd_fold(l->name, (size_t)n);
	return 0;
}

static const struct passwd_row *row_of(const struct login *l)
{
	return passwd_find(&l->authd->servers[l->server].file, span_of(l->name));
}

/* Who logs in logs in as itself. */
static bool is_own_name(Gsasl_session *g)
{
	const char *as = gsasl_property_fast(g, GSASL_AUTHZID), *who = gsasl_property_fast(g, GSASL_AUTHID);
	return as == NULL || as[0] == '\0' || (who != NULL && strcmp(as, who) == 0);
}

static int check_password(struct login *l, Gsasl_session *g)
{
	const char *who = gsasl_property_fast(g, GSASL_AUTHID), *word = gsasl_property_fast(g, GSASL_PASSWORD), *limit;
	int error = who == NULL ? EINVAL : sasl_take_name(l, who);
	if (error == 0 && failures_over(l, &limit))
		return GSASL_AUTHENTICATION_ERROR;
	bool pam = pam_is(l->authd, l->server);
	bool asks = pam || table_is(l->authd, l->server);
	if (asks && error == 0 && word != NULL && strlen(word) <= PASSWD_WORD_MOST && is_own_name(g)) {
		(pam ? pam_ask : table_ask)(l, word);
		return GSASL_AUTHENTICATION_ERROR; /* not yet */
	}
	bool good = passwd_verify(error == 0 && !asks ? row_of(l) : NULL, span_of(word));
	return good && is_own_name(g) ? GSASL_OK : GSASL_AUTHENTICATION_ERROR;
}

static int set_span(Gsasl_session *g, Gsasl_property property, struct span s)
{
	return gsasl_property_set_raw(g, property, s.at, s.n);
}

static int set_base64(Gsasl_session *g, Gsasl_property property, const void *bytes, size_t n)
{
	char *text = NULL;
	int r = gsasl_base64_to(bytes, n, &text, NULL);
	if (r == GSASL_OK)
		r = gsasl_property_set(g, property, text);
	gsasl_free(text);
	return r;
}

/* Nobody of that name: a salt that is the same each time, keys that nothing fits. */
static int set_decoy(struct login *l, Gsasl_session *g, Gsasl_property property)
{
	unsigned char digest[EVP_MAX_MD_SIZE], key[GSASL_HASH_SHA256_SIZE];
	unsigned n = 0;
	const struct passwd_file *f = &l->authd->servers[l->server].file;
	if (property == GSASL_SCRAM_ITER)
		return set_span(g, property, f->n > 0 ? f->rows[0].iterations : SPAN_LIT("65536"));
	bool has_file = f->n > 0;
	if (HMAC(EVP_sha256(), has_file ? f->decoy : l->authd->secret, has_file ? sizeof f->decoy : sizeof l->authd->secret, (const unsigned char *)l->name, strlen(l->name), digest, &n) == NULL || fill_random(key, sizeof key) != 0)
		return GSASL_MALLOC_ERROR;
	return property == GSASL_SCRAM_SALT ? set_base64(g, property, digest, 16) : set_base64(g, property, key, sizeof key);
}

static int give_scram(struct login *l, Gsasl_session *g, Gsasl_property property)
{
	const char *who = gsasl_property_fast(g, GSASL_AUTHID);
	if (l->name[0] == '\0' && who != NULL)
		(void)!sasl_take_name(l, who);
	const struct passwd_row *row = table_is(l->authd, l->server) ? table_row(l) : row_of(l);
	if (!is_own_name(g))
		row = NULL;
	if (row == NULL)
		return set_decoy(l, g, property);
	switch ((int)property) {
	case GSASL_SCRAM_ITER: return set_span(g, property, row->iterations);
	case GSASL_SCRAM_SALT: return set_span(g, property, row->salt);
	case GSASL_SCRAM_STOREDKEY: return set_span(g, property, row->stored);
	case GSASL_SCRAM_SERVERKEY: return set_span(g, property, row->server);
	default: return GSASL_NO_CALLBACK;
	}
}

int sasl_callback(Gsasl *g, Gsasl_session *session, Gsasl_property property)
{
	struct login *l = gsasl_session_hook_get(session);
	(void)g;
	if (l == NULL) /* a login at another server: all that there is has been said */
		return GSASL_NO_CALLBACK;
	switch ((int)property) {
	case GSASL_VALIDATE_SIMPLE:
		return check_password(l, session);
	case GSASL_SCRAM_ITER: case GSASL_SCRAM_SALT: case GSASL_SCRAM_STOREDKEY: case GSASL_SCRAM_SERVERKEY:
		return give_scram(l, session, property);
	default:
		return GSASL_NO_CALLBACK;
	}
}
