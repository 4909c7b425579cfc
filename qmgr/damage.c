/* Bytes that failed their check: set aside in corrupt/, logged, told to postmaster (ARCHITECTURE 5). */
#include "qmgr.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static void note(struct qmgr *q, const char *name, const char *reason)
{
	if (q->damage.limit == 0)
		buffer_init(&q->damage, 2 * DAMAGE_BYTES);
	if (q->damage.n < DAMAGE_BYTES)
		buffer_printf(&q->damage, "%s/%s: %s\r\n", q->server->p.queue_directory, name, reason);
}

/* After a restart the same bytes fail again as long as their segment is there: they are told once. */
static bool is_known(const struct qmgr *q, const char *name)
{
	return faccessat(q->queue_fd, name, F_OK, 0) == 0;
}

static void set_aside(struct qmgr *q, const char *segment, uint64_t seq, uint64_t offset, uint64_t length, struct span id, const char *reason)
{
	char name[80];
	record_corrupt_name(seq, offset, name, sizeof name);
	if (is_known(q, name))
		return;
	LOG(&q->proc.log, record_damaged, id, F("segment", span_of(segment)), F("copy", span_of(name)), F("reason", span_of(reason)));
	note(q, name, reason);
	if (q->mover != NULL)
		send_corrupt_record(q->mover, (struct msg_corrupt_record){.seq = seq, .offset = offset, .length = length}, -1);
}

void damage_record(struct qmgr *q, const struct segment_reader *r, const char *reason)
{
	set_aside(q, r->segment.name, r->segment.seq, r->bad_at, r->bad_n, NO_ID, reason);
}

void damage_envelope(struct qmgr *q, const struct record *r)
{
	set_aside(q, "journal", r->seq, r->offset, r->length, qid_span(&r->id), "its envelope is not good");
}

void damage_file(struct qmgr *q, const struct qid *id, int error)
{
	char name[80];
	const char *reason = error == EBADMSG ? "a waiting message's file failed its check" : strerror(error);
	(void)snprintf(name, sizeof name, "corrupt/%s.msg", id->text);
	LOG(&q->proc.log, file_damaged, qid_span(id), F("reason", span_of(reason)));
	note(q, name, reason);
	if (q->mover != NULL)
		send_corrupt(q->mover, (struct msg_corrupt){.id = qid_span(id)}, -1);
}

void damage_message(struct qmgr *q, const struct qmsg *m, int error)
{
	if (m->in_wait)
		damage_file(q, &m->id, error);
	else
		set_aside(q, "journal", m->seq, m->offset, m->length, qid_span(&m->id), strerror(error));
}

/* One notice for all that was found, at most one a minute. */
void damage_tell(struct qmgr *q)
{
	if (q->damage.n == 0 || q->bounce == NULL || q->cleanup == NULL ||
		(q->damage_told_s != 0 && q_now(q) - q->damage_told_s < DAMAGE_PAUSE_S))
		return;
	struct qid id = qid_make(&q->ids, clock_wall_us());
	send_damage(q->bounce, (struct msg_damage){.id = qid_span(&id), .text = buffer_span(&q->damage)}, -1);
	buffer_clear(&q->damage);
	q->damage_told_s = q_now(q);
}
