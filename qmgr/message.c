/* The messages in memory. */
#include "qmgr.h"

#include <stdlib.h>
#include <string.h>

struct qmsg *msg_find(struct qmgr *q, const struct qid *id)
{
	struct qmsg *m = q->messages[qid_hash(id) % BUCKETS];
	while (m != NULL && !qid_same(&m->id, id))
		m = m->next_hash;
	return m;
}

void rcpt_set_reason(struct qrcpt *r, struct span text)
{
	free(r->reason);
	r->reason = span_dup(text.n > 500 ? (struct span){text.at, 500} : text);
}

static int copy_envelope(struct qmsg *m, struct span bytes)
{
	struct arena arena = {0};
	m->envelope = malloc(bytes.n + 1);
	if (m->envelope == NULL)
		return ENOMEM;
	memcpy(m->envelope, bytes.at, bytes.n);
	int error = envelope_parse((struct span){m->envelope, bytes.n}, &arena, &m->e);
	if (error == 0) {
		m->rcpts = calloc(m->e.rcpts_n, sizeof *m->rcpts);
		error = m->rcpts == NULL ? ENOMEM : 0;
	}
	for (size_t i = 0; error == 0 && i < m->e.rcpts_n; i++)
		m->rcpts[i] = (struct qrcpt){.address = m->e.rcpts[i].address, .orcpt = m->e.rcpts[i].orcpt, .notify = m->e.rcpts[i].notify & (RCPT_PLAIN - 1),
			.plain = (m->e.rcpts[i].notify & RCPT_PLAIN) != 0};
	m->e.rcpts = NULL;
	arena_free(&arena);
	return error;
}

static void apply_results(struct qmsg *m, struct span results, enum rcpt_state state)
{
	struct result r;
	while (result_take(&results, &r))
		if (r.index < m->e.rcpts_n && m->rcpts[r.index].state != RCPT_CLOSED)
			m->rcpts[r.index].state = (uint8_t)state;
}

static void apply_owed(struct qmsg *m, const struct fate *f)
{
	for (const struct owed *known = m->owed; known != NULL; known = known->next)
		if (qid_same(&known->id, &f->report))
			return; /* a line twice is one fact */
	struct owed *o = calloc(1, sizeof *o);
	if (o == NULL)
		return;
	o->id = f->report;
	o->kind = f->report_kind;
	buffer_init(&o->results, 1024 * 1024);
	buffer_put_span(&o->results, f->results);
	o->next = m->owed;
	m->owed = o;
	if (f->report_kind == REPORT_FAILURE || f->report_kind == REPORT_EXPANSION)
		apply_results(m, f->results, RCPT_OWED);
	if (f->report_kind == REPORT_DELAY)
		m->delayed = true;
	if (f->report_kind == REPORT_SUCCESS)
		apply_results(m, f->results, RCPT_CLOSED);
}

static void apply_reported(struct qmsg *m, const struct fate *f)
{
	for (struct owed **p = &m->owed; *p != NULL; p = &(*p)->next) {
		struct owed *o = *p;
		if (!qid_same(&o->id, &f->report))
			continue;
		if (o->kind == REPORT_FAILURE || o->kind == REPORT_EXPANSION)
			apply_results(m, buffer_span(&o->results), RCPT_CLOSED);
		*p = o->next;
		buffer_free(&o->results);
		free(o);
		return;
	}
}

void msg_apply_fate(struct qmgr *q, struct qmsg *m, const struct fate *f)
{
	(void)q;
	switch (f->kind) {
	case FATE_CLOSED: apply_results(m, f->results, RCPT_CLOSED); break;
	case FATE_OWED: apply_owed(m, f); break;
	case FATE_REPORTED: apply_reported(m, f); break;
	case FATE_HELD: m->held = true; break;
	case FATE_RELEASED: m->held = false; break;
	case FATE_MOVED: break;
	case FATE_GONE: m->gone = true; break;
	}
}

int msg_make(struct qmgr *q, const struct record *r, struct span fates, struct qmsg **out)
{
	struct qmsg *m = calloc(1, sizeof *m);
	struct fate f;
	if (m == NULL)
		return ENOMEM;
	m->id = r->id;
	m->seq = r->seq;
	m->offset = r->offset;
	m->length = r->length;
	buffer_init(&m->fates, 64 * 1024 * 1024);
	int error = copy_envelope(m, r->envelope);
	if (error != 0) {
		free(m->envelope);
		free(m);
		return error;
	}
	m->held = (m->e.flags & ENV_HELD) != 0; /* until a fate says that it was released */
	struct qmsg **bucket = &q->messages[qid_hash(&m->id) % BUCKETS];
	m->next_hash = *bucket;
	*bucket = m;
	q->active++;
	if (m->e.arrived_us / 1000000 > q->newest_s)
		q->newest_s = m->e.arrived_us / 1000000;
	while (fate_next(&fates, &f))
		if (qid_same(&f.id, &m->id))
			msg_apply_fate(q, m, &f);
	*out = m;
	return 0;
}

void msg_free(struct qmgr *q, struct qmsg *m)
{
	struct qmsg **p = &q->messages[qid_hash(&m->id) % BUCKETS];
	while (*p != m)
		p = &(*p)->next_hash;
	*p = m->next_hash;
	q->active--;
	for (size_t i = 0; i < m->e.rcpts_n; i++) {
		free(m->rcpts[i].reason);
		dest_release(q, m->rcpts[i].dest);
	}
	while (m->owed != NULL) {
		struct owed *o = m->owed;
		m->owed = o->next;
		buffer_free(&o->results);
		free(o);
	}
	buffer_free(&m->fates);
	free(m->rcpts);
	free(m->envelope);
	free(m);
	q_turn_soon(q);
}

struct terms rcpt_terms(const struct qmgr *q, const struct qmsg *m, size_t i)
{
	struct address a;
	struct route r;
	const struct dest *d = m->rcpts[i].dest;
	if (d != NULL)
		return (struct terms){dest_out(q, d), d->local};
	if (address_parse(m->rcpts[i].address, ADDRESS_UTF8 | ADDRESS_NO_DOMAIN, &a) != 0)
		return (struct terms){&q_params(q)->out, false};
	route_find(q->server, &a, &r);
	return (struct terms){outbound_of(q->server, r.domain), r.kind == ROUTE_LOCAL};
}

static int64_t arrived_s(const struct qmsg *m)
{
	return m->e.arrived_us / 1000000;
}

/* When the schedule of recipient i has its first attempt after that time. */
static int64_t next_of(const struct qmgr *q, const struct qmsg *m, size_t i, int64_t after_s)
{
	int64_t offset, age = after_s - arrived_s(m), at;
	(void)schedule_next(rcpt_terms(q, m, i).out, age < 0 ? 0 : age, &offset);
	return __builtin_add_overflow(arrived_s(m), offset, &at) ? INT64_MAX : at;
}

int64_t msg_next_attempt(const struct qmgr *q, const struct qmsg *m, int64_t after_s)
{
	int64_t next = INT64_MAX;
	for (size_t i = 0; i < m->e.rcpts_n; i++) {
		int64_t at = m->rcpts[i].state >= RCPT_OWED ? INT64_MAX : next_of(q, m, i, after_s);
		next = at < next ? at : next;
	}
	return next;
}

/* Domains may have schedules of their own: of a message's recipients only some may be due. */
static bool rcpt_is_due(const struct qmgr *q, const struct qmsg *m, size_t i)
{
	return m->forced || m->last_attempt_s == 0 || next_of(q, m, i, m->last_attempt_s) <= q_now(q);
}

static bool is_spent(const struct qmgr *q, const struct qmsg *m, size_t i)
{
	int64_t most = rcpt_terms(q, m, i).out->retry_attempts;
	return m->rcpts[i].state < RCPT_OWED && most != PARAM_UNLIMITED && (int64_t)m->attempts > most;
}

bool msg_is_spent(const struct qmgr *q, const struct qmsg *m)
{
	for (size_t i = 0; i < m->e.rcpts_n; i++)
		if (is_spent(q, m, i))
			return true;
	return false;
}

/* All recipients of one destination in tasks of at most recipient_limit (MISSION D8). */
static void make_tasks_for(struct qmgr *q, struct qmsg *m, struct dest *d)
{
	int64_t most = d->kind == AGENT_LOCAL ? 1 : d->kind == AGENT_DROP ? TASK_RCPTS_LOCAL : TASK_RCPTS, limit = dest_out(q, d)->recipient_limit;
	bool further = false;
	limit = d->kind != AGENT_SMTP || limit > most ? most : limit;
	uint32_t *indexes = calloc(m->e.rcpts_n, sizeof *indexes);
	size_t n = 0;
	if (indexes == NULL)
		return;
	for (size_t i = 0; i < m->e.rcpts_n; i++) {
		if (m->rcpts[i].state == RCPT_DUE && m->rcpts[i].dest == d) {
			m->rcpts[i].state = RCPT_QUEUED;
			indexes[n++] = (uint32_t)i;
		}
		if (n > 0 && ((int64_t)n == limit || i + 1 == m->e.rcpts_n)) {
			struct task *t = task_make(q, m, d, indexes, n);
			if (t != NULL) {
				t->split = further;
				dest_add(q, t);
			}
			further = true;
			n = 0;
		}
	}
	free(indexes);
}

static void fail_all(struct qmgr *q, struct qmsg *m, int code, struct span enhanced, struct span text)
{
	struct buffer results;
	buffer_init(&results, 16 * 1024 * 1024);
	for (size_t i = 0; i < m->e.rcpts_n; i++) {
		if (m->rcpts[i].state >= RCPT_OWED)
			continue;
		struct result r = {.index = (uint32_t)i, .outcome = OUTCOME_FAILED, .code = (uint32_t)code, .enhanced = enhanced, .text = text};
		result_put(&results, &r);
		LOG(&q->proc.log, delivered, qid_span(&m->id), F("to", m->rcpts[i].address), F("relay", SPAN_LIT("none")),
			F("dsn", enhanced), F("status", SPAN_LIT("bounced")), F("reason", text));
	}
	verdict_fail(q, m, buffer_span(&results));
	buffer_free(&results);
}

void msg_expire(struct qmgr *q, struct qmsg *m, enum expire_why why)
{
	struct buffer results, text;
	int64_t age = q_now(q) - arrived_s(m);
	buffer_init(&results, 16 * 1024 * 1024);
	buffer_init(&text, 2048);
	for (size_t i = 0; i < m->e.rcpts_n; i++) {
		struct qrcpt *r = &m->rcpts[i];
		struct terms t = rcpt_terms(q, m, i);
		if (r->state >= RCPT_OWED || (why == EXPIRE_TIME ? age < schedule_expiry(q_params(q), t.out, t.local) : !is_spent(q, m, i)))
			continue;
		buffer_clear(&text);
		buffer_printf(&text, "%s; last reason: %s", why == EXPIRE_TIME ? "not delivered before its expiry" : "no attempt is left",
			r->reason == NULL ? "none known" : r->reason);
		struct result x = {.index = (uint32_t)i, .outcome = OUTCOME_FAILED, .enhanced = SPAN_LIT("4.4.7"), .text = buffer_span(&text)};
		result_put(&results, &x);
		LOG(&q->proc.log, expired, qid_span(&m->id), F("to", r->address), F("from", m->e.sender), F("status", SPAN_LIT("expired, returned to sender")), F("reason", buffer_span(&text)));
	}
	verdict_fail(q, m, buffer_span(&results));
	buffer_free(&text);
	buffer_free(&results);
}

static void make_tasks(struct qmgr *q, struct qmsg *m)
{
	for (size_t i = 0; i < m->e.rcpts_n; i++)
		if (m->rcpts[i].state == RCPT_DUE && m->rcpts[i].dest != NULL)
			make_tasks_for(q, m, m->rcpts[i].dest);
}

void msg_start(struct qmgr *q, struct qmsg *m)
{
	if (m->held || m->gone) {
		msg_settle(q, m);
		return;
	}
	if ((int64_t)m->e.hops > q_params(q)->hop_limit) {
		fail_all(q, m, 554, SPAN_LIT("5.4.6"), SPAN_LIT("Too many hops: the message goes in circles"));
		msg_settle(q, m);
		return;
	}
	m->attempts++;
	m->tasks++; /* not settled while tasks are being made */
	for (size_t i = 0; i < m->e.rcpts_n; i++) {
		struct qrcpt *r = &m->rcpts[i];
		if (r->state == RCPT_DEFERRED && rcpt_is_due(q, m, i))
			r->state = RCPT_DUE;
		if (r->state == RCPT_DUE && r->dest == NULL)
			r->dest = dest_get(q, m, i);
	}
	m->last_attempt_s = q_now(q);
	make_tasks(q, m);
	m->forced = false;
	m->tasks--;
	msg_settle(q, m);
}

void msg_go_on(struct qmgr *q, struct qmsg *m)
{
	m->tasks++;
	for (size_t i = 0; i < m->e.rcpts_n; i++)
		if (m->rcpts[i].state == RCPT_DUE && m->rcpts[i].dest == NULL)
			m->rcpts[i].dest = dest_get(q, m, i);
	make_tasks(q, m);
	m->tasks--;
}

/* When something is to be done next: an attempt, the delay notice, the expiry. */
int64_t msg_next_event(const struct qmgr *q, const struct qmsg *m)
{
	int64_t arrived = arrived_s(m), next = m->next_attempt_s;
	for (size_t i = 0; i < m->e.rcpts_n; i++) {
		if (m->rcpts[i].state >= RCPT_OWED)
			continue;
		struct terms t = rcpt_terms(q, m, i);
		int64_t expiry = arrived + schedule_expiry(q_params(q), t.out, t.local), notice = arrived + schedule_delay_notice(q_params(q), t.out, t.local);
		if (expiry < next)
			next = expiry;
		if (!m->delayed && notice < next)
			next = notice;
	}
	return next;
}

static void leave(struct qmgr *q, struct qmsg *m)
{
	unsigned what = (m->in_wait ? DISCARD_WAIT : 0u) | ((m->e.flags & ENV_BODY_FILE) != 0 ? DISCARD_BODY : 0u);
	if (!m->damaged)
		LOG(&q->proc.log, removed, qid_span(&m->id), F("status", SPAN_LIT("removed")));
	if (m->in_index) {
		int error = index_delete(&q->index, &m->id);
		if (error == 0)
			q->waiting--;
		else if (error != ENOENT)
			index_trouble(q, error);
		q->index_dirty = true;
	}
	if (what != 0 && !m->damaged)
		fates_gone(q, &m->id, what);
	if (!m->in_wait)
		journal_less(q, m->seq);
	msg_free(q, m);
}

static bool is_closed(const struct qmsg *m)
{
	for (size_t i = 0; i < m->e.rcpts_n; i++)
		if (m->rcpts[i].state != RCPT_CLOSED)
			return false;
	return true;
}

/* The last attempt that it may have has failed: no reason to wait. */
static void expire_spent(struct qmgr *q, struct qmsg *m)
{
	if (m->held || m->park || m->gone || !msg_is_spent(q, m))
		return;
	m->tasks++;
	msg_expire(q, m, EXPIRE_ATTEMPTS);
	m->tasks--;
}

void msg_settle(struct qmgr *q, struct qmsg *m)
{
	if (m->tasks > 0 || m->storing || m->owed != NULL)
		return;
	if (!is_closed(m))
		expire_spent(q, m);
	if (m->tasks > 0 || m->owed != NULL)
		return;
	if (is_closed(m) || m->gone) {
		leave(q, m);
		return;
	}
	if (m->next_attempt_s == 0)
		m->next_attempt_s = m->park ? q_now(q) : msg_next_attempt(q, m, q_now(q));
	m->park = false;
	if (!m->in_wait) {
		wait_store(q, m);
		return;
	}
	wait_put_row(q, m);
	msg_free(q, m);
}
