/* Derived messages: owed, asked for, seen in the journal. */
#include "qmgr.h"

#include <stdlib.h>
#include <string.h>

/* A report about a report is never made (RFC 5321 6.1): the message goes to Badmail. */
static void keep_as_badmail(struct qmgr *q, struct qmsg *m, struct span results)
{
	struct result r;
	uint32_t *indexes = calloc(m->e.rcpts_n, sizeof *indexes);
	struct buffer reason;
	size_t n = 0;
	buffer_init(&reason, FACTS_A_PACKET);
	while (indexes != NULL && result_take(&results, &r) && n < m->e.rcpts_n) {
		indexes[n++] = r.index;
		if (reason.n < FACTS_A_PACKET / 2)
			buffer_printf(&reason, "<%.*s>: %.*s\n", SPAN_ARG(m->rcpts[r.index].address), SPAN_ARG(r.text));
	}
	if (n > 0)
		task_badmail(q, m, indexes, n, buffer_span(&reason));
	buffer_free(&reason);
	free(indexes);
}

/* The line "owes" comes first; only then bounce is asked, with the report's id. */
static void owe_one(struct qmgr *q, struct qmsg *m, uint32_t kind, struct span results)
{
	struct fate f = {.kind = FATE_OWED, .id = m->id, .report = qid_make(&q->ids, clock_wall_us()), .report_kind = kind, .results = results};
	fates_line(q, m, &f);
	msg_apply_fate(q, m, &f);
	for (struct owed *o = m->owed; o != NULL; o = o->next)
		if (qid_same(&o->id, &f.report))
			report_ask(q, m, o);
}

static void owe_parts(struct qmgr *q, struct qmsg *m, uint32_t kind, struct span results)
{
	struct buffer part;
	struct result r;
	buffer_init(&part, 1024 * 1024);
	while (result_take(&results, &r)) {
		result_put(&part, &r);
		if (part.n > FACTS_A_PACKET) {
			owe_one(q, m, kind, buffer_span(&part));
			buffer_clear(&part);
		}
	}
	if (part.n > 0)
		owe_one(q, m, kind, buffer_span(&part));
	buffer_free(&part);
}

/* Very many recipients get several reports: each fits into a packet.  A report of failure has its copy (MISSION D11). */
void report_owe(struct qmgr *q, struct qmsg *m, uint32_t kind, struct span results)
{
	if (m->e.sender.n == 0) {
		keep_as_badmail(q, m, results);
		return;
	}
	owe_parts(q, m, kind, results);
	if (kind == REPORT_FAILURE && q_params(q)->ndr_copy_to[0] != '\0')
		owe_parts(q, m, REPORT_COPY, results);
}

/* Many addresses get several derived messages, each within a packet. */
void report_expand(struct qmgr *q, struct qmsg *m, struct span results)
{
	struct result r;
	struct buffer one;
	buffer_init(&one, FACTS_A_PACKET);
	while (result_take(&results, &r)) {
		struct span rest = r.text;
		while (rest.n > 0) {
			size_t n = rest.n;
			if (n > EXPANSION_BYTES) {
				const char *end = memrchr(rest.at, '\n', EXPANSION_BYTES);
				n = end == NULL ? EXPANSION_BYTES : (size_t)(end - rest.at) + 1;
			}
			r.text = (struct span){rest.at, n};
			rest = (struct span){rest.at + n, rest.n - n};
			buffer_clear(&one);
			result_put(&one, &r);
			owe_one(q, m, REPORT_EXPANSION, buffer_span(&one));
		}
	}
	buffer_free(&one);
}

/* A failure is reported with the whole message but where the sender wants its header alone (RFC 3461 4.3); a copy always
 * is; a message with bytes that only BINARYMIME carries, or with REQUIRETLS, gives its header. */
static bool holds_whole(const struct qmsg *m, const struct owed *o)
{
	if (o->kind == REPORT_EXPANSION)
		return true;
	if ((m->e.flags & (ENV_BINARY | ENV_REQUIRETLS)) != 0) /* RFC 8689 5: as little as possible */
		return false;
	return o->kind == REPORT_COPY || (o->kind == REPORT_FAILURE && m->e.ret != RET_HDRS);
}

static void put_all_recipients(const struct qmsg *m, struct buffer *envelope)
{
	struct envelope e = m->e;
	e.rcpts = calloc(m->e.rcpts_n, sizeof *e.rcpts);
	for (size_t i = 0; e.rcpts != NULL && i < m->e.rcpts_n; i++)
		e.rcpts[i] = (struct envelope_rcpt){.address = m->rcpts[i].address, .notify = m->rcpts[i].notify, .orcpt = m->rcpts[i].orcpt};
	if (e.rcpts != NULL)
		envelope_put(envelope, &e);
	free(e.rcpts);
}

/* The original for what is to be made of it.  False: not now; what can't be read for now is asked for again, and a message that
 * goes on to other addresses never goes on without its bytes. */
static bool read_original(struct qmgr *q, struct qmsg *m, const struct owed *o, struct buffer *bytes, struct span *content, bool whole)
{
	bool truncated = false;
	int error = content_read(q, m, bytes, content, whole ? 0 : REPORT_CONTENT, &truncated);
	bool for_good = error == EBADMSG || error == ENOENT;
	if (error == 0)
		return true;
	*content = (struct span){"", 0};
	if (for_good && !m->damaged) {
		damage_message(q, m, error);
		m->damaged = true;
	}
	if (!for_good)
		LOG(&q->proc.log, report_failed, qid_span(&o->id), F("reason", span_of(strerror(error))));
	return for_good && o->kind != REPORT_EXPANSION; /* a report says what it has to say without it */
}

void report_ask(struct qmgr *q, struct qmsg *m, struct owed *o)
{
	struct span content = {"", 0};
	struct buffer envelope, bytes;
	bool whole = holds_whole(m, o), in_file = whole && (m->e.flags & ENV_BODY_FILE) != 0;
	uint64_t delivery = ++q->next_delivery;
	if (q->bounce == NULL)
		return; /* asked when there is one */
	o->asked_ms = clock_mono_ms();
	fates_flush(q);
	buffer_init(&envelope, 16 * 1024 * 1024);
	buffer_init(&bytes, 64 * 1024 * 1024);
	put_all_recipients(m, &envelope);
	if (!in_file && !read_original(q, m, o, &bytes, &content, whole)) {
		buffer_free(&envelope);
		buffer_free(&bytes);
		return;
	}
	task_send_parts(q->bounce, delivery, &content);
	send_report(q->bounce, (struct msg_report){.id = qid_span(&o->id), .parent = qid_span(&m->id), .kind = o->kind, .delivery = delivery,
		.envelope = buffer_span(&envelope), .results = buffer_span(&o->results),
		.original = in_file ? ORIGINAL_FILE : whole ? ORIGINAL_WHOLE : ORIGINAL_HEADER, .size = m->e.size, .content = content}, -1);
	buffer_free(&envelope);
	buffer_free(&bytes);
}

/* All that were asked for longer ago than that; asked twice it is made once, under its one id. */
static void ask_older_than(struct qmgr *q, int64_t age_ms)
{
	int64_t now = clock_mono_ms();
	for (size_t b = 0; q->active > 0 && b < BUCKETS; b++)
		for (struct qmsg *m = q->messages[b]; m != NULL; m = m->next_hash)
			for (struct owed *o = m->owed; o != NULL; o = o->next)
				if (now - o->asked_ms >= age_ms)
					report_ask(q, m, o);
}

void report_ask_all(struct qmgr *q)
{
	ask_older_than(q, 0);
}

void report_ask_late(struct qmgr *q)
{
	ask_older_than(q, REPORT_AGAIN_MS);
}

static struct span kind_name(uint32_t kind)
{
	switch ((enum fate_report)kind) {
	case REPORT_DELAY: return SPAN_LIT("delayed");
	case REPORT_SUCCESS: return SPAN_LIT("success");
	case REPORT_COPY: return SPAN_LIT("copy");
	case REPORT_EXPANSION: return SPAN_LIT("expansion");
	case REPORT_FAILURE: break;
	}
	return SPAN_LIT("failure");
}

/* The report is on disk: that closes what it is about.  Made exactly once. */
void report_seen(struct qmgr *q, const struct envelope *e, const struct qid *id)
{
	struct qmsg *m = msg_find(q, &e->closes);
	struct fate f = {.kind = FATE_REPORTED, .id = e->closes, .report = *id, .report_kind = e->closes_kind};
	bool owed = false;
	for (const struct owed *o = m == NULL ? NULL : m->owed; o != NULL; o = o->next)
		owed = owed || qid_same(&o->id, id);
	if (!owed)
		return;
	fates_line(q, m, &f);
	fates_flush(q); /* only then the report is due */
	msg_apply_fate(q, m, &f);
	LOG(&q->proc.log, report_made, qid_span(&m->id), F("report", qid_span(id)), F("kind", kind_name(e->closes_kind)));
	msg_settle(q, m);
}

int report_on_failed(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, report_failed, failed);
	struct qmgr *q = ch->program;
	LOG(&q->proc.log, report_failed, failed.id, F("reason", span_of(strerror((int)failed.status))));
	for (size_t b = 0; q->active > 0 && b < BUCKETS; b++)
		for (struct qmsg *m = q->messages[b]; m != NULL; m = m->next_hash)
			for (struct owed *o = m->owed; o != NULL; o = o->next)
				if (span_is(failed.id, o->id.text)) /* report_ask_late asks again, soon */
					o->asked_ms = clock_mono_ms() - REPORT_AGAIN_MS + REPORT_FAILED_MS;
	return 0;
}

void report_delay(struct qmgr *q, struct qmsg *m)
{
	struct buffer results;
	int64_t age = q_now(q) - m->e.arrived_us / 1000000;
	if (m->delayed)
		return;
	buffer_init(&results, 4 * 1024 * 1024);
	bool due = false;
	for (size_t i = 0; i < m->e.rcpts_n; i++) {
		const struct qrcpt *r = &m->rcpts[i];
		struct terms t = rcpt_terms(q, m, i);
		if (r->state >= RCPT_OWED || age < schedule_delay_notice(q_params(q), t.out, t.local))
			continue;
		due = true;
		if (r->notify != 0 && (r->notify & NOTIFY_DELAY) == 0)
			continue;
		struct result x = {.index = (uint32_t)i, .outcome = OUTCOME_DEFERRED, .enhanced = SPAN_LIT("4.4.7"),
			.text = span_of(r->reason == NULL ? "not delivered yet" : r->reason)};
		result_put(&results, &x);
	}
	if (due)
		m->delayed = true;
	if (results.n > 0 && m->e.sender.n > 0)
		report_owe(q, m, REPORT_DELAY, buffer_span(&results));
	buffer_free(&results);
}
