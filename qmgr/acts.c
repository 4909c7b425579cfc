/* What operators ask for, through control. */
#include "qmgr.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

enum { ROWS_A_CREDIT = 500 };

/* A listing under way: messages in memory first, then the index in the order of ids. */
struct listing {
	uint64_t serial;
	struct channel *ch;
	size_t bucket;   /* BUCKETS: memory is done */
	struct qid after;
	struct listing *next;
};

static void done(struct channel *ch, uint64_t serial, uint32_t status, const char *text)
{
	send_queue_done(ch, (struct msg_queue_done){.serial = serial, .status = status, .text = span_of(text)}, -1);
}

static void send_row(struct qmgr *q, struct channel *ch, uint64_t serial, const struct qid *id, const struct row *row)
{
	struct buffer b;
	buffer_init(&b, 200 * 1024); /* of a message to very many, the list is cut by the limit of a packet */
	row_put_json(q, &b, id, row);
	if (buffer_ok(&b))
		send_queue_row(ch, (struct msg_queue_row){.serial = serial, .row = buffer_span(&b)}, -1);
	buffer_free(&b);
}

static void send_message(struct qmgr *q, struct channel *ch, uint64_t serial, const struct qmsg *m)
{
	struct buffer bytes;
	struct row row;
	buffer_init(&bytes, 16 * 1024 * 1024);
	row_of_message(q, m, &bytes);
	if (row_parse(buffer_span(&bytes), &row) == 0)
		send_row(q, ch, serial, &m->id, &row);
	buffer_free(&bytes);
}

static bool list_on(struct qmgr *q, struct listing *l)
{
	unsigned n = 0;
	struct buffer bytes;
	struct row row;
	while (l->bucket < BUCKETS && n < ROWS_A_CREDIT) {
		for (const struct qmsg *m = q->messages[l->bucket]; m != NULL; m = m->next_hash)
			if (!m->in_index) { /* what has a row is listed with it */
				send_message(q, l->ch, l->serial, m);
				n++;
			}
		l->bucket++;
	}
	buffer_init(&bytes, 16 * 1024 * 1024);
	while (l->bucket == BUCKETS && n < ROWS_A_CREDIT) {
		int error = index_next(&q->index, &l->after, &bytes, &row);
		if (error != 0) {
			buffer_free(&bytes);
			done(l->ch, l->serial, 0, "");
			if (error != ENOENT) /* not the end: a damaged page, which no look at single rows may have met */
				index_trouble(q, error);
			return true;
		}
		const struct qmsg *m = msg_find(q, &l->after);
		if (m != NULL)
			send_message(q, l->ch, l->serial, m);
		else
			send_row(q, l->ch, l->serial, &l->after, &row);
		n++;
	}
	buffer_free(&bytes);
	/* the reader asks for more when it has taken these */
	send_queue_row(l->ch, (struct msg_queue_row){.serial = l->serial, .row = {"", 0}}, -1);
	return false;
}

static void begin_list(struct qmgr *q, struct channel *ch, uint64_t serial)
{
	struct listing *l = calloc(1, sizeof *l);
	if (l == NULL) {
		done(ch, serial, EX_OSERR, "not enough memory");
		return;
	}
	*l = (struct listing){.serial = serial, .ch = ch};
	if (list_on(q, l)) {
		free(l);
		return;
	}
	l->next = q->listings;
	q->listings = l;
}

int acts_on_credit(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, queue_credit, credit);
	struct qmgr *q = ch->program;
	for (struct listing **p = &q->listings; *p != NULL; p = &(*p)->next) {
		struct listing *l = *p;
		if (l->serial != credit.serial || l->ch != ch)
			continue;
		if (list_on(q, l)) {
			*p = l->next;
			free(l);
		}
		return 0;
	}
	return 0;
}

void acts_forget(struct qmgr *q, const struct channel *ch)
{
	for (struct listing **p = &q->listings; *p != NULL;) {
		struct listing *l = *p;
		if (l->ch != ch) {
			p = &l->next;
			continue;
		}
		*p = l->next;
		free(l);
	}
}

/* Brings a message into memory for an act; the caller ends with msg_settle. */
static struct qmsg *fetch(struct qmgr *q, const struct qid *id)
{
	struct qmsg *m = msg_find(q, id);
	struct buffer bytes;
	struct row row;
	if (m != NULL)
		return m;
	buffer_init(&bytes, 16 * 1024 * 1024);
	if (index_get(&q->index, id, &bytes, &row) == 0)
		(void)!wait_load(q, id, &row, &m);
	buffer_free(&bytes);
	return m;
}

static void show(struct qmgr *q, struct channel *ch, uint64_t serial, struct qmsg *m)
{
	send_message(q, ch, serial, m);
	done(ch, serial, 0, "");
}

static void cat(struct qmgr *q, struct channel *ch, uint64_t serial, struct qmsg *m)
{
	struct span content;
	struct buffer bytes;
	bool truncated;
	int fd = (m->e.flags & ENV_BODY_FILE) != 0 ? content_body_fd(q, m) : -1;
	buffer_init(&bytes, 64 * 1024 * 1024);
	if (fd >= 0) {
		send_queue_row(ch, (struct msg_queue_row){.serial = serial, .row = {"", 0}}, fd);
	} else if (content_read(q, m, &bytes, &content, 0, &truncated) == 0) {
		while (content.n > 0) {
			size_t n = content.n < IPC_INLINE ? content.n : IPC_INLINE;
			send_queue_row(ch, (struct msg_queue_row){.serial = serial, .row = {content.at, n}}, -1);
			content.at += n;
			content.n -= n;
		}
	}
	buffer_free(&bytes);
	done(ch, serial, 0, "");
}

/* The next attempt comes from the same functions that schedule it. */
static void why(struct qmgr *q, struct channel *ch, uint64_t serial, struct qmsg *m)
{
	struct buffer b;
	int64_t arrived = m->e.arrived_us / 1000000;
	buffer_init(&b, 64 * 1024);
	buffer_printf(&b, "%s: %s, %u attempt%s so far\n", m->id.text, m->held ? "held by an operator" : m->tasks > 1 ? "being delivered" : "waiting",
		m->attempts, m->attempts == 1 ? "" : "s");
	if (!m->held) {
		buffer_puts(&b, "next attempt: ");
		format_rfc3339(&b, m->next_attempt_s > 0 ? m->next_attempt_s : msg_next_attempt(q, m, q_now(q)));
		buffer_putc(&b, '\n');
	}
	for (size_t i = 0; i < m->e.rcpts_n && b.n < 60000; i++) {
		struct address a;
		struct route r;
		const struct qrcpt *rcpt = &m->rcpts[i];
		if (rcpt->state >= RCPT_OWED || address_parse(rcpt->address, ADDRESS_UTF8 | ADDRESS_NO_DOMAIN, &a) != 0)
			continue;
		route_find(q->server, &a, &r);
		buffer_printf(&b, "<%.*s>: %s\n  route: %.*s (%s)\n  returned: ", SPAN_ARG(rcpt->address),
			rcpt->reason == NULL ? "no attempt has ended yet" : rcpt->reason, SPAN_ARG(r.kind == ROUTE_LOCAL ? SPAN_LIT("local delivery") : r.nexthop),
			route_reason_text(r.reason));
		format_rfc3339(&b, arrived + schedule_expiry(q_params(q), outbound_of(q->server, r.domain), r.kind == ROUTE_LOCAL));
		buffer_putc(&b, '\n');
	}
	send_queue_row(ch, (struct msg_queue_row){.serial = serial, .row = buffer_span(&b)}, -1);
	buffer_free(&b);
	done(ch, serial, 0, "");
}

/* An operator's act: the line is synced, then it is answered.  False: it is not on the disk yet. */
static bool put_hold_line(struct qmgr *q, struct qmsg *m, enum fate_kind kind)
{
	struct fate f = {.kind = kind, .id = m->id};
	fates_line(q, m, &f);
	return fates_sync_now(q);
}

static bool hold(struct qmgr *q, struct qmsg *m)
{
	bool synced = put_hold_line(q, m, FATE_HELD);
	m->held = true;
	dest_drop_queued(q, m);
	return synced;
}

static bool release(struct qmgr *q, struct qmsg *m)
{
	bool synced = put_hold_line(q, m, FATE_RELEASED);
	m->held = false;
	m->forced = true;
	m->next_attempt_s = q_now(q);
	return synced;
}

static bool retry(struct qmgr *q, struct qmsg *m)
{
	if (m->tasks == 1 && m->storing && !m->held) { /* its file is being written: due as soon as it is */
		m->next_attempt_s = q_now(q);
		m->forced = true;
	} else if (m->tasks == 1 && !m->held) {
		m->next_attempt_s = 0;
		m->forced = true;
		msg_start(q, m);
	}
	return true;
}

static bool remove_message(struct qmgr *q, struct qmsg *m)
{
	struct buffer results;
	buffer_init(&results, 16 * 1024 * 1024);
	for (size_t i = 0; i < m->e.rcpts_n; i++) {
		struct result r = {.index = (uint32_t)i, .outcome = OUTCOME_REMOVED, .text = SPAN_LIT("removed by an operator")};
		result_put(&results, &r);
	}
	struct fate f = {.kind = FATE_CLOSED, .id = m->id, .results = buffer_span(&results)};
	fates_line(q, m, &f);
	bool synced = fates_sync_now(q);
	dest_drop_queued(q, m);
	m->gone = true;
	buffer_free(&results);
	return synced;
}

static const struct act {
	const char *name;
	void (*show)(struct qmgr *, struct channel *, uint64_t, struct qmsg *); /* answers by itself */
	bool (*change)(struct qmgr *, struct qmsg *); /* false: done, but not on the disk yet */
} acts[] = {
	{"show", show, NULL}, {"cat", cat, NULL}, {"why", why, NULL},
	{"hold", NULL, hold}, {"release", NULL, release}, {"retry", NULL, retry}, {"remove", NULL, remove_message},
};

static void act_on_one(struct qmgr *q, struct channel *ch, uint64_t serial, const struct act *a, struct span text)
{
	struct qid id;
	struct qmsg *m = qid_parse(text, &id) == 0 ? fetch(q, &id) : NULL;
	if (m == NULL) {
		done(ch, serial, EX_NOINPUT, "no such message in this queue");
		return;
	}
	m->tasks++;
	if (a->show != NULL) {
		a->show(q, ch, serial, m);
	} else {
		LOG(&q->proc.log, operator, qid_span(&m->id), F("act", span_of(a->name)));
		bool synced = a->change(q, m);
		done(ch, serial, synced ? 0 : EX_IOERR, synced ? "" : "done, but the disk below the queue directory could not be synced: it is not safe from a power cut yet");
	}
	m->tasks--;
	msg_settle(q, m);
}

/* Everything that waits is due now. */
static void flush_all(struct qmgr *q, struct channel *ch, uint64_t serial)
{
	char text[64];
	uint64_t n = wait_make_due(q, NULL, (struct span){"", 0});
	for (size_t b = 0; b < BUCKETS; b++)
		for (struct dest *d = q->dests[b]; d != NULL; d = d->next_hash)
			d->probe_ms = 0;
	(void)snprintf(text, sizeof text, "%llu", (unsigned long long)n);
	done(ch, serial, 0, text);
}

int acts_on_act(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, queue_act, act);
	struct qmgr *q = ch->program;
	if (span_is(act.act, "list")) {
		begin_list(q, ch, act.serial);
		return 0;
	}
	if (span_is(act.act, "flush")) {
		flush_all(q, ch, act.serial);
		return 0;
	}
	for (size_t i = 0; i < COUNT_OF(acts); i++) {
		if (span_is(act.act, acts[i].name)) {
			act_on_one(q, ch, act.serial, &acts[i], act.args);
			return 0;
		}
	}
	done(ch, act.serial, EX_USAGE, "no such act");
	return 0;
}
