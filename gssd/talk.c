/* Conversations: Kerberos by libgsasl (RFC 4752, RFC 5801), NTLM as its messages are. */
#include "gssd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct span nothing = {"", 0};

void talk_answer(const struct talk *t, enum gssd_status status, struct span text)
{
	if (t->gssd->authd != NULL)
		send_gss_answer(t->gssd->authd, (struct msg_gss_answer){.serial = t->serial, .status = status, .text = text}, -1);
}

static void retire(struct gssd *g)
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
	struct gssd *g = t->gssd;
	struct talk **p = &g->talks;
	OM_uint32 minor;
	while (*p != t)
		p = &(*p)->next;
	*p = t->next;
	g->talks_n--;
	if (t->sasl != NULL)
		gsasl_finish(t->sasl);
	if (t->ntlm != GSS_C_NO_CONTEXT)
		(void)gss_delete_sec_context(&minor, &t->ntlm, GSS_C_NO_BUFFER);
	buffer_free(&t->certificates);
	free(t);
	retire(g);
}

void talk_finish(struct talk *t, enum gssd_status status, const char *text)
{
	talk_answer(t, status, text == NULL ? nothing : span_of(text));
	end(t);
}

bool talk_take_name(struct talk *t, struct span name)
{
	if (name.n == 0 || name.n > NAME_MOST || memchr(name.at, '\0', name.n) != NULL)
		return false;
	(void)snprintf(t->name, sizeof t->name, "%.*s", SPAN_ARG(name));
	return true;
}

/* ---- Kerberos ---- */

/* Who logs in logs in as itself: by its whole name, or without the realm. */
static bool is_own_name(const char *as, const char *who)
{
	struct span name = span_of(who), bare = span_until(&name, '@');
	return as == NULL || as[0] == '\0' || strcmp(as, who) == 0 || span_is(bare, as);
}

static int callback(Gsasl *g, Gsasl_session *session, Gsasl_property property)
{
	struct talk *t = gsasl_session_hook_get(session);
	(void)g;
	if (t == NULL)
		return GSASL_NO_CALLBACK;
	switch ((int)property) {
	case GSASL_SERVICE:
		return gsasl_property_set(session, property, "smtp");
	case GSASL_HOSTNAME:
		return gsasl_property_set(session, property, t->gssd->proc.config.servers[t->server].p.fqdn);
	case GSASL_VALIDATE_GSSAPI: {
		const char *who = gsasl_property_fast(session, GSASL_GSSAPI_DISPLAY_NAME);
		return who != NULL && is_own_name(gsasl_property_fast(session, GSASL_AUTHZID), who) && talk_take_name(t, span_of(who)) ? GSASL_OK : GSASL_AUTHENTICATION_ERROR;
	}
	default:
		return GSASL_NO_CALLBACK;
	}
}

static void step_kerberos(struct talk *t, bool first, struct span response)
{
	char *out = NULL;
	size_t n = 0;
	int r = gsasl_step(t->sasl, first ? NULL : response.at, response.n, &out, &n);
	if (r == GSASL_NEEDS_MORE) {
		talk_answer(t, INTEGRATED_GOES_ON, (struct span){out, n});
	} else if (r == GSASL_OK && n > 0) { /* the client has to see these words, and says nothing to them */
		talk_answer(t, INTEGRATED_GOES_ON, (struct span){out, n});
		gsasl_finish(t->sasl);
		t->sasl = NULL;
	} else if (r == GSASL_OK && t->name[0] != '\0') {
		talk_finish(t, INTEGRATED_GOOD, t->name);
	} else {
		talk_finish(t, INTEGRATED_BAD, r == GSASL_OK ? "no name" : gsasl_strerror_name(r));
	}
	gsasl_free(out);
}

/* ---- NTLM ---- */

/* DOMAIN\USER: as USER@DOMAIN. */
static bool take_ntlm_name(struct talk *t, struct span said)
{
	struct buffer b;
	struct span user = said, domain = span_until(&user, '\\');
	if (domain.n == said.n)
		return talk_take_name(t, said);
	buffer_init(&b, NAME_MOST);
	buffer_put_span(&b, user);
	if (domain.n > 0)
		buffer_putc(&b, '@');
	buffer_put_span(&b, domain);
	bool good = buffer_ok(&b) && user.n > 0 && talk_take_name(t, buffer_span(&b));
	buffer_free(&b);
	return good;
}

static void end_ntlm(struct talk *t, gss_name_t who, OM_uint32 flags)
{
	OM_uint32 minor;
	gss_buffer_desc text = GSS_C_EMPTY_BUFFER;
	bool good = (flags & GSS_C_ANON_FLAG) == 0 && who != GSS_C_NO_NAME && gss_display_name(&minor, who, &text, NULL) == GSS_S_COMPLETE;
	struct span name = {text.value, text.length};
	name.n -= name.n > 0 && name.at[name.n - 1] == '\0'; /* gss-ntlmssp counts it */
	good = good && take_ntlm_name(t, name);
	(void)gss_release_buffer(&minor, &text);
	if (good)
		talk_finish(t, INTEGRATED_GOOD, t->name);
	else
		talk_finish(t, INTEGRATED_BAD, "nobody of a name");
}

static void refuse_ntlm(struct talk *t, OM_uint32 minor)
{
	char why[100];
	gss_ntlm_reason(minor, why, sizeof why);
	talk_finish(t, INTEGRATED_BAD, why);
}

/* [MS-NLMP] 2.2.1, 2.2.2.5: messages have a version only where a flag says so.  gss-ntlmssp wants its place in the first one, and sets
 * the flag in the second one, which clients without a version (curl) give back in a third one that has none: unreadable to it. */
enum { NEGOTIATE_SHORT_N = 32, NEGOTIATE_N = 40, NEGOTIATE_FLAGS_AT = 15, CHALLENGE_FLAGS_AT = 23, VERSION_BIT = 2 };

static void step_ntlm(struct talk *t, struct span response)
{
	OM_uint32 minor, ignored, flags = 0;
	char whole[NEGOTIATE_N] = "";
	gss_buffer_desc in = {response.n, (void *)(uintptr_t)response.at}, out = GSS_C_EMPTY_BUFFER;
	gss_name_t who = GSS_C_NO_NAME;
	if (response.n == 0) { /* "AUTH NTLM": the first word is the client's */
		if (t->ntlm == GSS_C_NO_CONTEXT)
			talk_answer(t, INTEGRATED_GOES_ON, nothing);
		else
			talk_finish(t, INTEGRATED_BAD, "an empty answer");
		return;
	}
	bool versionless = t->ntlm == GSS_C_NO_CONTEXT && response.n >= NEGOTIATE_SHORT_N && (response.at[NEGOTIATE_FLAGS_AT] & VERSION_BIT) == 0;
	if (versionless && response.n < NEGOTIATE_N) {
		memcpy(whole, response.at, response.n);
		in = (gss_buffer_desc){sizeof whole, whole};
	}
	t->gssd->ntlm_n += t->ntlm != GSS_C_NO_CONTEXT;
	OM_uint32 major = gss_accept_sec_context(&minor, &t->ntlm, t->gssd->ntlm, &in, GSS_C_NO_CHANNEL_BINDINGS, &who, NULL, &out, &flags, NULL, NULL);
	if (versionless && out.length > CHALLENGE_FLAGS_AT)
		((char *)out.value)[CHALLENGE_FLAGS_AT] &= (char)~VERSION_BIT;
	if (major == GSS_S_CONTINUE_NEEDED)
		talk_answer(t, INTEGRATED_GOES_ON, (struct span){out.value, out.length});
	else if (major == GSS_S_COMPLETE)
		end_ntlm(t, who, flags);
	else
		refuse_ntlm(t, minor);
	(void)gss_release_buffer(&ignored, &out);
	(void)gss_release_name(&ignored, &who);
}

/* ---- what comes ---- */

static struct talk *find(const struct gssd *g, uint64_t serial)
{
	struct talk *t = g->talks;
	while (t != NULL && t->serial != serial)
		t = t->next;
	return t;
}

static void step(struct talk *t, bool first, struct span response)
{
	if (t->mechanism == MECHANISM_EXTERNAL)
		external_step(t, first, response);
	else if (t->mechanism == MECHANISM_NTLM)
		step_ntlm(t, response);
	else if (t->sasl != NULL)
		step_kerberos(t, first, response);
	else if (response.n == 0 && t->name[0] != '\0')
		talk_finish(t, INTEGRATED_GOOD, t->name);
	else
		talk_finish(t, INTEGRATED_BAD, "words after the last");
}

int talk_on_begin(struct channel *c, struct message *m)
{
	HANDLE(c, m, gss_begin, begin);
	struct gssd *g = c->program;
	if (begin.server >= g->proc.config.servers_n || (begin.mechanism & (begin.mechanism - 1)) != 0 || find(g, begin.serial) != NULL)
		return EBADMSG;
	struct talk *t = (g->offers[begin.server] & begin.mechanism) == 0 || g->talks_n >= TALKS_MOST ? NULL : calloc(1, sizeof *t);
	if (t == NULL) {
		send_gss_answer(c, (struct msg_gss_answer){.serial = begin.serial, .status = INTEGRATED_FAILED, .text = nothing}, -1);
		return 0;
	}
	*t = (struct talk){.gssd = g, .serial = begin.serial, .server = begin.server, .mechanism = begin.mechanism, .ntlm = GSS_C_NO_CONTEXT, .next = g->talks};
	g->talks = t;
	g->talks_n++;
	buffer_init(&t->certificates, CERTIFICATES_MOST);
	buffer_put_span(&t->certificates, begin.certificates);
	if ((t->mechanism & (MECHANISM_GSSAPI | MECHANISM_GS2_KRB5)) != 0) {
		if (gsasl_server_start(g->gsasl, t->mechanism == MECHANISM_GSSAPI ? "GSSAPI" : "GS2-KRB5", &t->sasl) != GSASL_OK) {
			t->sasl = NULL;
			talk_finish(t, INTEGRATED_FAILED, "");
			return 0;
		}
		gsasl_session_hook_set(t->sasl, t);
	}
	step(t, begin.initial == 0, begin.response);
	return 0;
}

int talk_on_step(struct channel *c, struct message *m)
{
	HANDLE(c, m, gss_step, said);
	struct talk *t = find(c->program, said.serial);
	if (t == NULL) /* begun with the gssd before this one */
		send_gss_answer(c, (struct msg_gss_answer){.serial = said.serial, .status = INTEGRATED_FAILED, .text = nothing}, -1);
	else
		step(t, false, said.response);
	return 0;
}

int talk_on_end(struct channel *c, struct message *m)
{
	HANDLE(c, m, gss_end, said);
	struct talk *t = find(c->program, said.serial);
	if (t != NULL)
		end(t);
	return 0;
}

void talk_end_all(struct gssd *g)
{
	while (g->talks != NULL)
		end(g->talks);
}

/* What the libraries load is loaded by first conversations, with ourselves. */
static void warm_up_kerberos(struct gssd *g)
{
	struct talk t = {.gssd = g};
	char *out = NULL;
	size_t n;
	while (t.server < g->proc.config.servers_n && (g->offers[t.server] & MECHANISM_GSSAPI) == 0)
		t.server++;
	if (t.server == g->proc.config.servers_n || gsasl_server_start(g->gsasl, "GSSAPI", &t.sasl) != GSASL_OK)
		return;
	gsasl_session_hook_set(t.sasl, &t);
	(void)gsasl_step(t.sasl, "x", 1, &out, &n);
	gsasl_free(out);
	gsasl_finish(t.sasl);
}

static void warm_up_ntlm(struct gssd *g)
{
	gss_buffer_desc in = GSS_C_EMPTY_BUFFER, out = GSS_C_EMPTY_BUFFER;
	gss_name_t target = GSS_C_NO_NAME;
	gss_cred_id_t cred = GSS_C_NO_CREDENTIAL;
	gss_ctx_id_t near = GSS_C_NO_CONTEXT, far = GSS_C_NO_CONTEXT;
	OM_uint32 minor;
	bool good = gss_smtp_of("localhost", &target) && gss_ntlm_login(SPAN_LIT("NOBODY\\warm"), SPAN_LIT("word"), &cred, &minor);
	for (int i = 0; i < 2 && good; i++) {
		good = !GSS_ERROR(gss_init_sec_context(&minor, cred, &far, target, gss_ntlm_mechanism(), 0, 0, GSS_C_NO_CHANNEL_BINDINGS, &in, NULL, &out, NULL, NULL));
		(void)gss_release_buffer(&minor, &in);
		good = good && !GSS_ERROR(gss_accept_sec_context(&minor, &near, g->ntlm, &out, GSS_C_NO_CHANNEL_BINDINGS, NULL, NULL, &in, NULL, NULL, NULL));
		(void)gss_release_buffer(&minor, &out);
	}
	(void)gss_release_buffer(&minor, &in);
	(void)gss_delete_sec_context(&minor, &near, GSS_C_NO_BUFFER);
	(void)gss_delete_sec_context(&minor, &far, GSS_C_NO_BUFFER);
	(void)gss_release_cred(&minor, &cred);
	(void)gss_release_name(&minor, &target);
}

int talk_setup(struct gssd *g)
{
	if (gsasl_init(&g->gsasl) != GSASL_OK)
		return ENOMEM;
	gsasl_callback_set(g->gsasl, callback);
	warm_up_kerberos(g);
	if (g->ntlm != GSS_C_NO_CREDENTIAL)
		warm_up_ntlm(g);
	return 0;
}
