/* Certificates come from keyd, which has their keys: it is asked for each signature, and a handshake rests meanwhile. */
#include "worker.h"

#include <stdlib.h>
#include <string.h>

enum { STAPLE_MOST = 32 * 1024, STAPLES_MOST = 1000, AUTHORITIES_MOST = 1024 * 1024 };
enum { KEY_WAIT_MS = 5000 }; /* for a signature, and for the first certificates after a start */

static void offers_free(struct key_offer *o)
{
	for (struct key_offer *next; o != NULL; o = next) {
		next = o->next;
		free(o->name);
		free(o->chain);
		free(o);
	}
}

static void contexts_free(struct key_context *c)
{
	for (struct key_context *next; c != NULL; c = next) {
		next = c->next;
		SSL_CTX_free(c->context); /* sessions that use it have it still */
		free(c->name);
		free(c);
	}
}

static SSL_CTX *context_of(const struct worker_server *ws, struct span name)
{
	for (const struct key_context *c = ws->contexts; c != NULL; c = c->next)
		if (span_case_is(name, c->name))
			return c->context;
	return NULL;
}

/* The name itself, then *.what is above it, the longest first (MISSION C7). */
static SSL_CTX *choose(void *owner, const char *host)
{
	const struct session *s = owner;
	const struct worker_server *ws = &s->worker->servers[s->server];
	SSL_CTX *c = host[0] == '\0' ? NULL : context_of(ws, span_of(host));
	char wild[260];
	for (const char *dot = strchr(host, '.'); c == NULL && dot != NULL && strlen(dot) < sizeof wild - 1; dot = strchr(dot + 1, '.')) {
		(void)snprintf(wild, sizeof wild, "*%s", dot);
		c = context_of(ws, span_of(wild));
	}
	return c != NULL ? c : ws->tls;
}

/* ---- what authorities say of certificates ---- */

static struct span staple_of(void *owner, const unsigned char id[TLS_CERTIFICATE_ID])
{
	const struct session *s = owner;
	for (const struct staple *p = s->worker->staples; p != NULL; p = p->next)
		if (memcmp(p->id, id, sizeof p->id) == 0)
			return (struct span){p->response, p->n};
	return (struct span){"", 0};
}

static void drop_staple(struct worker *w, const void *id)
{
	struct staple **p = &w->staples;
	while (*p != NULL && memcmp((*p)->id, id, sizeof (*p)->id) != 0)
		p = &(*p)->next;
	struct staple *old = *p;
	if (old == NULL)
		return;
	*p = old->next;
	w->staples_n--;
	free(old);
}

int keys_on_staple(struct channel *c, struct message *m)
{
	HANDLE(c, m, staple, said);
	struct worker *w = c->program;
	if (said.certificate.n != TLS_CERTIFICATE_ID || said.response.n > STAPLE_MOST)
		return EBADMSG;
	drop_staple(w, said.certificate.at);
	struct staple *p = said.response.n == 0 || w->staples_n >= STAPLES_MOST ? NULL : malloc(sizeof *p + said.response.n);
	if (p == NULL)
		return 0;
	p->n = said.response.n;
	memcpy(p->id, said.certificate.at, sizeof p->id);
	memcpy(p->response, said.response.at, said.response.n);
	p->next = w->staples;
	w->staples = p;
	w->staples_n++;
	return 0;
}

static bool is_made(const struct key_context *list, const char *name)
{
	for (; list != NULL; list = list->next)
		if (strcmp(list->name, name) == 0)
			return true;
	return false;
}

static struct key_context *make_context(struct worker *w, uint32_t server, const char *name)
{
	struct worker_server *ws = &w->servers[server];
	const struct server *about = &w->proc.config.servers[server];
	struct tls_levels levels = {about->p.tls_minimum, about->p.tls_ciphers, about->p.tls_minimum_bits};
	struct tls_pair pairs[KEY_KINDS];
	struct complaint why = {0};
	size_t n = 0;
	for (const struct key_offer *o = ws->offers; o != NULL && n < KEY_KINDS; o = o->next) {
		if (strcmp(o->name, name) != 0)
			continue;
		pairs[n].chain = (struct span){o->chain, o->chain_n};
		memcpy(pairs[n++].key, o->key, TLS_KEY_ID);
	}
	struct key_context *c = calloc(1, sizeof *c);
	if (c == NULL)
		return NULL;
	c->name = strdup(name);
	c->context = c->name == NULL ? NULL : tls_server_context(pairs, n, about->name, &ws->tickets, &levels, &why);
	if (c->context != NULL) {
		tls_choose_by_name(c->context, choose);
		tls_staple(c->context, staple_of);
		if (ws->authorities.n > 0 && tls_ask_clients(c->context, buffer_span(&ws->authorities)) != 0)
			LOG(&w->proc.log, tls_unusable, NO_ID, F("server", span_of(about->name)), F("name", span_of(about->p.tls_client_ca_file)), F("reason", SPAN_LIT("it has no certificate")));
		return c;
	}
	LOG(&w->proc.log, tls_unusable, NO_ID, F("server", span_of(about->name)), F("name", span_of(name)), F("reason", span_of(why.reason)));
	contexts_free(c);
	return NULL;
}

static void make_contexts(struct worker *w, uint32_t server)
{
	struct worker_server *ws = &w->servers[server];
	struct key_context *fresh = NULL;
	for (const struct key_offer *o = ws->offers; o != NULL; o = o->next) {
		struct key_context *c = is_made(fresh, o->name) ? NULL : make_context(w, server, o->name);
		if (c == NULL)
			continue;
		c->next = fresh;
		fresh = c;
	}
	contexts_free(ws->contexts);
	ws->contexts = fresh;
	ws->tls = context_of(ws, (struct span){"", 0});
}

void keys_reload(struct worker *w)
{
	for (uint32_t i = 0; i < w->proc.config.servers_n; i++) {
		if (w->proc.config.servers[i].p.tls_client_ca_file[0] == '\0')
			buffer_free(&w->servers[i].authorities);
		make_contexts(w, i);
	}
}

int keys_on_authorities(struct channel *c, struct message *m)
{
	HANDLE(c, m, client_authorities, said);
	struct worker *w = c->program;
	struct buffer text;
	if (m->fds_n != 1 || said.server >= w->proc.config.servers_n)
		return EBADMSG;
	buffer_init(&text, AUTHORITIES_MOST + 1);
	int error = read_given_file(m->fds[0], AUTHORITIES_MOST, &text);
	if (error != 0) {
		LOG(&w->proc.log, tls_unusable, NO_ID, F("server", span_of(w->proc.config.servers[said.server].name)), F("name", said.file), F("reason", span_of(strerror(error))));
		buffer_free(&text);
		return 0;
	}
	buffer_free(&w->servers[said.server].authorities);
	w->servers[said.server].authorities = text;
	make_contexts(w, said.server);
	return 0;
}

int keys_on_offer(struct channel *c, struct message *m)
{
	HANDLE(c, m, key_offer, said);
	struct worker *w = c->program;
	struct key_offer *o = calloc(1, sizeof *o);
	if (o == NULL || said.server >= SERVERS_MOST || said.key.n != TLS_KEY_ID) {
		free(o);
		return EBADMSG;
	}
	memcpy(o->key, said.key.at, TLS_KEY_ID);
	o->name = strndup(said.name.at, said.name.n);
	o->chain = malloc(said.chain.n + 1);
	if (o->name == NULL || o->chain == NULL) {
		offers_free(o);
		return ENOMEM;
	}
	memcpy(o->chain, said.chain.at, said.chain.n);
	o->chain_n = said.chain.n;
	struct key_offer **end = &w->servers[said.server].fresh_offers;
	while (*end != NULL)
		end = &(*end)->next;
	*end = o;
	return 0;
}

static void let_in(struct worker *w, bool all, int64_t now)
{
	for (uint32_t i = 0; i < w->proc.config.servers_n; i++)
		for (struct session *s = w->servers[i].oldest, *next; s != NULL; s = next) {
			next = s->newer;
			if (s->awaits_keys && (all || now - s->opened_ms >= KEY_WAIT_MS))
				session_let_in(s);
		}
}

int keys_on_offers_end(struct channel *c, struct message *m)
{
	HANDLE(c, m, key_offers_end, end);
	struct worker *w = c->program;
	for (uint32_t i = 0; i < w->proc.config.servers_n; i++) {
		struct worker_server *ws = &w->servers[i];
		offers_free(ws->offers);
		ws->offers = ws->fresh_offers;
		ws->fresh_offers = NULL;
		make_contexts(w, i);
	}
	w->keys_known = true;
	let_in(w, true, 0);
	return 0;
}

int keys_on_tickets(struct channel *c, struct message *m)
{
	HANDLE(c, m, ticket_keys, said);
	struct worker *w = c->program;
	if (said.server >= SERVERS_MOST || said.keys.n % TICKET_KEY != 0 || said.keys.n > TICKET_KEYS * TICKET_KEY)
		return EBADMSG;
	struct tls_tickets *t = &w->servers[said.server].tickets;
	explicit_bzero(t, sizeof *t);
	memcpy(t->keys, said.keys.at, said.keys.n);
	t->n = said.keys.n / TICKET_KEY;
	return 0;
}

static void ask(struct worker *w, const struct session_signing *g)
{
	if (w->keyd != NULL)
		send_sign(w->keyd, (struct msg_sign){.serial = g->serial, .key = {(const char *)g->key, sizeof g->key}, .scheme = g->scheme, .text = {g->text, g->n}}, -1);
}

/* Runs within the handshake's job, on its small stack. */
int keys_sign(void *owner, const unsigned char key[TLS_KEY_ID], uint16_t scheme, struct span text)
{
	struct session *s = owner;
	struct worker *w = s->worker;
	struct session_signing *g = text.n > TLS_TEXT ? NULL : calloc(1, sizeof *g);
	if (g == NULL)
		return ENOMEM;
	*g = (struct session_signing){.session = s, .serial = ++w->signatures, .asked_ms = clock_mono_ms(), .scheme = scheme, .n = text.n, .next = w->signing};
	memcpy(g->key, key, TLS_KEY_ID);
	memcpy(g->text, text.at, text.n);
	w->signing = g;
	ask(w, g);
	return 0;
}

static struct session_signing *take(struct session_signing **g)
{
	struct session_signing *one = *g;
	*g = one->next;
	return one;
}

static void goes_on(struct worker *w, struct session_signing *g, struct span signature)
{
	struct session *s = g->session;
	free(g);
	tls_signed(s->ssl, signature);
	session_handshake(s);
	struct session *waits = w->jobless; /* one job is free */
	if (waits == NULL)
		return;
	w->jobless = waits->next_jobless;
	waits->next_jobless = NULL;
	waits->is_jobless = false;
	session_handshake(waits);
}

int keys_on_signed(struct channel *c, struct message *m)
{
	HANDLE(c, m, signed, said);
	struct worker *w = c->program;
	struct session_signing **g = &w->signing;
	while (*g != NULL && (*g)->serial != said.serial)
		g = &(*g)->next;
	if (*g != NULL)
		goes_on(w, take(g), said.signature);
	return 0;
}

/* Too many wait for a signature: it comes when one of them has it. */
void keys_queue(struct session *s)
{
	struct session **end = &s->worker->jobless;
	while (*end != NULL)
		end = &(*end)->next_jobless;
	*end = s;
	s->is_jobless = true;
}

void keys_forget(struct session *s)
{
	struct worker *w = s->worker;
	for (struct session_signing **g = &w->signing; *g != NULL; g = &(*g)->next)
		if ((*g)->session == s) {
			free(take(g));
			break;
		}
	for (struct session **p = &w->jobless; s->is_jobless && *p != NULL; p = &(*p)->next_jobless)
		if (*p == s) {
			*p = s->next_jobless;
			break;
		}
}

void keys_ask_again(struct worker *w)
{
	for (uint32_t i = 0; i < w->proc.config.servers_n; i++) { /* what its predecessor had begun to say */
		offers_free(w->servers[i].fresh_offers);
		w->servers[i].fresh_offers = NULL;
	}
	for (const struct session_signing *g = w->signing; g != NULL; g = g->next)
		ask(w, g);
}

void keys_late(struct worker *w, int64_t now)
{
	let_in(w, false, now);
	for (struct session_signing **g = &w->signing; *g != NULL;) {
		if (now - (*g)->asked_ms < KEY_WAIT_MS) {
			g = &(*g)->next;
			continue;
		}
		goes_on(w, take(g), (struct span){"", 0});
		g = &w->signing; /* what went on may have asked */
	}
}
