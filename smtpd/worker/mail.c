#include "worker.h"

#include <stdlib.h>
#include <string.h>

struct transaction *mail_make_transaction(struct session *s)
{
	struct transaction *t = calloc(1, sizeof *t);
	if (t == NULL)
		return NULL;
	t->credit = BODY_CREDIT;
	t->screened = REPLY_COUNT;
	t->discard = s->discard;
	buffer_init(&t->content, 4 * 1024 * 1024);
	buffer_init(&t->received, 4096);
	header_walk_init(&t->walk);
	s->t = t;
	return t;
}

static void copy_address(struct span *out, struct arena *arena, const struct address *a, const char *default_domain)
{
	struct span domain = a->domain.n == 0 ? span_of(default_domain) : a->domain;
	size_t n = a->local.n + 1 + domain.n;
	char *text = address_is_null(a) ? NULL : arena_alloc(arena, n);
	*out = (struct span){"", 0};
	if (text == NULL)
		return;
	memcpy(text, a->local.at, a->local.n);
	text[a->local.n] = '@';
	memcpy(text + a->local.n + 1, domain.at, domain.n);
	*out = (struct span){text, n};
}

enum reply mail_begin(struct session *s, struct span args)
{
	const struct server_params *p = session_params(s);
	struct mail_args m;
	enum reply r = mail_args_parse(args, &m);
	if (r != REPLY_MAIL_OK)
		return r;
	if (m.requiretls && s->ssl == NULL) /* not offered there (RFC 8689 2 (4)) */
		return REPLY_PARAM_UNKNOWN;
	if (p->message_size_limit != PARAM_UNLIMITED && m.size > (uint64_t)p->message_size_limit)
		return REPLY_TOO_BIG;
	if (s->worker->content_bytes >= (uint64_t)p->session_memory)
		return REPLY_NO_STORAGE;
	struct transaction *t = mail_make_transaction(s);
	if (t == NULL)
		return REPLY_NO_STORAGE;
	t->mail = m;
	copy_address(&t->sender, &t->arena, &m.sender, p->default_domain);
	t->mail.envid = arena_span(&t->arena, m.envid);
	if (t->arena.failed) {
		session_reset(s);
		return REPLY_NO_STORAGE;
	}
	return client_rate(s, RATE_MESSAGES) ? REPLY_COUNT : mail_screen_sender(s);
}

enum reply mail_screen_sender(struct session *s)
{
	if (session_has_login(s) && session_params(s)->sender_login_map[0] != '\0' && s->t->sender.n > 0 && !s->t->owned) {
		screen_ask(s, ASK_LOGINS, s->t->sender, true);
		return REPLY_COUNT;
	}
	if (screen_is_needed(s, ASK_SENDER)) {
		screen_ask(s, ASK_SENDER, s->t->sender, true);
		return REPLY_COUNT;
	}
	s->phase = PHASE_MAIL;
	return REPLY_MAIL_OK;
}

static int grow_recipients(struct transaction *t)
{
	if (t->rcpts_n < t->rcpts_size)
		return 0;
	size_t n = t->rcpts_size == 0 ? 4 : t->rcpts_size * 2;
	struct envelope_rcpt *more = realloc(t->rcpts, n * sizeof *more);
	if (more == NULL)
		return ENOMEM;
	t->rcpts = more;
	t->rcpts_size = n;
	return 0;
}

enum reply mail_take_recipient(struct session *s)
{
	struct transaction *t = s->t;
	const struct envelope_rcpt *e = &t->rcpts[t->rcpts_n++];
	t->rcpts_bytes += e->address.n + e->orcpt.n + 32;
	s->phase = PHASE_RCPT;
	return REPLY_RCPT_OK;
}

static enum reply refuse_relay(struct session *s, struct span recipient, enum reply r)
{
	LOG(&s->worker->proc.log, refused_command, NO_ID, F("client", span_of(s->address)), F("from", s->t->sender), F("to", recipient),
		F("reply", span_of(reply_row(r)->text)));
	return r;
}

enum reply mail_route_recipient(struct session *s)
{
	const struct server *server = &s->worker->proc.config.servers[s->server];
	struct span recipient = s->t->rcpts[s->t->rcpts_n].address;
	struct address a;
	struct route route;
	enum relay_reason why;
	if (address_parse(recipient, ADDRESS_UTF8, &a) != 0)
		return REPLY_BAD_RECIPIENT;
	route_find(server, &a, &route);
	struct relay_client client = {.address = (struct sockaddr *)&s->client, .names = s->names == NULL ? NULL : &s->names->reverse,
		.logged_in = session_has_login(s)};
	enum relay_answer relay = relay_decide(server, &s->worker->servers[s->server].relay_exceptions, &client, &route, &why);
	if (relay == RELAY_NEEDS_NAMES && client_names_wait(s, NAMES_FOR_RELAY))
		return REPLY_COUNT;
	if (relay != RELAY_TAKEN)
		return refuse_relay(s, recipient, relay == RELAY_REFUSED ? REPLY_NO_RELAY : REPLY_RELAY_UNCHECKED);
	return screen_recipient_exists(s, &route) ? mail_take_recipient(s) : REPLY_COUNT;
}

enum reply mail_recipient(struct session *s, struct span args)
{
	const struct server *server = &s->worker->proc.config.servers[s->server];
	struct transaction *t = s->t;
	struct rcpt_args r;
	enum reply reply = rcpt_args_parse(args, t->mail.smtputf8, &r);
	if (reply != REPLY_RCPT_OK)
		return reply;
	size_t bytes = r.recipient.local.n + r.recipient.domain.n + r.orcpt.n + 32;
	if ((int64_t)t->rcpts_n >= server->p.out.recipient_limit || t->rcpts_bytes + bytes > ENVELOPE_LIMIT)
		return REPLY_RCPT_LIMIT;
	if (grow_recipients(t) != 0)
		return REPLY_NO_STORAGE;
	struct envelope_rcpt *e = &t->rcpts[t->rcpts_n];
	*e = (struct envelope_rcpt){.notify = r.notify, .orcpt = arena_span(&t->arena, r.orcpt)};
	copy_address(&e->address, &t->arena, &r.recipient, server->p.default_domain);
	if (t->arena.failed)
		return REPLY_NO_STORAGE;
	return client_rate(s, RATE_RECIPIENTS) ? REPLY_COUNT : mail_screen_recipient(s);
}

enum reply mail_screen_recipient(struct session *s)
{
	if (screen_is_needed(s, ASK_RECIPIENT_ACCESS)) {
		screen_ask(s, ASK_RECIPIENT_ACCESS, s->t->rcpts[s->t->rcpts_n].address, true);
		return REPLY_COUNT;
	}
	return mail_route_recipient(s);
}
