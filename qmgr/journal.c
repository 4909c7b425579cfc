/* Reading arrivals; freeing segments. */
#include "qmgr.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct seg_state *journal_seg(struct qmgr *q, uint64_t seq)
{
	size_t i = q->segs_n;
	while (i > 0 && q->segs[i - 1].seq > seq)
		i--;
	if (i > 0 && q->segs[i - 1].seq == seq)
		return &q->segs[i - 1];
	struct seg_state *more = realloc(q->segs, (q->segs_n + 1) * sizeof *more);
	if (more == NULL)
		return NULL;
	q->segs = more;
	memmove(more + i + 1, more + i, (q->segs_n - i) * sizeof *more);
	q->segs_n++;
	more[i] = (struct seg_state){.seq = seq};
	return &more[i];
}

static void forget_seg(struct qmgr *q, uint64_t seq)
{
	for (size_t i = 0; i < q->segs_n; i++) {
		if (q->segs[i].seq == seq) {
			memmove(q->segs + i, q->segs + i + 1, (q->segs_n - i - 1) * sizeof *q->segs);
			q->segs_n--;
			return;
		}
	}
}

/* cleanup speaks of the segment that it writes, after it has said where the last one with a batch ends: what lies between
 * is of those who died before their first batch.  One that holds something, whose end nobody told, is left to the next start. */
static void close_empty(struct qmgr *q, uint64_t before)
{
	for (size_t i = 0; i < q->segs_n && q->segs[i].seq < before; i++) {
		uint64_t end, ends_seq, ends_at;
		struct seg_state *s = &q->segs[i];
		if (!s->complete && s->end <= SEGMENT_BLOCK && segment_scan_end(q->journal_fd, s->seq, &end, &ends_seq, &ends_at) == 0 && end == SEGMENT_BLOCK)
			s->complete = true;
	}
}

int journal_on_end(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, journal_end, end);
	struct qmgr *q = ch->program;
	struct seg_state *s = journal_seg(q, end.seq);
	if (s == NULL)
		return ENOMEM;
	if (end.offset > s->end)
		s->end = end.offset;
	close_empty(q, end.seq);
	start_when_told(q, false);
	journal_read(q);
	return 0;
}

int journal_on_segment_ends(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, segment_ends, end);
	struct qmgr *q = ch->program;
	struct seg_state *s = journal_seg(q, end.seq);
	if (s == NULL)
		return ENOMEM;
	s->end = end.offset;
	s->complete = true;
	start_when_told(q, false);
	journal_read(q);
	return 0;
}

/* The lines known about a message from before this start. */
static struct span take_recovered(struct qmgr *q, const struct qid *id, struct buffer *keep)
{
	struct recovered **p = &q->recovered[qid_hash(id) % BUCKETS];
	while (*p != NULL && !qid_same(&(*p)->id, id))
		p = &(*p)->next;
	if (*p == NULL)
		return (struct span){"", 0};
	struct recovered *r = *p;
	*p = r->next;
	*keep = r->lines;
	free(r);
	return buffer_span(keep);
}

static bool is_waiting(struct qmgr *q, const struct qid *id)
{
	char name[64];
	qid_path(id, ".msg", name, sizeof name);
	return faccessat(q->wait_fd, name, F_OK, 0) == 0;
}

/* Its segment stays for the next start, which reads it again. */
static void no_memory_for(struct qmgr *q, struct seg_state *s, const struct record *r)
{
	LOG(&q->proc.log, not_loaded, qid_span(&r->id), F("reason", SPAN_LIT("not enough memory; it is taken up at the next start")));
	if (s != NULL)
		s->alive++;
	else
		q->damage_unnoted = true;
}

static void intake(struct qmgr *q, const struct record *r)
{
	struct buffer lines = {0};
	struct seg_state *s = journal_seg(q, r->seq);
	/* only what a start before this one left can have a waiting file or facts; what is known about a message that
	 * waits is for its file, at the end of the pass */
	bool old = r->seq <= q->reader.segment.seq && q->pass_dir < 256;
	if (msg_find(q, &r->id) != NULL || (old && is_waiting(q, &r->id)))
		return;
	struct span fates = take_recovered(q, &r->id, &lines);
	struct qmsg *m = NULL;
	int error = s == NULL ? ENOMEM : msg_make(q, r, fates, &m);
	if (error != 0) {
		if (error == EBADMSG)
			damage_envelope(q, r);
		else
			no_memory_for(q, s, r);
		buffer_free(&lines);
		return;
	}
	s->alive++;
	buffer_put_span(&m->fates, fates);
	buffer_free(&lines);
	damage_seen(q, &r->id);
	if (m->e.closes.text[0] != '\0')
		report_seen(q, &m->e, &m->id);
	m->fresh = (m->e.flags & ENV_BODY_FILE) == 0 ? r->content : (struct span){NULL, 0};
	m->tasks++;
	start_adopt(q, m);
	struct owed *next;
	for (struct owed *o = m->owed; o != NULL; o = next) {
		next = o->next;
		report_ask(q, m, o);
	}
	msg_start(q, m);
	dest_dispatch(q); /* with the content at hand */
	m->fresh = (struct span){NULL, 0};
	m->tasks--;
	msg_settle(q, m);
}

static struct seg_state *next_unread(struct qmgr *q)
{
	for (size_t i = 0; i < q->segs_n; i++)
		if (!q->segs[i].read)
			return &q->segs[i];
	return NULL;
}

static bool open_reader(struct qmgr *q, struct seg_state *s)
{
	if (q->reading && q->reader.segment.seq == s->seq)
		return true;
	if (q->reading)
		segment_reader_close(&q->reader);
	int error = segment_reader_open(q->journal_fd, s->seq, &q->reader);
	q->reading = error == 0;
	if (error == 0)
		return true;
	if (error != ENOENT)
		LOG(&q->proc.log, record_damaged, NO_ID, F("segment", SPAN_LIT("head")), F("reason", span_of(strerror(error))));
	s->read = s->complete = true; /* freed before this start, or without a head */
	return false;
}

static void finish_segment(struct qmgr *q, struct seg_state *s)
{
	s->read = true;
	if (q->reading) {
		segment_reader_close(&q->reader);
		q->reading = false;
	}
	q_turn_soon(q);
}

void journal_read(struct qmgr *q)
{
	struct seg_state *s;
	unsigned budget = 256;
	if (!q->started || q->stopping)
		return;
	while (q->active < ACTIVE_LIMIT && (s = next_unread(q)) != NULL) {
		struct record r;
		uint64_t seq = s->seq, end = s->end;
		if (!open_reader(q, s))
			continue;
		int error = segment_reader_next(&q->reader, end, &r);
		if (error == 0) {
			intake(q, &r);
			if (--budget == 0) {
				q_turn_soon(q);
				return;
			}
		} else if (error == EBADMSG) {
			damage_record(q, &q->reader);
		} else {
			s = journal_seg(q, seq);
			if (s != NULL && s->complete)
				finish_segment(q, s);
			else
				return;
		}
	}
}

void journal_less(struct qmgr *q, uint64_t seq)
{
	struct seg_state *s = journal_seg(q, seq);
	if (s != NULL && s->alive > 0)
		s->alive--;
	q_turn_soon(q);
}

void journal_free_segments(struct qmgr *q)
{
	for (size_t i = 0; i < q->segs_n; i++) {
		struct seg_state *s = &q->segs[i];
		if (!s->complete || !s->read || s->alive > 0 || s->freeing || q->mover == NULL || damage_holds(q, s->seq))
			continue;
		if (!fates_sync_now(q)) /* parents' lines before what proves them */
			return;
		s->freeing = true;
		send_segment_free(q->mover, (struct msg_segment_free){.seq = s->seq}, -1);
	}
}

int journal_on_freed(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, segment_freed, freed);
	struct qmgr *q = ch->program;
	if (freed.status == 0) {
		forget_seg(q, freed.seq);
		fates_drop_old(q);
		return 0;
	}
	struct seg_state *s = journal_seg(q, freed.seq);
	if (s != NULL)
		s->freeing = false;
	return 0;
}

/* Which segments hold batches, and where each but the last ends; notes the derived messages on the way. */
int journal_list(struct qmgr *q)
{
	int fd = openat(q->journal_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	uint64_t seq;
	if (dir == NULL)
		return errno;
	for (const struct dirent *d; (d = readdir(dir)) != NULL;)
		if (segment_parse_name(d->d_name, &seq) && journal_seg(q, seq) == NULL)
			return ENOMEM;
	(void)closedir(dir);
	for (size_t i = 0; i < q->segs_n;) {
		struct seg_state *s = &q->segs[i];
		uint64_t end, ends_seq, ends_at;
		if (segment_scan_end(q->journal_fd, s->seq, &end, &ends_seq, &ends_at) != 0 || end == SEGMENT_BLOCK) {
			forget_seg(q, s->seq); /* a spare, or nothing that can be read */
			continue;
		}
		s->end = end;
		for (size_t k = 0; k < i; k++) {
			if (q->segs[k].seq == ends_seq)
				q->segs[k].end = ends_at;
			q->segs[k].complete = true;
		}
		i++;
	}
	/* the last one's end is for cleanup to say */
	if (q->segs_n > 0)
		q->segs[q->segs_n - 1].end = 0;
	return 0;
}
