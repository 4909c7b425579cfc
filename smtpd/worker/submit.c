/* From a complete content to its 250: envelope, hand-over, the answer "durable". */
#include "worker.h"

#include <stdlib.h>
#include <string.h>

uint64_t submit_size(const struct transaction *t)
{
	return (uint64_t)((int64_t)t->size + t->rewritten_bytes) + t->received.n;
}

static struct session **bucket_of(struct worker *w, const struct qid *id)
{
	return &w->waiting[qid_hash(id) % WAIT_BUCKETS];
}

static struct session *find_waiting(struct worker *w, struct span text)
{
	struct qid id;
	if (qid_parse(text, &id) != 0)
		return NULL;
	struct session *s = *bucket_of(w, &id);
	while (s != NULL && !qid_same(&s->t->id, &id))
		s = s->next_hash;
	return s;
}

static bool is_waiting(struct session *s)
{
	if (s->t == NULL || s->t->id.text[0] == '\0')
		return false;
	for (struct session *o = *bucket_of(s->worker, &s->t->id); o != NULL; o = o->next_hash)
		if (o == s)
			return true;
	return false;
}

static void wait_for_answer(struct session *s)
{
	struct session **bucket = bucket_of(s->worker, &s->t->id);
	if (is_waiting(s))
		return;
	s->next_hash = *bucket;
	*bucket = s;
}

void submit_forget(struct session *s)
{
	if (!is_waiting(s))
		return;
	struct session **p = bucket_of(s->worker, &s->t->id);
	while (*p != s)
		p = &(*p)->next_hash;
	*p = s->next_hash;
	struct channel *mover = s->worker->servers[s->server].mover;
	if (s->t->in_file && !s->t->submitted && mover != NULL)
		send_body_drop(mover, (struct msg_body_drop){.id = qid_span(&s->t->id)}, -1);
}

/* ---- large contents go to the mover piece by piece ---- */

static bool begin_file(struct session *s, struct channel *mover)
{
	struct transaction *t = s->t;
	t->in_file = true;
	wait_for_answer(s);
	send_body_begin(mover, (struct msg_body_begin){.id = qid_span(&t->id)}, -1);
	send_body_data(mover, (struct msg_body_data){.id = qid_span(&t->id), .content = buffer_span(&t->received)}, -1);
	t->credit--;
	return true;
}

bool submit_spill(struct session *s)
{
	struct transaction *t = s->t;
	struct channel *mover = s->worker->servers[s->server].mover;
	if (mover == NULL)
		return false;
	if (!t->in_file && !begin_file(s, mover))
		return false;
	size_t at = 0;
	bool complete = s->state == ST_COMMITTING;
	while (t->credit > 0 && (t->content.n - at >= IPC_INLINE || (complete && t->content.n > at))) {
		size_t n = t->content.n - at < IPC_INLINE ? t->content.n - at : IPC_INLINE;
		send_body_data(mover, (struct msg_body_data){.id = qid_span(&t->id), .content = {t->content.at + at, n}}, -1);
		channel_flush(mover);
		t->credit--;
		at += n;
	}
	buffer_drop(&t->content, at);
	s->worker->content_bytes -= at;
	return true;
}

/* ---- the hand-over ---- */

static void build_envelope(const struct session *s, struct buffer *out)
{
	const struct transaction *t = s->t;
	struct envelope e = {.sender = t->sender, .arrived_us = t->arrived_us, .hops = t->walk.received, .ret = t->mail.ret,
		.size = submit_size(t), .envid = t->mail.envid, .client = span_of(s->address), .helo = span_of(s->helo),
		.protocol = span_of(s->esmtp ? "ESMTP" : "SMTP"), .login = span_of(session_has_login(s) ? s->login->name : ""), .rcpts = t->rcpts, .rcpts_n = t->rcpts_n};
	e.flags = (t->walk.eight_bit ? ENV_8BIT : 0u) | (t->mail.smtputf8 ? ENV_UTF8 : 0u) |
		(t->mail.body == BODY_BINARYMIME ? ENV_BINARY : 0u) | (t->in_file ? ENV_BODY_FILE : 0u) | (t->hold || s->hold ? ENV_HELD : 0u) |
		(t->mail.requiretls ? ENV_REQUIRETLS : t->walk.tls_optional ? ENV_TLS_OPTIONAL : 0u);
	buffer_clear(out);
	envelope_put(out, &e);
}

/* Content that does not fit beside its envelope goes ahead in parts. */
static void send_parts(struct channel *c, const struct transaction *t, size_t *sent)
{
	while (t->content.n - *sent + t->received.n > IPC_INLINE) {
		size_t n = t->content.n - *sent < IPC_INLINE ? t->content.n - *sent : IPC_INLINE;
		bool first = *sent == 0;
		size_t mark;
		channel_begin(c, MSG_submit_part, &mark);
		buffer_put_lspan(&c->out, qid_span(&t->id));
		buffer_put_u32(&c->out, (uint32_t)(n + (first ? t->received.n : 0)));
		if (first)
			buffer_put_span(&c->out, buffer_span(&t->received));
		buffer_put(&c->out, t->content.at + *sent, n);
		channel_end(c, mark, -1);
		*sent += n;
	}
}

static void hand_over(struct session *s)
{
	struct transaction *t = s->t;
	struct channel *c = s->worker->servers[s->server].cleanup;
	struct buffer *envelope = &s->worker->envelope;
	size_t mark, sent = 0;
	if (c == NULL)
		return; /* it is being replaced: submit_all_again follows */
	t->submitted = true;
	build_envelope(s, envelope);
	if (!t->in_file)
		send_parts(c, t, &sent);
	channel_begin(c, MSG_submit, &mark);
	buffer_put_lspan(&c->out, qid_span(&t->id));
	buffer_put_lspan(&c->out, session_has_login(s) ? (struct span){(const char *)s->login->proof, LOGIN_PROOF} : (struct span){"", 0});
	buffer_put_lspan(&c->out, buffer_span(envelope));
	if (t->in_file) {
		buffer_put_u32(&c->out, 0);
	} else {
		size_t head = sent == 0 ? t->received.n : 0;
		buffer_put_u32(&c->out, (uint32_t)(head + t->content.n - sent));
		buffer_put(&c->out, t->received.at, head);
		buffer_put(&c->out, t->content.at + sent, t->content.n - sent);
	}
	channel_end(c, mark, -1);
}

void submit_begin(struct session *s)
{
	struct transaction *t = s->t;
	wait_for_answer(s);
	if (!t->in_file) {
		hand_over(s);
		return;
	}
	struct channel *mover = s->worker->servers[s->server].mover;
	if (mover != NULL && submit_spill(s) && t->content.n == 0)
		send_body_end(mover, (struct msg_body_end){.id = qid_span(&t->id)}, -1);
}

void submit_all_again(struct worker *w, uint32_t server)
{
	for (size_t i = 0; i < WAIT_BUCKETS; i++)
		for (struct session *s = w->waiting[i]; s != NULL; s = s->next_hash)
			if (s->server == server && s->state == ST_COMMITTING && (!s->t->in_file || s->t->submitted))
				hand_over(s);
}

static void log_accepted(const struct session *s)
{
	const struct transaction *t = s->t;
	struct buffer size, rcpts;
	buffer_init(&size, 32);
	buffer_init(&rcpts, 32);
	buffer_put_decimal(&size, submit_size(t), 1);
	buffer_put_decimal(&rcpts, t->rcpts_n, 1);
	const struct log_field fields[] = {F("client", span_of(s->address)), F("helo", span_of(s->helo)), F("from", t->sender), F("size", buffer_span(&size)),
		F("nrcpt", buffer_span(&rcpts)), F("proto", span_of(s->esmtp ? "ESMTP" : "SMTP")),
		F("sasl_method", span_of(session_has_login(s) ? auth_method(s) : "")), F("sasl_username", span_of(session_has_login(s) ? s->login->name : ""))};
	log_write(&s->worker->proc.log, &log_events[EV_accepted], qid_span(&t->id), fields, COUNT_OF(fields) - (session_has_login(s) ? 0 : 2));
	buffer_free(&size);
	buffer_free(&rcpts);
}

static void answer(struct session *s, enum reply r)
{
	struct transaction *t = s->t;
	if (r == REPLY_QUEUED)
		log_accepted(s);
	session_reply(s, r, r == REPLY_QUEUED ? qid_span(&t->id) : (struct span){"", 0});
	session_reset(s);
	s->state = ST_COMMAND;
	session_arm(s);
	if (s->stopping)
		session_end(s, REPLY_SHUTDOWN);
	session_run(s);
}

void submit_discard(struct session *s)
{
	struct transaction *t = s->t;
	LOG(&s->worker->proc.log, discarded, qid_span(&t->id), F("client", span_of(s->address)), F("from", t->sender), F("status", SPAN_LIT("discarded")));
	session_reply(s, REPLY_QUEUED, qid_span(&t->id));
	session_reset(s);
	s->state = ST_COMMAND;
	session_arm(s);
}

int submit_on_submitted(struct channel *c, struct message *m)
{
	HANDLE(c, m, submitted, done);
	struct session *s = find_waiting(c->program, done.id);
	if (s == NULL || s->state != ST_COMMITTING || !s->t->submitted)
		return 0; /* the answer to a forgotten id */
	answer(s, done.status == 0 ? REPLY_QUEUED : done.status == ENOSPC ? REPLY_NO_STORAGE : REPLY_LOCAL_ERROR);
	return 0;
}

int submit_on_credit(struct channel *c, struct message *m)
{
	HANDLE(c, m, body_credit, credit);
	struct session *s = find_waiting(c->program, credit.id);
	if (s == NULL || !s->t->in_file || s->t->submitted)
		return 0;
	s->t->credit += credit.n;
	size_t before = s->t->content.n;
	(void)submit_spill(s);
	if (s->state == ST_COMMITTING && before > 0 && s->t->content.n == 0)
		send_body_end(c, (struct msg_body_end){.id = qid_span(&s->t->id)}, -1);
	session_run(s);
	return 0;
}

int submit_on_body_done(struct channel *c, struct message *m)
{
	HANDLE(c, m, body_done, done);
	struct session *s = find_waiting(c->program, done.id);
	if (s == NULL || !s->t->in_file || s->t->submitted)
		return 0;
	bool whole = done.status == 0 && s->state == ST_COMMITTING && done.bytes == submit_size(s->t);
	if (whole) {
		hand_over(s);
	} else if (s->state == ST_COMMITTING) {
		answer(s, done.status == ENOSPC ? REPLY_NO_STORAGE : REPLY_LOCAL_ERROR);
	} else {
		s->t->body_failed = true; /* said at the final dot */
	}
	return 0;
}

void submit_mover_gone(struct worker *w, const struct channel *mover)
{
	for (size_t i = 0; i < WAIT_BUCKETS; i++) {
		struct session *next;
		for (struct session *s = w->waiting[i]; s != NULL; s = next) {
			next = s->next_hash;
			if (!s->t->in_file || s->t->submitted || w->servers[s->server].mover != mover)
				continue;
			if (s->state == ST_COMMITTING)
				answer(s, REPLY_LOCAL_ERROR);
			else
				s->t->body_failed = true;
		}
	}
}
