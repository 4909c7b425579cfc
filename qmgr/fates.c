/* The fates files: facts about messages, in the order in which they became true. */
#include "qmgr.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct recovered *fates_recovered(struct qmgr *q, const struct qid *id, bool make)
{
	struct recovered **bucket = &q->recovered[qid_hash(id) % BUCKETS], *r = *bucket;
	while (r != NULL && !qid_same(&r->id, id))
		r = r->next;
	if (r != NULL || !make)
		return r;
	r = calloc(1, sizeof *r);
	if (r == NULL)
		return NULL;
	r->id = *id;
	buffer_init(&r->lines, 64 * 1024 * 1024);
	r->next = *bucket;
	*bucket = r;
	return r;
}

static int read_file(struct qmgr *q, const char *name)
{
	struct buffer text;
	struct fate f;
	buffer_init(&text, FATES_MOST);
	int error = read_file_at(q->fates_fd, name, FATES_MOST, &text);
	struct span rest = buffer_span(&text);
	while (error == 0 && fate_next(&rest, &f)) {
		struct recovered *r = fates_recovered(q, &f.id, true);
		if (r == NULL)
			error = ENOMEM;
		else
			fate_put(&r->lines, &f);
	}
	buffer_free(&text);
	return error;
}

static int compare_states(const void *a, const void *b)
{
	const struct fates_state *x = a, *y = b;
	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static int add_state(struct qmgr *q, uint64_t seq)
{
	struct fates_state *more = realloc(q->fates_list, (q->fates_n + 1) * sizeof *more);
	if (more == NULL)
		return ENOMEM;
	q->fates_list = more;
	more[q->fates_n++] = (struct fates_state){.seq = seq, .last_segment = UINT64_MAX};
	return 0;
}

/* Begins a file with room for at least so many bytes of lines. */
static int new_file(struct qmgr *q, size_t room)
{
	uint64_t seq = q->fates_n == 0 ? 1 : q->fates_list[q->fates_n - 1].seq + 1, size = FATES_BYTES;
	struct fates_file f;
	while (size < room)
		size *= 2;
	int error = fates_create(q->storage, q->fates_fd, seq, size, &f);
	if (error != 0)
		return error;
	if (q->fates.fd >= 0)
		(void)close(q->fates.fd);
	q->fates = f;
	return add_state(q, seq);
}

int fates_recover(struct qmgr *q)
{
	int fd = openat(q->fates_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), error = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	uint64_t seq;
	if (dir == NULL)
		return errno;
	for (const struct dirent *d; error == 0 && (d = readdir(dir)) != NULL;)
		if (fates_parse_name(d->d_name, &seq))
			error = add_state(q, seq);
	(void)closedir(dir);
	if (q->fates_n > 0)
		qsort(q->fates_list, q->fates_n, sizeof *q->fates_list, compare_states);
	for (size_t i = 0; i < q->fates_n && error == 0; i++) {
		char name[32];
		fates_name(q->fates_list[i].seq, name);
		error = read_file(q, name);
	}
	q->fates.fd = -1;
	return error == 0 ? new_file(q, 0) : error;
}

static int queue_fold(struct qmgr *q, const struct qid *id, struct span lines)
{
	struct fold *f = calloc(1, sizeof *f);
	if (f == NULL) {
		q->fates_list[q->fates_n - 1].folds++; /* for ever: this file is not dropped, the next start folds */
		return ENOMEM;
	}
	f->id = *id;
	f->fates_seq = q->fates_list[q->fates_n - 1].seq;
	buffer_init(&f->lines, 1024 * 1024);
	buffer_put_span(&f->lines, lines);
	*q->folds_end = f;
	q->folds_end = &f->next;
	q->fates_list[q->fates_n - 1].folds++;
	if (q->mover != NULL)
		send_fold(q->mover, (struct msg_fold){.id = qid_span(id), .fates = lines}, -1);
	return 0;
}

/* Facts from before: they may stand in any of the present files, so the oldest waits for them. */
static void fold_piece(struct qmgr *q, const struct qid *id, struct buffer *piece)
{
	struct fold *f = calloc(1, sizeof *f);
	if (f == NULL)
		q->fates_list[0].folds++; /* for ever, as above */
	if (f == NULL || piece->n == 0) {
		free(f);
		return;
	}
	f->id = *id;
	f->fates_seq = q->fates_list[0].seq;
	f->lines = *piece;
	buffer_init(piece, piece->limit);
	*q->folds_end = f;
	q->folds_end = &f->next;
	q->fates_list[0].folds++;
	if (q->mover != NULL)
		send_fold(q->mover, (struct msg_fold){.id = qid_span(id), .fates = buffer_span(&f->lines)}, -1);
}

void fates_fold(struct qmgr *q, const struct qid *id, struct span lines)
{
	struct buffer piece;
	struct fate f;
	buffer_init(&piece, 1024 * 1024);
	while (fate_next(&lines, &f)) {
		fate_put(&piece, &f);
		if (piece.n > FACTS_A_PACKET)
			fold_piece(q, id, &piece);
	}
	fold_piece(q, id, &piece);
	buffer_free(&piece);
}

/* Appends a fact to this turn's lines; a waiting message's file gets it too. */
void fates_line(struct qmgr *q, struct qmsg *m, const struct fate *f)
{
	size_t at = q->lines.n;
	fate_put(&q->lines, f);
	struct span line = {q->lines.at + at, q->lines.n - at};
	if (m != NULL && m->in_wait)
		(void)queue_fold(q, &m->id, line);
	else if (m != NULL)
		buffer_put_span(&m->fates, line);
	q_turn_soon(q);
}

void fates_confirm(struct qmgr *q, struct channel *agent, uint64_t delivery)
{
	if (q->confirms_n == q->confirms_size) {
		size_t n = q->confirms_size == 0 ? 64 : q->confirms_size * 2;
		uint64_t *more = realloc(q->confirms, n * sizeof *more);
		if (more != NULL)
			q->confirms = more;
		struct channel **to = realloc(q->confirm_to, n * sizeof(struct channel *));
		if (to != NULL)
			q->confirm_to = to;
		if (more == NULL || to == NULL)
			return; /* unconfirmed, the agent says it again to a later qmgr */
		q->confirms_size = n;
	}
	q->confirms[q->confirms_n] = delivery;
	q->confirm_to[q->confirms_n++] = agent;
	q_turn_soon(q);
}

void fates_forget_channel(struct qmgr *q, const struct channel *ch)
{
	for (size_t i = 0; i < q->confirms_n; i++)
		if (q->confirm_to[i] == ch)
			q->confirm_to[i] = NULL;
}

/* The present file is ended, the next one begun. */
static int next_file(struct qmgr *q, size_t room)
{
	size_t ended = q->fates_n - 1;
	int error = new_file(q, room);
	if (error == 0)
		q->fates_list[ended].last_segment = q->segs_n == 0 ? 0 : q->segs[q->segs_n - 1].seq;
	return error;
}

/* Syncs what was appended.  A sync that failed is never asked again of the same file: the kernel may have let go of what it
 * could not write and say yes the next time.  All lines since the last good sync go to a new file. */
static int sync_lines(struct qmgr *q)
{
	int error = q->fates_broken ? EIO : fates_sync(q->storage, &q->fates);
	if (error != 0) {
		q->fates_broken = true;
		error = next_file(q, q->unsynced.n);
		if (error == 0)
			error = fates_append(q->storage, &q->fates, buffer_span(&q->unsynced));
		if (error == 0)
			error = fates_sync(q->storage, &q->fates);
	}
	if (error != 0)
		return error;
	q->fates_broken = false;
	buffer_clear(&q->unsynced);
	return 0;
}

static int append(struct qmgr *q)
{
	if (q->lines.n == 0)
		return 0;
	int error = fates_append(q->storage, &q->fates, buffer_span(&q->lines));
	if (error == ENOSPC) {
		error = sync_lines(q);
		if (error == 0)
			error = next_file(q, q->lines.n);
		if (error == 0)
			error = fates_append(q->storage, &q->fates, buffer_span(&q->lines));
	}
	if (error == 0)
		buffer_put_span(&q->unsynced, buffer_span(&q->lines));
	return error;
}

/* Lines first, confirmations after: an agent keeps its verdict until it is written down. */
void fates_flush(struct qmgr *q)
{
	int error = append(q);
	if (error == 0 && q->storage == &q->leased) /* what is confirmed, another node knows too */
		error = sync_lines(q);
	if (error != 0) {
		LOG(&q->proc.log, fates_failed, NO_ID, F("reason", span_of(strerror(error))));
		return; /* tried again at the next turn; nothing is confirmed until then */
	}
	buffer_clear(&q->lines);
	for (size_t i = 0; i < q->confirms_n; i++)
		if (q->confirm_to[i] != NULL) {
			channel_lazy(q->confirm_to[i], true);
			send_confirm(q->confirm_to[i], (struct msg_confirm){.delivery = q->confirms[i]}, -1);
			channel_lazy(q->confirm_to[i], false);
		}
	q->confirms_n = 0;
}

void fates_gone(struct qmgr *q, const struct qid *id, unsigned what)
{
	if (q->gone_n == q->gone_size) {
		size_t n = q->gone_size == 0 ? 256 : q->gone_size * 2;
		struct qid *ids = realloc(q->gone, n * sizeof *ids);
		if (ids != NULL)
			q->gone = ids;
		uint8_t *whats = realloc(q->gone_what, n);
		if (whats != NULL)
			q->gone_what = whats;
		if (ids == NULL || whats == NULL)
			return; /* the file stays; the pass at the next start finds it closed */
		q->gone_size = n;
	}
	q->gone[q->gone_n] = *id;
	q->gone_what[q->gone_n++] = (uint8_t)what;
}

bool fates_sync_now(struct qmgr *q)
{
	fates_flush(q);
	int error = sync_lines(q);
	if (error != 0)
		LOG(&q->proc.log, fates_failed, NO_ID, F("reason", span_of(strerror(error))));
	if (error != 0 || q->lines.n > 0)
		return false;
	for (size_t i = 0; i < q->gone_n && q->mover != NULL; i++)
		send_discard(q->mover, (struct msg_discard){.id = qid_span(&q->gone[i]), .what = q->gone_what[i]}, -1);
	if (q->mover != NULL)
		q->gone_n = 0;
	return true;
}

int fates_on_folded(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, folded, folded);
	struct qmgr *q = ch->program;
	struct fold *f = q->folds;
	if (f == NULL || !span_is(folded.id, f->id.text))
		return 0;
	if (folded.status != 0 && folded.status != ENOENT) { /* the lines are not in the file: it and all after it go again */
		q->fold_again = true;
		return 0;
	}
	q->folds = f->next;
	if (q->folds == NULL)
		q->folds_end = &q->folds;
	for (size_t i = 0; i < q->fates_n; i++)
		if (q->fates_list[i].seq == f->fates_seq && q->fates_list[i].folds > 0)
			q->fates_list[i].folds--;
	buffer_free(&f->lines);
	free(f);
	fates_drop_old(q);
	return 0;
}

static void apply_lines(struct qmgr *q, struct qmsg *m, struct span lines)
{
	struct fate f;
	while (fate_next(&lines, &f))
		if (qid_same(&f.id, &m->id))
			msg_apply_fate(q, m, &f);
}

void fates_apply_pending(struct qmgr *q, struct qmsg *m)
{
	const struct recovered *r = fates_recovered(q, &m->id, false);
	if (r != NULL)
		apply_lines(q, m, buffer_span(&r->lines));
	for (const struct fold *f = q->folds; f != NULL; f = f->next)
		if (qid_same(&f->id, &m->id))
			apply_lines(q, m, buffer_span(&f->lines));
}

/* A new mover is asked again for what the one before did not confirm; a line twice is one fact. */
void fates_send_folds(struct qmgr *q)
{
	q->fold_again = false;
	for (const struct fold *f = q->folds; f != NULL; f = f->next)
		send_fold(q->mover, (struct msg_fold){.id = qid_span(&f->id), .fates = buffer_span(&f->lines)}, -1);
}

/* An old file goes when every segment that its lines may be about is free and its folds are done. */
void fates_drop_old(struct qmgr *q)
{
	uint64_t oldest = q->segs_n == 0 ? UINT64_MAX : q->segs[0].seq;
	while (q->fates_n > 1 && q->pass_dir >= 256) {
		struct fates_state *f = &q->fates_list[0];
		if (f->last_segment >= oldest || f->folds > 0)
			return;
		char name[32];
		fates_name(f->seq, name);
		if (q->storage->unlink(q->storage, q->fates_fd, name) != 0)
			return;
		memmove(q->fates_list, q->fates_list + 1, (q->fates_n - 1) * sizeof *q->fates_list);
		q->fates_n--;
	}
}
