#include "cleanup.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static int compare_seq(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

/* All segments' numbers, ascending; the caller frees. */
static int list_segments(int journal_fd, uint64_t **out, size_t *n)
{
	int fd = openat(journal_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	uint64_t *list = NULL, seq;
	size_t used = 0, size = 0;
	if (dir == NULL)
		return errno;
	for (const struct dirent *d; (d = readdir(dir)) != NULL;) {
		if (!segment_parse_name(d->d_name, &seq))
			continue;
		if (used == size) {
			size = size == 0 ? 64 : size * 2;
			uint64_t *more = realloc(list, size * sizeof *list);
			if (more == NULL) {
				free(list);
				(void)closedir(dir);
				return ENOMEM;
			}
			list = more;
		}
		list[used++] = seq;
	}
	(void)closedir(dir);
	if (used > 0)
		qsort(list, used, sizeof *list, compare_seq);
	*out = list;
	*n = used;
	return 0;
}

static int learn_ids(struct cleanup *c, uint64_t seq, uint64_t end)
{
	struct segment_reader r;
	struct record rec;
	int error = segment_reader_open(c->journal_fd, seq, &r);
	if (error != 0)
		return error;
	while ((error = segment_reader_next(&r, end, &rec)) != ENOENT) {
		if (error == EBADMSG)
			continue;
		if (error != 0)
			break;
		error = known_add(c, &rec.id, seq);
		if (error != 0)
			break;
	}
	segment_reader_close(&r);
	return error == ENOENT ? 0 : error;
}

/* What lies in the last segment was perhaps never synced: it is now, before anything is said about it. */
static int sync_segment(const struct cleanup *c, uint64_t seq)
{
	struct segment s;
	int error = segment_open(c->journal_fd, seq, true, &s);
	if (error != 0)
		return error;
	error = fdatasync(s.fd) == 0 ? 0 : errno;
	segment_close(&s);
	return error;
}

/* Finds the last segment with a batch, its end, and the ids of the last two. */
int journal_recover(struct cleanup *c)
{
	uint64_t *list = NULL, end = 0, ends_seq = 0, ends_at = 0;
	size_t n = 0;
	int error = list_segments(c->journal_fd, &list, &n);
	while (error == 0 && n > 0) {
		int bad = segment_scan_end(c->journal_fd, list[n - 1], &end, &ends_seq, &ends_at);
		if (bad == 0 && end > SEGMENT_BLOCK)
			break;
		n--;
	}
	if (error == 0 && n > 0) {
		c->previous_seq = list[n - 1];
		c->previous_end = end;
		error = sync_segment(c, c->previous_seq);
		if (error == 0)
			error = learn_ids(c, c->previous_seq, end);
		if (error == 0 && n > 1)
			(void)!learn_ids(c, list[n - 2], list[n - 2] == ends_seq ? ends_at : UINT64_MAX);
	}
	free(list);
	return error;
}

void journal_want(struct cleanup *c)
{
	if (c->wanted || c->ready_seq != 0 || c->mover == NULL)
		return;
	c->wanted = true;
	send_segment_want(c->mover, (struct msg_segment_want){.after = c->writable ? c->writer.segment.seq : c->previous_seq}, -1);
}

void journal_tell_qmgr(struct cleanup *c)
{
	if (c->qmgr == NULL)
		return;
	if (c->previous_seq != 0)
		send_segment_ends(c->qmgr, (struct msg_segment_ends){.seq = c->previous_seq, .offset = c->previous_end}, -1);
	if (c->writable)
		send_journal_end(c->qmgr, (struct msg_journal_end){.seq = c->writer.segment.seq, .offset = c->writer.synced_to}, -1);
}

static void end_segment(struct cleanup *c)
{
	if (!c->writable) /* there is none: what is known of the one before stays */
		return;
	c->previous_seq = c->writer.segment.seq;
	c->previous_end = c->writer.synced_to;
	segment_close(&c->writer.segment);
	c->writable = false;
	known_forget(c, c->previous_seq);
	if (c->qmgr != NULL)
		send_segment_ends(c->qmgr, (struct msg_segment_ends){.seq = c->previous_seq, .offset = c->previous_end}, -1);
}

/* An empty batch says where the journal of whoever had the queue before ends: what a node that was cut off writes there is void. */
static int close_before(struct cleanup *c)
{
	struct batch empty = {0};
	batch_begin(&empty);
	int error = batch_commit(c->storage, &c->writer, &empty);
	buffer_free(&empty.bytes);
	c->closed_before = error == 0;
	if (error != 0) { /* the next one says it */
		segment_close(&c->writer.segment);
		c->writable = false;
	}
	return error;
}

/* Takes the segment that mover made.  The lock keeps a second cleanup away. */
static int open_ready(struct cleanup *c)
{
	struct segment s;
	int error = segment_open(c->journal_fd, c->ready_seq, true, &s);
	if (error == 0 && flock(s.fd, LOCK_EX | LOCK_NB) != 0) {
		error = errno;
		segment_close(&s);
	}
	c->ready_seq = 0;
	if (error != 0)
		return error;
	c->writer = (struct segment_writer){.segment = s, .offset = SEGMENT_BLOCK, .synced_to = SEGMENT_BLOCK,
		.ends_seq = c->previous_seq, .ends_at = c->previous_end};
	c->writable = true;
	if (c->lease != NULL && !c->closed_before) {
		error = close_before(c);
		if (error != 0)
			return error;
	}
	journal_want(c); /* the one after it is made ahead */
	return 0;
}

static void answer_all(struct cleanup *c, int status)
{
	for (size_t i = 0; i < c->waiters_n; i++) {
		const struct waiter *w = &c->waiters[i];
		/* only smtpd's messages: what a file of Pickup became is submitted again with the same body */
		if (status != 0 && w->has_body && c->mover != NULL && (w->origin == NULL || w->origin->peer == R_SMTPD))
			send_body_refused(c->mover, (struct msg_body_refused){.id = qid_span(&w->id)}, -1);
		if (w->origin != NULL)
			send_submitted(w->origin, (struct msg_submitted){.id = qid_span(&w->id), .status = (uint32_t)status}, -1);
	}
	c->waiters_n = 0;
}

/* The batch was built with the random bytes of a segment that it does not go to: they are put in anew. */
static int rebuild_for(struct cleanup *c)
{
	struct batch fresh = {0};
	struct span rest = {c->batch.bytes.at + 72, c->batch.bytes.n - 72};
	batch_begin(&fresh);
	while (rest.n >= RECORD_HEADER) {
		size_t length = load_u32(rest.at + 48), envelope = load_u32(rest.at + 40), content = load_u32(rest.at + 44);
		struct qid id;
		if (qid_parse((struct span){rest.at + 24, QID_N}, &id) != 0 || length > rest.n)
			return EBADMSG;
		struct span piece = {rest.at + RECORD_HEADER + envelope, content};
		(void)batch_add(&fresh, &c->writer, &id, (struct span){rest.at + RECORD_HEADER, envelope}, &piece, 1);
		size_t step = (length + 7) / 8 * 8;
		rest.at += step < rest.n ? step : rest.n;
		rest.n -= step < rest.n ? step : rest.n;
	}
	buffer_free(&c->batch.bytes);
	c->batch = fresh;
	return buffer_ok(&fresh.bytes) ? 0 : ENOMEM;
}

/* RFC: a refused message is never delivered.  The failed segment's end is written down in the
 * next one before anybody is told. */
static void after_failure(struct cleanup *c, int error)
{
	LOG(&c->proc.log, sync_failed, NO_ID, F("reason", span_of(strerror(error))));
	end_segment(c);
	if (c->ready_seq != 0 && open_ready(c) == 0) {
		batch_begin(&c->batch);
		if (batch_commit(c->storage, &c->writer, &c->batch) != 0)
			end_segment(c);
	}
	answer_all(c, error);
	batch_begin(&c->batch);
	journal_want(c);
}

static void note_durable(struct cleanup *c)
{
	int memory = 0;
	for (size_t i = 0; i < c->waiters_n && memory == 0; i++)
		memory = known_add(c, &c->waiters[i].id, c->writer.segment.seq);
	answer_all(c, 0);
	batch_begin(&c->batch);
	if (c->qmgr != NULL)
		send_journal_end(c->qmgr, (struct msg_journal_end){.seq = c->writer.segment.seq, .offset = c->writer.synced_to}, -1);
}

void journal_commit(struct cleanup *c)
{
	if (c->batch.records == 0)
		return;
	if (c->writable && c->writer.offset + batch_bytes(&c->batch) > c->writer.segment.size)
		end_segment(c);
	if (!c->writable) {
		if (c->ready_seq == 0) {
			journal_want(c);
			if (c->full) {
				LOG(&c->proc.log, no_segment, NO_ID, F("waiting", SPAN_LIT("452")));
				answer_all(c, ENOSPC);
				batch_begin(&c->batch);
			}
			return; /* goes on when the segment is ready */
		}
		int error = open_ready(c);
		if (error == 0)
			error = rebuild_for(c);
		if (error != 0) {
			after_failure(c, error);
			return;
		}
	}
	int error = batch_commit(c->storage, &c->writer, &c->batch);
	if (error != 0)
		after_failure(c, error);
	else
		note_durable(c);
}

int journal_on_ready(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, segment_ready, ready);
	struct cleanup *c = ch->program;
	c->wanted = false;
	c->full = ready.status != 0;
	if (ready.status != 0) {
		struct timeval tv = {.tv_sec = 1};
		(void)event_add(c->retry, &tv); /* goes on by itself when there is space again */
		if (!c->writable)
			journal_commit(c);
		return 0;
	}
	c->ready_seq = ready.seq;
	if (!c->writable) {
		int error = open_ready(c);
		if (error == 0)
			error = rebuild_for(c);
		if (error != 0)
			after_failure(c, error);
		else
			journal_tell_qmgr(c);
	}
	journal_commit(c);
	return 0;
}
