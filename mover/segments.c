#include "mover.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { FIRST_SIZE = 4 * 1024 * 1024, MOST_SIZE = 64 * 1024 * 1024, BUSY_MS = 30000 };

static int64_t journal_limit(const struct mover *m)
{
	const struct server *s = config_server(&m->proc.config, span_of(m->proc.server));
	struct statfs fs;
	int64_t limit = s == NULL ? SEGMENT_MIN * 16 : s->p.journal_limit;
	if (fstatfs(m->queue_fd, &fs) == 0) {
		int64_t tenth = (int64_t)fs.f_blocks / 10 * fs.f_bsize;
		if (limit > tenth)
			limit = tenth;
	}
	return limit < 4 * SEGMENT_MIN ? 4 * SEGMENT_MIN : limit;
}

static uint64_t most_size(const struct mover *m)
{
	uint64_t most = (uint64_t)m->limit / 16;
	most = most > MOST_SIZE ? MOST_SIZE : most < SEGMENT_MIN ? SEGMENT_MIN : most;
	return most / SEGMENT_BLOCK * SEGMENT_BLOCK;
}

static void add_spare(struct mover *m, uint64_t seq)
{
	size_t i = m->spares_n++;
	for (; i > 0 && m->spares[i - 1] > seq; i--)
		m->spares[i] = m->spares[i - 1];
	m->spares[i] = seq;
}

/* Of a leased queue: a segment that was made under another token.  Who made it may still have it open and write to it. */
static bool is_foreign(const struct mover *m, uint64_t seq)
{
	struct segment s;
	if (m->storage != &m->leased || segment_open(m->journal_fd, seq, false, &s) != 0)
		return false;
	bool foreign = s.epoch != m->token;
	segment_close(&s);
	return foreign;
}

/* One that is empty is of no use to anybody else. */
static bool drop_foreign(struct mover *m, uint64_t seq)
{
	uint64_t end, ends_seq, ends_at;
	char name[32];
	if (!is_foreign(m, seq) || segment_scan_end(m->journal_fd, seq, &end, &ends_seq, &ends_at) != 0 || end != SEGMENT_BLOCK)
		return false;
	segment_name(seq, name);
	return m->storage->unlink(m->storage, m->journal_fd, name) == 0;
}

/* After a start every segment without a batch is a spare; which ones hold batches is cleanup's to know:
 * it asks for one "after" the last that it found in use. */
int segments_recover(struct mover *m)
{
	int fd = openat(m->journal_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	uint64_t seq, end, ends_seq, ends_at;
	if (dir == NULL)
		return errno;
	for (const struct dirent *d; (d = readdir(dir)) != NULL;) {
		size_t n = strlen(d->d_name);
		if (n > 4 && strcmp(d->d_name + n - 4, ".new") == 0) {
			(void)unlinkat(fd, d->d_name, 0);
			continue;
		}
		if (!segment_parse_name(d->d_name, &seq))
			continue;
		if (seq > m->last_seq)
			m->last_seq = seq;
		if (drop_foreign(m, seq))
			continue;
		m->segments_n++;
		if (m->spares_n < COUNT_OF(m->spares) && segment_scan_end(m->journal_fd, seq, &end, &ends_seq, &ends_at) == 0 && end == SEGMENT_BLOCK)
			add_spare(m, seq);
	}
	(void)closedir(dir);
	m->limit = journal_limit(m);
	m->segment_size = FIRST_SIZE < most_size(m) ? FIRST_SIZE : most_size(m);
	return 0;
}

/* A queue that fills segments quickly gets larger ones. */
static void choose_size(struct mover *m)
{
	uint64_t now = (uint64_t)clock_mono_ms();
	if (m->made_ms != 0 && now - m->made_ms < BUSY_MS && m->segment_size * 2 <= most_size(m))
		m->segment_size *= 2;
	m->made_ms = now;
}

static int make_segment(struct mover *m, uint64_t *seq)
{
	if ((int64_t)((m->segments_n + 1) * m->segment_size) > m->limit && m->segments_n >= 4)
		return ENOSPC;
	choose_size(m);
	int error = segment_create(m->storage, m->journal_fd, m->last_seq + 1, m->token, m->segment_size);
	if (error != 0 && m->segment_size > SEGMENT_MIN) { /* a small disk: a small segment may still fit */
		m->segment_size = SEGMENT_MIN;
		error = segment_create(m->storage, m->journal_fd, m->last_seq + 1, m->token, m->segment_size);
	}
	if (error != 0)
		return error;
	*seq = ++m->last_seq;
	m->segments_n++;
	return 0;
}

int segments_on_want(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, segment_want, want);
	struct mover *m = ch->program;
	uint64_t seq = 0;
	int error = 0;
	size_t i = 0;
	while (i < m->spares_n && m->spares[i] <= want.after)
		i++;
	if (i < m->spares_n)
		seq = m->spares[i++];
	m->spares_n -= i; /* what lies before is in use */
	memmove(m->spares, m->spares + i, m->spares_n * sizeof *m->spares);
	if (seq == 0) {
		if (m->last_seq < want.after)
			m->last_seq = want.after;
		error = make_segment(m, &seq);
		if (error != 0)
			LOG(&m->proc.log, segment_failed, NO_ID, F("reason", span_of(strerror(error))));
	}
	send_segment_ready(ch, (struct msg_segment_ready){.seq = seq, .status = (uint32_t)error, .free = (uint32_t)m->spares_n}, -1);
	return 0;
}

/* A segment whose every record is gone or waiting: at once its space gets a new name and random
 * bytes, so that a later start never reads its records again. */
int segments_on_free(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, segment_free, gone);
	struct mover *m = ch->program;
	char name[32];
	int error;
	if (m->spares_n < SPARES_KEPT && !is_foreign(m, gone.seq)) {
		error = segment_recycle(m->storage, m->journal_fd, gone.seq, m->last_seq + 1, m->token);
		if (error == 0)
			add_spare(m, ++m->last_seq);
	} else {
		segment_name(gone.seq, name);
		error = m->storage->unlink(m->storage, m->journal_fd, name);
		if (error == 0)
			error = m->storage->sync_dir(m->storage, m->journal_fd, ".");
		if (error == 0)
			m->segments_n--;
	}
	if (error == ENOENT)
		error = 0;
	send_segment_freed(ch, (struct msg_segment_freed){.seq = gone.seq, .status = (uint32_t)error}, -1);
	return 0;
}
