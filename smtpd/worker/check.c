/* Recipients that do not exist are refused at the door: nothing is returned to a sender who may be forged (MISSION E5). */
#include "worker.h"

bool check_is_needed(const struct server *server, const struct route *r)
{
	struct delivery how;
	if (r->kind != ROUTE_LOCAL)
		return r->domain != NULL && r->domain->p.type == DOMAIN_REMOTE && outbound_of(server, r->domain)->relay_recipient_maps[0] != '\0';
	const struct local_params *p = local_of(server, r->domain);
	if (p->recipient_check == 0)
		return false;
	if (p->local_recipient_maps[0] != '\0')
		return true;
	return p->mailbox_user[0] == '\0' && delivery_parse(span_of(p->local_delivery), &how) == 0 && how.kind != DELIVERY_DROP && how.kind != DELIVERY_LMTP;
}

static void ask(struct session *s)
{
	struct worker *w = s->worker;
	if (w->maps != NULL)
		send_map_query(w->maps, (struct msg_map_query){.serial = s->asked, .server = s->server, .question = s->question, .address = s->t->asked_for}, -1);
}

enum reply check_begin(struct session *s, const struct route *r)
{
	struct worker *w = s->worker;
	struct transaction *t = s->t;
	struct address a;
	if (address_parse(t->rcpts[t->rcpts_n].address, ADDRESS_UTF8, &a) != 0)
		return REPLY_RCPT_UNCHECKED;
	/* an alias domain's addresses are the default domain's */
	struct span domain = r->reason == ROUTE_BY_ALIAS_DOMAIN ? span_of(session_params(s)->default_domain) : a.domain;
	t->asked_for = span_of(arena_printf(&t->arena, "%.*s@%.*s", SPAN_ARG(a.local), SPAN_ARG(domain)));
	if (t->arena.failed)
		return REPLY_NO_STORAGE;
	s->asked = ++w->questions;
	s->question = r->kind == ROUTE_LOCAL ? ASK_RECIPIENT : ASK_RELAY;
	s->asked_ms = clock_mono_ms();
	s->state = ST_ASKING;
	s->next_hash = w->asking;
	w->asking = s;
	ask(s);
	return REPLY_COUNT;
}

void check_forget(struct session *s)
{
	struct session **p = &s->worker->asking;
	if (s->state != ST_ASKING)
		return;
	while (*p != s)
		p = &(*p)->next_hash;
	*p = s->next_hash;
	s->state = ST_COMMAND;
}

/* May free s. */
static void say(struct session *s, enum reply r)
{
	struct span recipient = s->t->rcpts[s->t->rcpts_n].address;
	check_forget(s);
	session_reply(s, r == REPLY_RCPT_OK ? mail_take_recipient(s) : r, (struct span){"", 0});
	if (r != REPLY_RCPT_OK)
		LOG(&s->worker->proc.log, refused_command, NO_ID, F("client", span_of(s->address)), F("from", s->t->sender), F("to", recipient),
			F("reply", span_of(reply_row(r)->text)));
	session_arm(s);
	session_run(s);
}

int check_on_answer(struct channel *c, struct message *m)
{
	HANDLE(c, m, map_answer, answer);
	struct worker *w = c->program;
	struct session *s = w->asking;
	while (s != NULL && s->asked != answer.serial)
		s = s->next_hash;
	if (s != NULL)
		say(s, answer.status == ANSWER_FAILED ? REPLY_RCPT_UNCHECKED : answer.status == ANSWER_NONE ? REPLY_RCPT_UNKNOWN : REPLY_RCPT_OK);
	return 0;
}

/* A reload replaces maps, a table may be slow: what is asked waits for its answer, within limits. */
void check_ask_again(struct worker *w)
{
	for (struct session *s = w->asking; s != NULL; s = s->next_hash)
		ask(s);
}

void check_late(struct worker *w, int64_t now_ms)
{
	struct session *next;
	for (struct session *s = w->asking; s != NULL; s = next) {
		next = s->next_hash;
		if (now_ms - s->asked_ms >= ASK_MS)
			say(s, REPLY_RCPT_UNCHECKED);
	}
}
