#include "mover.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void work_soon(struct mover *m)
{
	if (m->work_due)
		return;
	m->work_due = true;
	event_active(m->work, 0, 0);
}

int store_on_store(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, store, store);
	struct mover *m = ch->program;
	struct store_job *j = calloc(1, sizeof *j);
	if (j == NULL)
		return ENOMEM;
	*j = (struct store_job){.seq = store.seq, .offset = store.offset, .length = store.length, .fd = -1};
	buffer_init(&j->fates, IPC_PACKET_MAX);
	buffer_put_span(&j->fates, store.fates);
	if (qid_parse(store.id, &j->id) != 0 || !buffer_ok(&j->fates)) {
		buffer_free(&j->fates);
		free(j);
		return EBADMSG;
	}
	*m->jobs_end = j;
	m->jobs_end = &j->next;
	m->jobs_n++;
	if (m->jobs_n >= STORE_BATCH)
		store_work(m);
	else
		work_soon(m);
	return 0;
}

/* Reads the record from the journal and writes the waiting file's bytes under a temporary name. */
static int write_job(struct mover *m, struct store_job *j, const struct segment *s, struct buffer *from, struct buffer *to)
{
	struct record r;
	char name[64];
	buffer_clear(from);
	buffer_clear(to);
	if (buffer_reserve(from, j->length) != 0)
		return ENOMEM;
	int error = pread_all(s->fd, from->at, j->length, (off_t)j->offset);
	if (error == 0)
		error = record_parse((struct span){from->at, j->length}, s->random, &r);
	if (error == 0 && !qid_same(&r.id, &j->id))
		error = EBADMSG;
	if (error != 0)
		return error;
	wait_put(to, &r.id, r.envelope, r.content, buffer_span(&j->fates));
	if (!buffer_ok(to))
		return ENOMEM;
	(void)snprintf(name, sizeof name, "tmp/%s", j->id.text);
	error = storage_check(m->storage);
	if (error != 0)
		return error;
	j->fd = openat(m->wait_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (j->fd < 0)
		return errno;
	error = m->storage->write(m->storage, j->fd, name, buffer_span(to), 0);
	/* starts the writing of all files of a batch before the first is waited for */
	if (error == 0)
		(void)sync_file_range(j->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
	return error;
}

static void write_jobs(struct mover *m, struct store_job *jobs)
{
	struct segment s = {.fd = -1};
	struct buffer from, to;
	int open_error = 0;
	buffer_init(&from, 64 * 1024 * 1024);
	buffer_init(&to, 64 * 1024 * 1024);
	for (struct store_job *j = jobs; j != NULL; j = j->next) {
		if (s.fd < 0 || s.seq != j->seq) {
			segment_close(&s);
			open_error = segment_open(m->journal_fd, j->seq, false, &s);
			if (open_error != 0)
				s = (struct segment){.fd = -1, .seq = j->seq};
		}
		j->error = open_error != 0 ? open_error : write_job(m, j, &s, &from, &to);
	}
	segment_close(&s);
	buffer_free(&from);
	buffer_free(&to);
}

static void name_jobs(struct mover *m, struct store_job *jobs)
{
	bool touched[256] = {false};
	char from[64], to[64];
	for (struct store_job *j = jobs; j != NULL; j = j->next) {
		if (j->error == 0)
			j->error = m->storage->sync(m->storage, j->fd, j->id.text);
		if (j->fd >= 0)
			(void)close(j->fd);
		if (j->error != 0)
			continue;
		(void)snprintf(from, sizeof from, "tmp/%s", j->id.text);
		qid_path(&j->id, ".msg", to, sizeof to);
		j->error = m->storage->rename(m->storage, m->wait_fd, from, to);
		touched[qid_hash(&j->id) & 0xff] = true;
	}
	for (unsigned i = 0; i < 256; i++) {
		char dir[8];
		(void)snprintf(dir, sizeof dir, "%02x", i);
		int error = touched[i] ? m->storage->sync_dir(m->storage, m->wait_fd, dir) : 0;
		for (struct store_job *j = jobs; error != 0 && j != NULL; j = j->next)
			if ((qid_hash(&j->id) & 0xff) == i && j->error == 0)
				j->error = error;
	}
}

void store_work(struct mover *m)
{
	struct store_job *jobs = m->jobs;
	m->work_due = false;
	if (jobs == NULL)
		return;
	m->jobs = NULL;
	m->jobs_end = &m->jobs;
	m->jobs_n = 0;
	write_jobs(m, jobs);
	name_jobs(m, jobs);
	while (jobs != NULL) {
		struct store_job *j = jobs;
		jobs = j->next;
		if (j->error != 0)
			LOG(&m->proc.log, store_failed, qid_span(&j->id), F("reason", span_of(strerror(j->error))));
		if (m->qmgr != NULL)
			send_stored(m->qmgr, (struct msg_stored){.id = qid_span(&j->id), .status = (uint32_t)j->error}, -1);
		buffer_free(&j->fates);
		free(j);
	}
}

static int append_synced(struct mover *m, const struct qid *id, struct span lines)
{
	char name[64];
	qid_path(id, ".msg", name, sizeof name);
	int fd = openat(m->wait_fd, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return errno;
	off_t end = lseek(fd, 0, SEEK_END);
	end = (end + 7) / 8 * 8; /* a torn line before stays a torn line */
	int error = m->storage->write(m->storage, fd, name, lines, end);
	if (error == 0)
		error = m->storage->sync(m->storage, fd, name);
	(void)close(fd);
	return error;
}

/* Facts about a waiting message join its file, so that fates files can be dropped. */
int store_on_fold(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, fold, fold);
	struct mover *m = ch->program;
	struct qid id;
	if (qid_parse(fold.id, &id) != 0)
		return EBADMSG;
	int error = append_synced(m, &id, fold.fates);
	if (error != 0 && error != ENOENT)
		LOG(&m->proc.log, store_failed, qid_span(&id), F("reason", span_of(strerror(error))));
	send_folded(ch, (struct msg_folded){.id = fold.id, .status = (uint32_t)error}, -1);
	return 0;
}

int store_on_discard(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, discard, gone);
	struct mover *m = ch->program;
	struct qid id;
	char name[64];
	int error = 0;
	if (qid_parse(gone.id, &id) != 0)
		return EBADMSG;
	if ((gone.what & DISCARD_WAIT) != 0) {
		qid_path(&id, ".msg", name, sizeof name);
		error = m->storage->unlink(m->storage, m->wait_fd, name);
	}
	if ((gone.what & DISCARD_BODY) != 0 && (error == 0 || error == ENOENT)) {
		qid_path(&id, "", name, sizeof name);
		error = m->storage->unlink(m->storage, m->body_fd, name);
	}
	if (error != 0 && error != ENOENT)
		LOG(&m->proc.log, unlink_failed, qid_span(&id), F("reason", span_of(strerror(error))));
	return 0;
}

/* A damaged message's file and its large body, or a body without a message: kept, out of the way. */
int store_on_corrupt(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, corrupt, bad);
	struct mover *m = ch->program;
	static const struct { const char *from, *tail, *to; } files[] = {{"wait/", ".msg", ".msg"}, {"body/", "", ".body"}};
	struct qid id;
	char from[80], to[80], path[64];
	if (qid_parse(bad.id, &id) != 0)
		return EBADMSG;
	for (size_t i = 0; i < COUNT_OF(files); i++) {
		qid_path(&id, files[i].tail, path, sizeof path);
		(void)snprintf(from, sizeof from, "%s%s", files[i].from, path);
		corrupt_file_name(&id, files[i].to, to, sizeof to);
		int error = m->storage->rename(m->storage, m->queue_fd, from, to);
		if (error != 0 && error != ENOENT)
			LOG(&m->proc.log, unlink_failed, qid_span(&id), F("file", span_of(from)), F("reason", span_of(strerror(error))));
	}
	return 0;
}

static int copy_bytes(struct mover *m, const struct segment *from, uint64_t at, uint64_t n, int to, const char *name)
{
	enum { PIECE = 1 << 20 };
	char *piece = malloc(PIECE);
	int error = piece == NULL ? ENOMEM : 0;
	for (uint64_t done = 0; done < n && error == 0; done += PIECE) {
		size_t size = n - done < PIECE ? (size_t)(n - done) : PIECE;
		error = pread_all(from->fd, piece, size, (off_t)(at + done));
		if (error == 0)
			error = m->storage->write(m->storage, to, name, (struct span){piece, size}, (off_t)done);
	}
	free(piece);
	return error == 0 ? m->storage->sync(m->storage, to, name) : error;
}

static int copy_record(struct mover *m, const struct msg_corrupt_record *bad, const char *name)
{
	struct segment s = {.fd = -1};
	int error = segment_open(m->journal_fd, bad->seq, false, &s), fd = -1;
	if (error == 0)
		error = storage_check(m->storage);
	if (error == 0 && (bad->offset > s.size || bad->length > s.size - bad->offset))
		error = EBADMSG;
	if (error == 0) {
		fd = openat(m->queue_fd, "corrupt/tmp", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
		error = fd < 0 ? errno : copy_bytes(m, &s, bad->offset, bad->length, fd, name);
	}
	if (fd >= 0)
		(void)close(fd);
	segment_close(&s);
	if (error == 0)
		error = m->storage->rename(m->storage, m->queue_fd, "corrupt/tmp", name);
	return error == 0 ? m->storage->sync_dir(m->storage, m->queue_fd, "corrupt") : error;
}

/* Bytes of the journal that failed their check, kept before their segment is recycled; qmgr sees the name and asks
 * again as long as it is not there. */
int store_on_corrupt_record(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, corrupt_record, bad);
	struct mover *m = ch->program;
	char name[80];
	corrupt_record_name(bad.seq, bad.offset, name, sizeof name);
	int error = copy_record(m, &bad, name);
	if (error != 0)
		LOG(&m->proc.log, store_failed, NO_ID, F("file", span_of(name)), F("reason", span_of(strerror(error))));
	return 0;
}

/* cleanup refused the message whose body this is: no record of it will ever count. */
int store_on_body_refused(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, body_refused, gone);
	struct mover *m = ch->program;
	struct qid id;
	char name[64];
	if (qid_parse(gone.id, &id) != 0)
		return EBADMSG;
	qid_path(&id, "", name, sizeof name);
	(void)!m->storage->unlink(m->storage, m->body_fd, name);
	return 0;
}
