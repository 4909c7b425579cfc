/* Bytes that failed their check (ARCHITECTURE 5).  In this order: logged; told to postmaster, until the notice is seen
 * in the journal; set aside in corrupt/ by mover, until the name is there.  No segment is freed before.  What a kill cuts
 * short is found again at the next start: told perhaps twice, never not at all. */
#include "qmgr.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One thing to be set aside: a message's files, or length bytes of a segment. */
struct damage {
	bool is_file, in_notice, told;
	struct qid id;
	uint64_t seq, offset, length;
	const char *reason; /* a constant */
	struct damage *next;
};

static void name_of(const struct damage *d, char *out, size_t size)
{
	if (d->is_file)
		corrupt_file_name(&d->id, ".msg", out, size);
	else
		corrupt_record_name(d->seq, d->offset, out, size);
}

static bool is_there(const struct qmgr *q, const char *name)
{
	return faccessat(q->queue_fd, name, F_OK, 0) == 0;
}

static bool same(const struct damage *a, const struct damage *b)
{
	return a->is_file == b->is_file && (a->is_file ? qid_same(&a->id, &b->id) : a->seq == b->seq && a->offset == b->offset);
}

/* A part of the journal whose copy is there was told before this start; a file is told each time it turns up. */
static bool add(struct qmgr *q, const struct damage *found)
{
	char name[80];
	struct damage **end = &q->damages;
	name_of(found, name, sizeof name);
	if (!found->is_file && is_there(q, name))
		return false;
	for (; *end != NULL; end = &(*end)->next)
		if (same(*end, found))
			return false;
	*end = malloc(sizeof **end);
	if (*end == NULL) {
		q->damage_unnoted = true; /* no segment goes; the next start finds it again */
		return true;
	}
	**end = *found;
	(*end)->next = NULL;
	return true;
}

static void add_record(struct qmgr *q, const char *segment, struct span id, const struct damage *d)
{
	char name[80];
	name_of(d, name, sizeof name);
	if (add(q, d))
		LOG(&q->proc.log, record_damaged, id, F("segment", span_of(segment)), F("copy", span_of(name)), F("reason", span_of(d->reason)));
}

void damage_record(struct qmgr *q, const struct segment_reader *r)
{
	add_record(q, r->segment.name, NO_ID, &(struct damage){.seq = r->segment.seq, .offset = r->bad_at, .length = r->bad_n,
		.reason = "a part of the journal failed its check"});
}

void damage_envelope(struct qmgr *q, const struct record *r)
{
	add_record(q, "journal", qid_span(&r->id), &(struct damage){.seq = r->seq, .offset = r->offset, .length = r->length,
		.reason = "a message's envelope cannot be read"});
}

void damage_file(struct qmgr *q, const struct qid *id, int error)
{
	struct damage d = {.is_file = true, .id = *id, .reason = error == EBADMSG ? "a waiting message's file failed its check" : "a part of a message is missing"};
	if (add(q, &d))
		LOG(&q->proc.log, file_damaged, qid_span(id), F("reason", span_of(d.reason)));
}

void damage_orphan(struct qmgr *q, const struct qid *id)
{
	struct damage d = {.is_file = true, .id = *id, .reason = "a large body without a message (its .body file)"};
	if (add(q, &d))
		LOG(&q->proc.log, orphan_found, qid_span(id), F("reason", span_of(d.reason)));
}

void damage_message(struct qmgr *q, const struct qmsg *m, int error)
{
	if (m->in_wait)
		damage_file(q, &m->id, error);
	else
		add_record(q, "journal", qid_span(&m->id), &(struct damage){.seq = m->seq, .offset = m->offset, .length = m->length,
			.reason = "a message's record failed its check"});
}

bool damage_holds(const struct qmgr *q, uint64_t seq)
{
	bool held = q->damage_unnoted;
	for (const struct damage *d = q->damages; d != NULL && !held; d = d->next)
		held = !d->is_file && d->seq == seq;
	return held;
}

/* ---- the notice ---- */

static void put_notice(struct qmgr *q, struct buffer *b)
{
	char name[80];
	size_t left_out = 0;
	for (struct damage *d = q->damages; d != NULL; d = d->next) {
		if (d->told)
			continue;
		d->in_notice = true;
		name_of(d, name, sizeof name);
		if (b->n < DAMAGE_BYTES)
			buffer_printf(b, "%s/%s: %s\r\n", q->server->p.queue_directory, name, d->reason);
		else
			left_out++;
	}
	if (left_out > 0)
		buffer_printf(b, "... and %zu more, which the log names\r\n", left_out);
}

static bool any_untold(const struct qmgr *q)
{
	const struct damage *d = q->damages;
	while (d != NULL && d->told)
		d = d->next;
	return d != NULL;
}

/* The same notice goes again until it is seen; cleanup knows the id and takes it once. */
static void send_notice(struct qmgr *q)
{
	if (q->notice.n == 0 && any_untold(q) && q_now(q) >= q->notice_after_s) {
		q->notice_id = qid_make(&q->ids, clock_wall_us());
		put_notice(q, &q->notice);
	}
	if (q->notice.n == 0 || q->bounce == NULL || q->cleanup == NULL || q_now(q) < q->notice_again_s)
		return;
	q->notice_again_s = q_now(q) + NOTICE_AGAIN_S;
	send_damage(q->bounce, (struct msg_damage){.id = qid_span(&q->notice_id), .text = buffer_span(&q->notice)}, -1);
}

void damage_seen(struct qmgr *q, const struct qid *id)
{
	if (q->notice.n == 0 || !qid_same(id, &q->notice_id))
		return;
	buffer_clear(&q->notice);
	q->notice_after_s = q_now(q) + NOTICE_PAUSE_S;
	q->notice_again_s = 0;
	for (struct damage *d = q->damages; d != NULL; d = d->next) {
		d->told = d->told || d->in_notice;
		d->in_notice = false;
	}
}

/* ---- setting aside ---- */

static bool is_done(const struct qmgr *q, const struct damage *d)
{
	char name[80];
	if (!d->is_file) {
		name_of(d, name, sizeof name);
		return is_there(q, name);
	}
	qid_path(&d->id, ".msg", name, sizeof name);
	if (faccessat(q->wait_fd, name, F_OK, 0) == 0)
		return false;
	qid_path(&d->id, "", name, sizeof name);
	return faccessat(q->body_fd, name, F_OK, 0) != 0;
}

static void order(struct qmgr *q, const struct damage *d)
{
	if (d->is_file)
		send_corrupt(q->mover, (struct msg_corrupt){.id = qid_span(&d->id)}, -1);
	else
		send_corrupt_record(q->mover, (struct msg_corrupt_record){.seq = d->seq, .offset = d->offset, .length = d->length}, -1);
}

void damage_work(struct qmgr *q)
{
	send_notice(q);
	for (struct damage **p = &q->damages; *p != NULL;) {
		struct damage *d = *p;
		if (d->told && is_done(q, d)) {
			*p = d->next;
			free(d);
			continue;
		}
		if (d->told && q->mover != NULL)
			order(q, d);
		p = &d->next;
	}
}
