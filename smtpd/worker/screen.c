#include "worker.h"

static bool set(const char *text)
{
	return text[0] != '\0';
}

bool screen_is_needed(const struct session *s, enum map_question q)
{
	const struct server_params *p = session_params(s);
	bool canonical = set(p->canonical_maps);
	switch (q) {
	case ASK_CLIENT: return set(p->client_access_maps);
	case ASK_SENDER: return set(p->sender_access_maps) || set(p->sender_canonical_maps) || canonical;
	case ASK_RECIPIENT_ACCESS: return set(p->recipient_access_maps) || set(p->recipient_canonical_maps) || canonical;
	case ASK_HEADER: return set(p->header_checks) || set(p->sender_canonical_maps) || set(p->recipient_canonical_maps) || canonical;
	case ASK_EXPANSION: case ASK_RECIPIENT: case ASK_RELAY: case ASK_LOGINS: case ASK_SECRET: case ASK_SENDER_NAME: case ASK_RECIPIENT_NAME: case ASK_OPERATOR: case ASK_COUNT: break;
	}
	return false;
}

/* ---- asking ---- */

static void ask(struct session *s)
{
	struct worker *w = s->worker;
	struct span about = s->question == ASK_CLIENT ? span_of(s->address) : s->question == ASK_HEADER ? (struct span){s->t->content.at, s->t->header_n} : s->t->asked_for;
	if (w->maps != NULL)
		send_map_query(w->maps, (struct msg_map_query){.serial = s->asked, .server = s->server, .question = s->question, .address = about}, -1);
}

void screen_ask(struct session *s, enum map_question q, struct span about, bool waits)
{
	struct worker *w = s->worker;
	if (s->t != NULL)
		s->t->asked_for = about;
	s->asked = ++w->questions;
	s->question = q;
	s->asked_ms = clock_mono_ms();
	s->is_asking = true;
	if (waits)
		s->state = ST_ASKING;
	s->next_asking = w->asking;
	w->asking = s;
	ask(s);
}

void screen_forget(struct session *s)
{
	struct session **p = &s->worker->asking;
	if (!s->is_asking)
		return;
	while (*p != s)
		p = &(*p)->next_asking;
	*p = s->next_asking;
	s->is_asking = false;
}

static size_t header_length(struct span content)
{
	struct span rest = content;
	struct header_field f;
	size_t n = 0;
	while (header_next(&rest, &f))
		n += f.whole.n;
	return n;
}

/* One that is longer than a packet holds can't be checked, and is not let through unchecked. */
void screen_header(struct session *s, bool waits)
{
	struct transaction *t = s->t;
	if (t->header_asked && waits)
		s->state = ST_ASKING;
	if (t->header_asked)
		return;
	t->header_asked = true;
	t->header_n = header_length(buffer_span(&t->content));
	if (t->header_n > IPC_INLINE || (!t->walk.done && t->content.n > IPC_INLINE)) {
		t->header_long = t->header_known = true;
		return;
	}
	screen_ask(s, ASK_HEADER, (struct span){"", 0}, waits);
}

bool screen_recipient_exists(struct session *s, const struct route *r)
{
	const struct server *server = &s->worker->proc.config.servers[s->server];
	const struct local_params *p = local_of(server, r->domain);
	struct transaction *t = s->t;
	struct delivery how;
	struct address a;
	bool needed = r->domain != NULL && r->domain->p.type == DOMAIN_REMOTE && outbound_of(server, r->domain)->relay_recipient_maps[0] != '\0';
	bool users = p->mailbox_user[0] == '\0' && delivery_parse(span_of(p->local_delivery), &how) == 0 && how.kind != DELIVERY_DROP && how.kind != DELIVERY_LMTP;
	if (r->kind == ROUTE_LOCAL)
		needed = p->recipient_check == 1 && (users || set(p->local_recipient_maps));
	if (!needed || address_parse(t->rcpts[t->rcpts_n].address, ADDRESS_UTF8, &a) != 0)
		return true;
	/* an alias domain's addresses are the default domain's */
	struct span domain = r->reason == ROUTE_BY_ALIAS_DOMAIN ? span_of(server->p.default_domain) : a.domain;
	screen_ask(s, r->kind == ROUTE_LOCAL ? ASK_RECIPIENT : ASK_RELAY, span_of(arena_printf(&t->arena, "%.*s@%.*s", SPAN_ARG(a.local), SPAN_ARG(domain))), true);
	return false;
}

/* ---- answers ---- */

static void log_refusal(struct session *s, enum reply r, struct span why)
{
	bool rcpt = s->t != NULL && (s->question == ASK_RECIPIENT_ACCESS || s->question == ASK_RECIPIENT || s->question == ASK_RELAY);
	struct span from = s->t == NULL ? span_of("") : s->t->sender, to = rcpt ? s->t->rcpts[s->t->rcpts_n].address : span_of("");
	LOG(&s->worker->proc.log, refused_command, NO_ID, F("client", span_of(s->address)), F("from", from), F("to", to), F("reply", span_of(reply_row(r)->text)), F("detail", why));
}

/* "ACTION text" of a table; REPLY_COUNT: it goes on. */
static enum reply take_action(struct session *s, struct span value, struct span *why)
{
	struct span rest = value, word = span_word(&rest, " ");
	*why = span_trim(rest);
	if (span_is(word, "REJECT"))
		return REPLY_SCREEN_REJECTED;
	if (span_is(word, "DEFER"))
		return REPLY_SCREEN_DEFERRED;
	*why = (struct span){"", 0};
	bool hold = span_is(word, "HOLD"), discard = span_is(word, "DISCARD");
	if (s->t == NULL) {
		s->hold = s->hold || hold;
		s->discard = s->discard || discard;
	} else {
		s->t->hold = s->t->hold || hold;
		s->t->discard = s->t->discard || discard;
	}
	return REPLY_COUNT;
}

static void client_answered(struct session *s, enum reply r, struct span why)
{
	if (r == REPLY_COUNT || r == REPLY_SCREEN_REJECTED) {
		session_greet(s, r != REPLY_COUNT, why);
		return;
	}
	session_end(s, REPLY_SCREEN_CLOSED);
	session_run(s);
}

/* maps has looked at it, but it reads what others wrote. */
static bool take_name(struct transaction *t, struct span *place, struct span changed)
{
	struct address a;
	if (changed.n == 0)
		return true;
	if (address_parse(changed, ADDRESS_UTF8, &a) != 0)
		return false;
	*place = arena_span(&t->arena, changed);
	t->mail.smtputf8 = t->mail.smtputf8 || a.utf8; /* RFC 6531 3.2: whoever passes it on needs the extension */
	return true;
}

static void sender_answered(struct session *s, enum reply r, struct span why, struct span changed)
{
	struct transaction *t = s->t;
	if (r == REPLY_COUNT && !take_name(t, &t->sender, changed))
		r = REPLY_SCREEN_UNCHECKED;
	if (r == REPLY_COUNT && t->arena.failed)
		r = REPLY_NO_STORAGE;
	if (r != REPLY_COUNT)
		session_reset(s);
	else
		s->phase = PHASE_MAIL;
	session_put(s, r == REPLY_COUNT ? REPLY_MAIL_OK : r, why);
	session_run(s);
}

static void recipient_answered(struct session *s, enum reply r, struct span why, struct span changed)
{
	struct transaction *t = s->t;
	if (r == REPLY_COUNT && !take_name(t, &t->rcpts[t->rcpts_n].address, changed))
		r = REPLY_SCREEN_UNCHECKED;
	if (r == REPLY_COUNT)
		r = t->arena.failed ? REPLY_NO_STORAGE : mail_route_recipient(s);
	if (r != REPLY_COUNT)
		session_put(s, r, why);
	session_run(s);
}

static void header_answered(struct session *s, enum reply r, struct span why, struct span changed)
{
	struct transaction *t = s->t;
	struct buffer fresh;
	t->screened = r;
	t->screened_why = arena_span(&t->arena, why);
	if (r == REPLY_COUNT && changed.n > 0) {
		buffer_init(&fresh, t->content.limit);
		buffer_put_span(&fresh, changed);
		hop_replace_header(s, t->header_n, &fresh);
	}
	body_go_on(s);
	session_run(s);
}

/* The address may be sent as by each of the logins that maps has said (MISSION C3). */
static void logins_answered(struct session *s, const struct msg_map_answer *answer)
{
	enum reply r = answer->status == ANSWER_FAILED ? REPLY_SCREEN_UNCHECKED : REPLY_SENDER_NOT_OWNED;
	struct span rest = answer->status == ANSWER_ADDRESSES ? answer->value : (struct span){"", 0};
	for (struct span login; (login = span_word(&rest, " \t,")).n > 0;)
		s->t->owned = s->t->owned || span_case_is(login, s->login->name);
	if (s->t->owned)
		r = mail_screen_sender(s);
	else
		log_refusal(s, r, span_of(s->login->name));
	if (r == REPLY_COUNT)
		return;
	if (r != REPLY_MAIL_OK)
		session_reset(s);
	session_put(s, r, (struct span){"", 0});
	session_run(s);
}

/* May free s. */
static void take_answer(struct session *s, const struct msg_map_answer *answer)
{
	struct span why = {"", 0};
	enum reply r = REPLY_COUNT;
	enum map_question q = (enum map_question)s->question;
	bool failed = answer->status == ANSWER_FAILED;
	screen_forget(s);
	if (q == ASK_LOGINS) {
		s->state = ST_COMMAND;
		session_arm(s);
		logins_answered(s, answer);
		return;
	}
	if (q == ASK_RECIPIENT || q == ASK_RELAY) {
		r = failed ? REPLY_RCPT_UNCHECKED : answer->status == ANSWER_NONE ? REPLY_RCPT_UNKNOWN : REPLY_RCPT_OK;
		if (r != REPLY_RCPT_OK)
			log_refusal(s, r, why);
	} else {
		r = failed ? REPLY_SCREEN_UNCHECKED : take_action(s, answer->value, &why);
		if (r != REPLY_COUNT && q != ASK_HEADER)
			log_refusal(s, r, why);
	}
	struct span changed = failed ? (struct span){"", 0} : answer->address;
	if (q == ASK_HEADER) {
		header_answered(s, r, why, changed);
		return;
	}
	s->state = ST_COMMAND;
	session_arm(s);
	if (q == ASK_CLIENT) {
		client_answered(s, r, why);
	} else if (q == ASK_SENDER) {
		sender_answered(s, r, why, changed);
	} else if (q == ASK_RECIPIENT_ACCESS) {
		recipient_answered(s, r, why, changed);
	} else {
		session_put(s, r == REPLY_RCPT_OK ? mail_take_recipient(s) : r, why);
		session_run(s);
	}
}

int screen_on_answer(struct channel *c, struct message *m)
{
	HANDLE(c, m, map_answer, answer);
	struct worker *w = c->program;
	struct session *s = w->asking;
	while (s != NULL && s->asked != answer.serial)
		s = s->next_asking;
	if (s != NULL)
		take_answer(s, &answer);
	return 0;
}

/* A reload replaces maps, a table may be slow: what is asked waits for its answer, within limits. */
void screen_ask_again(struct worker *w)
{
	for (struct session *s = w->asking; s != NULL; s = s->next_asking)
		ask(s);
}

void screen_late(struct worker *w, int64_t now_ms)
{
	const struct msg_map_answer none = {.status = ANSWER_FAILED};
	struct session *next;
	for (struct session *s = w->asking; s != NULL; s = next) {
		next = s->next_asking;
		if (now_ms - s->asked_ms >= ASK_MS)
			take_answer(s, &none);
	}
}
