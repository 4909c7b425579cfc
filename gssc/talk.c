/* Logins: GSSAPI by libgsasl (RFC 4752) where there is a ticket to be had, else NTLM as GSS says its messages. */
#include "gssc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void wipe(char *text)
{
	if (text != NULL)
		explicit_bzero(text, strlen(text));
	free(text);
}

static void retire(struct gssc *g)
{
	if (!gss_ntlm_is_over(g->ntlm_n, g->talks_n, &g->leaving))
		return;
	if (g->authd != NULL) /* the last answer */
		channel_flush(g->authd);
	LOG(&g->proc.log, retired, NO_ID);
	proc_done(&g->proc);
}

static void end(struct talk *t)
{
	struct gssc *g = t->gssc;
	struct talk **p = &g->talks;
	OM_uint32 minor;
	while (*p != t)
		p = &(*p)->next;
	*p = t->next;
	g->talks_n--;
	kerberos_end(t);
	if (t->sasl != NULL)
		gsasl_finish(t->sasl);
	(void)gss_delete_sec_context(&minor, &t->ntlm, GSS_C_NO_BUFFER);
	(void)gss_release_cred(&minor, &t->cred);
	(void)gss_release_name(&minor, &t->target);
	wipe(t->password);
	free(t->user);
	free(t->host);
	free(t);
	retire(g);
}

static void answer(struct talk *t, enum prove_status status, struct span text)
{
	if (t->gssc->authd != NULL)
		send_gssc_answer(t->gssc->authd, (struct msg_gssc_answer){.serial = t->serial, .status = status, .mechanism = t->mechanism, .first = !t->said, .text = text}, -1);
	t->said = true;
}

static void fail(struct talk *t, const char *why)
{
	answer(t, PROVE_FAILED, span_of(why));
	end(t);
}

/* ---- Kerberos ---- */

static void step_kerberos(struct talk *t, struct span challenge)
{
	char *out = NULL, why[200];
	size_t n = 0;
	kerberos_choose(t);
	int r = gsasl_step(t->sasl, challenge.n == 0 ? NULL : challenge.at, challenge.n, &out, &n);
	(void)snprintf(why, sizeof why, "GSSAPI: %s", gsasl_strerror(r));
	if (r == GSASL_OK || r == GSASL_NEEDS_MORE)
		answer(t, r == GSASL_OK ? PROVE_DONE : PROVE_GOES_ON, (struct span){out, n});
	else
		fail(t, why);
	gsasl_free(out);
}

void talk_by_kerberos(struct talk *t)
{
	t->mechanism = MECHANISM_GSSAPI;
	wipe(t->password);
	t->password = NULL;
	if (gsasl_client_start(t->gssc->gsasl, "GSSAPI", &t->sasl) != GSASL_OK) {
		t->sasl = NULL;
		fail(t, "not enough memory");
	} else if (gsasl_property_set(t->sasl, GSASL_SERVICE, "smtp") != GSASL_OK || gsasl_property_set(t->sasl, GSASL_HOSTNAME, t->host) != GSASL_OK) {
		fail(t, "not enough memory");
	} else {
		step_kerberos(t, SPAN_LIT(""));
	}
}

/* ---- NTLM ---- */

static void fail_ntlm(struct talk *t, OM_uint32 minor)
{
	char why[200];
	gss_ntlm_reason(minor, why, sizeof why);
	fail(t, why);
}

static void step_ntlm(struct talk *t, struct span challenge)
{
	OM_uint32 minor, ignored;
	gss_buffer_desc in = {challenge.n, (void *)(uintptr_t)challenge.at}, out = GSS_C_EMPTY_BUFFER;
	OM_uint32 major = gss_init_sec_context(&minor, t->cred, &t->ntlm, t->target, gss_ntlm_mechanism(), 0, 0, GSS_C_NO_CHANNEL_BINDINGS, &in, NULL, &out, NULL, NULL);
	if (GSS_ERROR(major))
		fail_ntlm(t, minor);
	else
		answer(t, major == GSS_S_COMPLETE ? PROVE_DONE : PROVE_GOES_ON, (struct span){out.value, out.length});
	(void)gss_release_buffer(&ignored, &out);
}

static void by_ntlm(struct talk *t)
{
	OM_uint32 minor = 0;
	t->mechanism = MECHANISM_NTLM;
	t->gssc->ntlm_n++;
	bool good = gss_smtp_of(t->host, &t->target) && gss_ntlm_login(span_of(t->user), span_of(t->password), &t->cred, &minor);
	wipe(t->password);
	t->password = NULL;
	if (good)
		step_ntlm(t, SPAN_LIT(""));
	else
		fail_ntlm(t, minor);
}

/* ---- which ---- */

void talk_no_ticket(struct talk *t, const char *why, bool for_good)
{
	kerberos_end(t);
	if (!for_good && (t->offered & MECHANISM_NTLM) != 0 && t->gssc->has_ntlm)
		by_ntlm(t);
	else
		fail(t, why);
}

static struct talk *find(const struct gssc *g, uint64_t serial)
{
	struct talk *t = g->talks;
	while (t != NULL && t->serial != serial)
		t = t->next;
	return t;
}

/* By NTLM, or the reasons why by neither. */
static void without_kerberos(struct talk *t)
{
	char why[300];
	(void)snprintf(why, sizeof why, "no Kerberos: %s; no NTLM: %s", (t->offered & MECHANISM_GSSAPI) == 0 ? "the peer offers no GSSAPI" : t->gssc->krb5 == NULL ? "the library can't be set up, look at krb5.conf" :
		"outbound_user is not USER@REALM", (t->offered & MECHANISM_NTLM) == 0 ? "the peer does not offer it" : "the package gss-ntlmssp is missing");
	talk_no_ticket(t, why, false);
}

int talk_on_begin(struct channel *c, struct message *m)
{
	HANDLE(c, m, gssc_begin, said);
	struct gssc *g = c->program;
	if (find(g, said.serial) != NULL)
		return EBADMSG;
	struct talk *t = g->talks_n >= TALKS_MOST ? NULL : calloc(1, sizeof *t);
	if (t == NULL) {
		send_gssc_answer(c, (struct msg_gssc_answer){.serial = said.serial, .status = PROVE_FAILED, .text = SPAN_LIT("too many logins at a time")}, -1);
		return 0;
	}
	*t = (struct talk){.gssc = g, .serial = said.serial, .offered = said.mechanisms, .user = span_dup(said.user), .password = span_dup(said.password), .host = span_dup(said.host),
		.cred = GSS_C_NO_CREDENTIAL, .ntlm = GSS_C_NO_CONTEXT, .target = GSS_C_NO_NAME, .next = g->talks};
	g->talks = t;
	g->talks_n++;
	if (t->user == NULL || t->password == NULL || t->host == NULL)
		fail(t, "not enough memory");
	else if ((t->offered & MECHANISM_GSSAPI) == 0 || !kerberos_begin(t))
		without_kerberos(t);
	return 0;
}

int talk_on_step(struct channel *c, struct message *m)
{
	HANDLE(c, m, gssc_step, said);
	struct talk *t = find(c->program, said.serial);
	if (t == NULL) /* begun with the gssc before this one */
		send_gssc_answer(c, (struct msg_gssc_answer){.serial = said.serial, .status = PROVE_FAILED, .text = SPAN_LIT("gssc was replaced")}, -1);
	else if (t->sasl != NULL)
		step_kerberos(t, said.challenge);
	else if (t->mechanism == MECHANISM_NTLM && gss_ntlm_challenge_is_sound(said.challenge))
		step_ntlm(t, said.challenge);
	else if (t->mechanism == MECHANISM_NTLM)
		fail(t, "NTLM: the peer's challenge is damaged, or of an NTLM before version 2");
	else
		return EBADMSG;
	return 0;
}

int talk_on_end(struct channel *c, struct message *m)
{
	HANDLE(c, m, gssc_end, said);
	struct talk *t = find(c->program, said.serial);
	if (t != NULL)
		end(t);
	return 0;
}

void talk_end_all(struct gssc *g)
{
	while (g->talks != NULL)
		end(g->talks);
}

/* What GSS loads for NTLM is loaded by a first message, that nobody gets.  False: there is none. */
static bool warm_up_ntlm(void)
{
	static const char challenge[] = /* [MS-NLMP] 2.2.1.2, of a computer M in a domain W */
		"NTLMSSP\0" "\2\0\0\0" "\2\0\2\0\x48\0\0\0" "\5\x82\x8a\xa2" "12345678" "\0\0\0\0\0\0\0\0" "\x10\0\x10\0\x38\0\0\0" "\6\2\0\0\0\0\0\x0f" "\2\0\2\0W\0" "\1\0\2\0M\0" "\0\0\0\0" "W\0";
	OM_uint32 minor;
	gss_cred_id_t cred = GSS_C_NO_CREDENTIAL;
	gss_ctx_id_t ctx = GSS_C_NO_CONTEXT;
	gss_name_t target = GSS_C_NO_NAME;
	gss_buffer_desc in = GSS_C_EMPTY_BUFFER, out = GSS_C_EMPTY_BUFFER;
	bool good = gss_ntlm_challenge_is_sound((struct span){challenge, sizeof challenge - 1}) && gss_smtp_of("localhost", &target) && gss_ntlm_login(SPAN_LIT("NOBODY\\warm"), SPAN_LIT("word"), &cred, &minor);
	for (int i = 0; i < 2 && good; i++) {
		(void)gss_init_sec_context(&minor, cred, &ctx, target, gss_ntlm_mechanism(), 0, 0, GSS_C_NO_CHANNEL_BINDINGS, &in, NULL, &out, NULL, NULL);
		(void)gss_release_buffer(&minor, &out);
		in = (gss_buffer_desc){sizeof challenge - 1, (void *)(uintptr_t)challenge};
	}
	(void)gss_delete_sec_context(&minor, &ctx, GSS_C_NO_BUFFER);
	(void)gss_release_cred(&minor, &cred);
	(void)gss_release_name(&minor, &target);
	return good;
}

static void warm_up_kerberos(struct gssc *g)
{
	Gsasl_session *s = NULL;
	char *out = NULL;
	size_t n;
	if (gsasl_client_start(g->gsasl, "GSSAPI", &s) != GSASL_OK)
		return;
	(void)gsasl_property_set(s, GSASL_SERVICE, "smtp");
	(void)gsasl_property_set(s, GSASL_HOSTNAME, "localhost");
	(void)gsasl_step(s, NULL, 0, &out, &n);
	gsasl_free(out);
	gsasl_finish(s);
}

int talk_setup(struct gssc *g)
{
	if (gsasl_init(&g->gsasl) != GSASL_OK || setenv("KRB5CCNAME", "MEMORY:none", 1) != 0)
		return ENOMEM;
	warm_up_kerberos(g);
	g->has_ntlm = warm_up_ntlm();
	return 0;
}
