/* Tickets: a realm's ticket of tickets for a name and its password, and with it one for smtp/HOST.  The library makes the requests and
 * reads the replies; kdc.c carries them.  GSS finds the ticket in memory, and has a krb5.conf that knows no KDC: it asks nobody. */
#include "gssc.h"

#include <gssapi/gssapi_krb5.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIFE_LEAST_S = 120 /* of a ticket that is still used */ };

/* ---- accounts ---- */

static void account_free(struct gssc *g, struct account *a)
{
	if (a->tickets != NULL)
		(void)krb5_cc_destroy(g->krb5, a->tickets);
	free(a);
}

/* The one that was used longest ago, and is not in use. */
static void make_room(struct gssc *g)
{
	struct account **oldest = NULL;
	size_t n = 0;
	for (struct account **p = &g->accounts; *p != NULL; p = &(*p)->next) {
		oldest = (*p)->users == 0 ? p : oldest;
		n++;
	}
	if (n < ACCOUNTS_MOST || oldest == NULL)
		return;
	struct account *a = *oldest;
	*oldest = a->next;
	account_free(g, a);
}

static bool make_key(const struct talk *t, const char *name, unsigned char key[ACCOUNT_KEY])
{
	struct buffer both;
	unsigned n = 0;
	buffer_init(&both, 4096);
	buffer_puts(&both, name);
	buffer_putc(&both, '\0');
	buffer_puts(&both, t->password);
	bool good = buffer_ok(&both) && HMAC(EVP_sha256(), t->gssc->secret, sizeof t->gssc->secret, (const unsigned char *)both.at, both.n, key, &n) != NULL && n == ACCOUNT_KEY;
	if (both.n > 0)
		explicit_bzero(both.at, both.n);
	buffer_free(&both);
	return good;
}

static struct account *account_make(struct gssc *g, const unsigned char key[ACCOUNT_KEY])
{
	struct account *a = calloc(1, sizeof *a);
	if (a == NULL)
		return NULL;
	make_room(g);
	memcpy(a->key, key, ACCOUNT_KEY);
	if (krb5_cc_new_unique(g->krb5, "MEMORY", NULL, &a->tickets) == 0)
		return a;
	a->tickets = NULL;
	account_free(g, a);
	return NULL;
}

/* NULL: no memory. */
static struct account *account_of(const struct talk *t, const char *name)
{
	struct gssc *g = t->gssc;
	unsigned char key[ACCOUNT_KEY];
	if (!make_key(t, name, key))
		return NULL;
	struct account **p = &g->accounts;
	while (*p != NULL && memcmp((*p)->key, key, ACCOUNT_KEY) != 0)
		p = &(*p)->next;
	struct account *a = *p;
	if (a != NULL)
		*p = a->next;
	else
		a = account_make(g, key);
	if (a == NULL)
		return NULL;
	a->next = g->accounts;
	g->accounts = a;
	a->users++;
	return a;
}

void kerberos_choose(const struct talk *t)
{
	OM_uint32 minor;
	char *name = NULL;
	if (krb5_cc_get_full_name(t->gssc->krb5, t->ticket, &name) == 0)
		(void)gss_krb5_ccache_name(&minor, name, NULL);
	krb5_free_string(t->gssc->krb5, name);
}

/* ---- steps ---- */

void kerberos_end(struct talk *t)
{
	krb5_context k = t->gssc->krb5;
	if (t->as != NULL)
		krb5_init_creds_free(k, t->as);
	if (t->tgs != NULL)
		krb5_tkt_creds_free(k, t->tgs);
	if (t->ticket != NULL)
		(void)krb5_cc_destroy(k, t->ticket);
	krb5_free_principal(k, t->client);
	t->ticket = NULL;
	t->as = NULL;
	t->tgs = NULL;
	t->client = NULL;
	kdc_end(t);
	if (t->account != NULL)
		t->account->users--;
	t->account = NULL;
}

static void say_no(struct talk *t, krb5_error_code error, bool wrong)
{
	char why[300];
	const char *text = krb5_get_error_message(t->gssc->krb5, error);
	(void)snprintf(why, sizeof why, "Kerberos: %s%s", wrong ? "the password is wrong: " : "", text);
	krb5_free_error_message(t->gssc->krb5, text);
	talk_no_ticket(t, why, wrong);
}

static void refuse_login(struct talk *t, krb5_error_code error)
{
	say_no(t, error, error == KRB5KDC_ERR_PREAUTH_FAILED || error == KRB5KRB_AP_ERR_BAD_INTEGRITY || error == KRB5_PREAUTH_FAILED);
}

static void begin_login(struct talk *t);

/* A ticket of tickets from before may be of no use: of a realm that has another key, of a clock that goes wrong. */
static void refuse_ticket(struct talk *t, krb5_error_code error)
{
	if (t->tgs != NULL)
		krb5_tkt_creds_free(t->gssc->krb5, t->tgs);
	t->tgs = NULL;
	t->account->until_s = 0;
	if (t->fresh)
		say_no(t, error, false);
	else
		begin_login(t);
}

/* GSS names the service without a realm, since its krb5.conf has none for any host. */
static krb5_error_code keep(struct talk *t, krb5_creds *creds)
{
	krb5_context k = t->gssc->krb5;
	krb5_principal server = NULL, own = creds->server;
	krb5_error_code error = krb5_cc_new_unique(k, "MEMORY", NULL, &t->ticket);
	if (error != 0) {
		t->ticket = NULL;
		return error;
	}
	error = krb5_cc_initialize(k, t->ticket, t->client);
	if (error == 0)
		error = krb5_sname_to_principal(k, t->host, "smtp", KRB5_NT_SRV_HST, &server);
	if (error == 0)
		error = krb5_set_principal_realm(k, server, "");
	if (error == 0) {
		creds->server = server;
		error = krb5_cc_store_cred(k, t->ticket, creds);
		creds->server = own;
	}
	krb5_free_principal(k, server);
	return error;
}

static void end_ticket(struct talk *t)
{
	krb5_context k = t->gssc->krb5;
	krb5_creds creds = {0};
	krb5_error_code error = krb5_tkt_creds_get_creds(k, t->tgs, &creds);
	if (error == 0)
		error = keep(t, &creds);
	krb5_free_cred_contents(k, &creds);
	if (error == 0)
		talk_by_kerberos(t);
	else
		say_no(t, error, false);
}

/* A request of the library's, to the KDCs of a realm. */
static void pass_on(struct talk *t, const krb5_data *request, const krb5_data *realm)
{
	if (!kdc_ask(t, (struct span){realm->data, realm->length}, (struct span){request->data, request->length}))
		talk_no_ticket(t, "not enough memory, or a KDC names no realm", false);
}

static void step_ticket(struct talk *t, krb5_data *in)
{
	krb5_context k = t->gssc->krb5;
	krb5_data out = {0}, realm = {0};
	unsigned flags = 0;
	krb5_error_code error = krb5_tkt_creds_step(k, t->tgs, in, &out, &realm, &flags);
	bool more = error == 0 && (flags & KRB5_TKT_CREDS_STEP_FLAG_CONTINUE) != 0;
	if (more)
		pass_on(t, &out, &realm);
	krb5_free_data_contents(k, &out);
	krb5_free_data_contents(k, &realm);
	if (error != 0)
		refuse_ticket(t, error);
	else if (!more)
		end_ticket(t);
}

static void begin_ticket(struct talk *t)
{
	krb5_context k = t->gssc->krb5;
	krb5_creds wanted = {.client = t->client};
	krb5_error_code error = krb5_sname_to_principal(k, t->host, "smtp", KRB5_NT_SRV_HST, &wanted.server);
	if (error == 0)
		error = krb5_tkt_creds_init(k, t->account->tickets, &wanted, KRB5_GC_NO_STORE, &t->tgs);
	krb5_free_principal(k, wanted.server);
	if (error != 0)
		refuse_ticket(t, error);
	else
		step_ticket(t, &(krb5_data){0});
}

static void end_login(struct talk *t)
{
	krb5_context k = t->gssc->krb5;
	krb5_creds creds = {0};
	krb5_error_code error = krb5_init_creds_get_creds(k, t->as, &creds);
	krb5_init_creds_free(k, t->as);
	t->as = NULL;
	if (error == 0)
		error = krb5_cc_initialize(k, t->account->tickets, t->client);
	if (error == 0)
		error = krb5_cc_store_cred(k, t->account->tickets, &creds);
	t->account->until_s = error == 0 ? (int64_t)(uint32_t)creds.times.endtime : 0;
	t->fresh = true;
	krb5_free_cred_contents(k, &creds);
	if (error != 0)
		refuse_login(t, error);
	else
		begin_ticket(t);
}

static void step_login(struct talk *t, krb5_data *in)
{
	krb5_context k = t->gssc->krb5;
	krb5_data out = {0}, realm = {0};
	unsigned flags = 0;
	krb5_error_code error = krb5_init_creds_step(k, t->as, in, &out, &realm, &flags);
	bool more = error == 0 && (flags & KRB5_INIT_CREDS_STEP_FLAG_CONTINUE) != 0;
	if (more)
		pass_on(t, &out, &realm);
	krb5_free_data_contents(k, &out);
	krb5_free_data_contents(k, &realm);
	if (error != 0)
		refuse_login(t, error);
	else if (!more)
		end_login(t);
}

static void begin_login(struct talk *t)
{
	krb5_context k = t->gssc->krb5;
	krb5_error_code error = krb5_init_creds_init(k, t->client, NULL, NULL, 0, NULL, &t->as);
	if (error == 0)
		error = krb5_init_creds_set_password(k, t->as, t->password);
	if (error != 0)
		refuse_login(t, error);
	else
		step_login(t, &(krb5_data){0});
}

void kerberos_take(struct talk *t, struct span reply)
{
	krb5_data in = {.data = (char *)(uintptr_t)reply.at, .length = (unsigned)reply.n};
	if (t->as != NULL)
		step_login(t, &in);
	else
		step_ticket(t, &in);
}

bool kerberos_begin(struct talk *t)
{
	krb5_context k = t->gssc->krb5;
	char *name = NULL;
	if (k == NULL || strchr(t->user, '\\') != NULL || krb5_parse_name(k, t->user, &t->client) != 0) /* DOMAIN\USER is NTLM's */
		return false;
	if (krb5_unparse_name(k, t->client, &name) == 0)
		t->account = account_of(t, name);
	krb5_free_unparsed_name(k, name);
	if (t->account == NULL)
		talk_no_ticket(t, "not enough memory", false);
	else if (t->account->until_s > clock_wall_us() / 1000000 + LIFE_LEAST_S)
		begin_ticket(t);
	else
		begin_login(t);
	return true;
}

/* What the library loads is loaded by a first request, that nobody gets. */
static void warm_up(krb5_context k)
{
	krb5_principal client = NULL;
	krb5_init_creds_context as = NULL;
	krb5_data in = {0}, out = {0}, realm = {0};
	unsigned flags;
	if (krb5_build_principal(k, &client, 4, "WARM", "nobody", (char *)NULL) == 0 && krb5_init_creds_init(k, client, NULL, NULL, 0, NULL, &as) == 0 &&
		krb5_init_creds_set_password(k, as, "word") == 0)
		(void)krb5_init_creds_step(k, as, &in, &out, &realm, &flags);
	krb5_free_data_contents(k, &out);
	krb5_free_data_contents(k, &realm);
	if (as != NULL)
		krb5_init_creds_free(k, as);
	krb5_free_principal(k, client);
}

int kerberos_setup(struct gssc *g)
{
	int error = gss_write_own(g->dir_fd);
	if (error == 0)
		error = gss_read_both();
	if (error == 0)
		error = fill_random(g->secret, sizeof g->secret);
	if (error != 0)
		return error;
	if (krb5_init_context(&g->krb5) == 0)
		warm_up(g->krb5);
	else
		g->krb5 = NULL;
	return setenv("KRB5_CONFIG", KRB5_OWN, 1) != 0 ? ENOMEM : 0; /* from now on: what GSS reads */
}
