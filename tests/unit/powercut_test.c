/* A power cut after each step: what the queue's files hold then is laid out as a disk may have kept
 * it (nothing unsynced, all of it, all but one block, one block torn) and read as a start reads it. */
#include "queuefile/queuefile.h"
#include "unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MESSAGES = 200, SEGMENT = 96 * 1024, NAMES = 4096, BLOCK = 4096, INODES = 2048 };

/* ---- the model of a disk ---- */

struct write_op {
	char *bytes;
	size_t n;
	off_t at;
};
struct inode {
	ino_t number;
	char *durable;
	size_t durable_n;
	struct write_op pending[256];
	size_t pending_n;
};
struct entry {
	char name[64];
	int inode; /* -1: gone */
};
struct dir_op {
	char from[64], to[64]; /* from empty: a new name; to empty: gone */
	int inode;
};

struct message {
	struct qid id;
	bool acknowledged, closed, closed_synced;
};

struct disk {
	struct storage storage;
	char dir[64], copy[64];
	int dir_fd;
	struct inode *inodes;
	size_t inodes_n;
	struct entry *entries; /* durable names */
	size_t entries_n;
	struct dir_op dir_ops[64];
	size_t dir_ops_n;
	struct message messages[MESSAGES];
	size_t messages_n;
	bool no_sync;          /* control: syncs do nothing */
	bool early;            /* control: acknowledged before the sync */
	unsigned lost, repeated, cuts;
};

static int inode_of(struct disk *d, int fd, const char *name)
{
	struct stat st;
	ck_assert_int_eq(fstat(fd, &st), 0);
	for (size_t i = 0; i < d->inodes_n; i++)
		if (d->inodes[i].number == st.st_ino)
			return (int)i;
	ck_assert_uint_lt(d->inodes_n, INODES);
	d->inodes[d->inodes_n] = (struct inode){.number = st.st_ino};
	struct dir_op *op = &d->dir_ops[d->dir_ops_n++];
	*op = (struct dir_op){.inode = (int)d->inodes_n};
	(void)snprintf(op->to, sizeof op->to, "%s", name);
	return (int)d->inodes_n++;
}

static void put_bytes(char **at, size_t *n, const char *bytes, size_t bytes_n, off_t offset)
{
	size_t end = (size_t)offset + bytes_n;
	if (end > *n) {
		*at = realloc(*at, end);
		memset(*at + *n, 0, end - *n);
		*n = end;
	}
	memcpy(*at + offset, bytes, bytes_n);
}

static void apply_dir_op(struct entry *entries, size_t *n, const struct dir_op *op)
{
	for (size_t i = 0; i < *n; i++) /* whatever had either name has it no more */
		if (strcmp(entries[i].name, op->from) == 0 || strcmp(entries[i].name, op->to) == 0)
			entries[i--] = entries[--*n];
	if (op->to[0] != '\0') {
		entries[*n] = (struct entry){.inode = op->inode};
		(void)snprintf(entries[(*n)++].name, sizeof entries[0].name, "%s", op->to);
	}
}

static void cut_here(struct disk *d);

static int traced_write(struct storage *s, int fd, const char *name, struct span bytes, off_t at)
{
	struct disk *d = s->context;
	struct inode *i = &d->inodes[inode_of(d, fd, name)];
	ck_assert_uint_lt(i->pending_n, 256);
	struct write_op *w = &i->pending[i->pending_n++];
	*w = (struct write_op){.bytes = malloc(bytes.n), .n = bytes.n, .at = at};
	memcpy(w->bytes, bytes.at, bytes.n);
	cut_here(d);
	return storage_real.write(&storage_real, fd, name, bytes, at);
}

static int traced_sync(struct storage *s, int fd, const char *name)
{
	struct disk *d = s->context;
	struct inode *i = &d->inodes[inode_of(d, fd, name)];
	for (size_t k = 0; k < i->pending_n && !d->no_sync; k++) {
		put_bytes(&i->durable, &i->durable_n, i->pending[k].bytes, i->pending[k].n, i->pending[k].at);
		free(i->pending[k].bytes);
	}
	if (!d->no_sync)
		i->pending_n = 0;
	else if (i->pending_n > 32) { /* the control need not remember for ever */
		put_bytes(&i->durable, &i->durable_n, i->pending[0].bytes, i->pending[0].n, i->pending[0].at);
		free(i->pending[0].bytes);
		memmove(i->pending, i->pending + 1, --i->pending_n * sizeof i->pending[0]);
	}
	cut_here(d);
	return 0;
}

static int traced_rename(struct storage *s, int dir_fd, const char *from, const char *to)
{
	struct disk *d = s->context;
	struct stat st;
	ck_assert_int_eq(fstatat(dir_fd, from, &st, 0), 0);
	struct dir_op *op = &d->dir_ops[d->dir_ops_n++];
	*op = (struct dir_op){.inode = -1};
	for (size_t i = 0; i < d->inodes_n; i++)
		if (d->inodes[i].number == st.st_ino)
			op->inode = (int)i;
	(void)snprintf(op->from, sizeof op->from, "%s", from);
	(void)snprintf(op->to, sizeof op->to, "%s", to);
	cut_here(d);
	return storage_real.rename(&storage_real, dir_fd, from, to);
}

static int traced_unlink(struct storage *s, int dir_fd, const char *name)
{
	struct disk *d = s->context;
	struct dir_op *op = &d->dir_ops[d->dir_ops_n++];
	struct stat st;
	*op = (struct dir_op){.inode = -1};
	(void)snprintf(op->from, sizeof op->from, "%s", name);
	if (fstatat(dir_fd, name, &st, 0) == 0)
		for (size_t i = 0; i < d->inodes_n; i++)
			if (d->inodes[i].number == st.st_ino)
				d->inodes[i].number = 0; /* the number may be used again */
	cut_here(d);
	return storage_real.unlink(&storage_real, dir_fd, name);
}

static int traced_sync_dir(struct storage *s, int dir_fd, const char *name)
{
	struct disk *d = s->context;
	(void)dir_fd;
	(void)name;
	for (size_t i = 0; i < d->dir_ops_n; i++)
		apply_dir_op(d->entries, &d->entries_n, &d->dir_ops[i]);
	d->dir_ops_n = 0;
	cut_here(d);
	return 0;
}

/* ---- what a start finds ---- */

struct found {
	struct qid *due;
	size_t n;
};

static bool is_closed(const struct buffer *lines, const struct qid *id)
{
	struct span rest = buffer_span(lines);
	struct fate f;
	while (fate_next(&rest, &f))
		if (f.kind == FATE_CLOSED && qid_same(&f.id, id))
			return true;
	return false;
}

static void add_due(struct found *f, const struct qid *id)
{
	for (size_t i = 0; i < f->n; i++)
		if (qid_same(&f->due[i], id))
			return;
	f->due[f->n++] = *id;
}

static void read_segments(int fd, const struct buffer *lines, const char *const *names, size_t n, struct found *out)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t seq;
		struct segment_reader r;
		struct record rec;
		int error;
		if (!segment_parse_name(names[i], &seq) || segment_reader_open(fd, seq, &r) != 0)
			continue;
		while ((error = segment_reader_next(&r, SEGMENT, &rec)) != ENOENT) {
			char file[40];
			if (error != 0)
				continue;
			(void)snprintf(file, sizeof file, "%s.msg", rec.id.text);
			if (!is_closed(lines, &rec.id) && faccessat(fd, file, F_OK, 0) != 0)
				add_due(out, &rec.id);
		}
		segment_reader_close(&r);
	}
}

static void read_waiting(int fd, const struct buffer *lines, const char *const *names, size_t n, struct found *out)
{
	for (size_t i = 0; i < n; i++) {
		struct buffer bytes;
		struct record rec;
		struct span fates;
		if (strlen(names[i]) != QID_N + 4 || strcmp(names[i] + QID_N, ".msg") != 0)
			continue;
		buffer_init(&bytes, 1 << 20);
		if (read_file_at(fd, names[i], 1 << 20, &bytes) == 0 && wait_parse(buffer_span(&bytes), &rec, &fates) == 0 && !is_closed(lines, &rec.id))
			add_due(out, &rec.id);
		buffer_free(&bytes);
	}
}

static void recover(int fd, const char *const *names, size_t n, struct found *out)
{
	struct buffer lines;
	uint64_t seq;
	buffer_init(&lines, 16 << 20);
	for (size_t i = 0; i < n; i++)
		if (fates_parse_name(names[i], &seq))
			(void)!read_file_at(fd, names[i], 16 << 20, &lines);
	read_segments(fd, &lines, names, n, out);
	read_waiting(fd, &lines, names, n, out);
	buffer_free(&lines);
}

static void judge(struct disk *d, const char *const *names, size_t n)
{
	int fd = open(d->copy, O_RDONLY | O_DIRECTORY);
	struct qid due[MESSAGES + 64];
	struct found f = {.due = due};
	recover(fd, names, n, &f);
	(void)close(fd);
	d->cuts++;
	for (size_t i = 0; i < d->messages_n; i++) {
		const struct message *m = &d->messages[i];
		bool is_due = false;
		for (size_t k = 0; k < f.n; k++)
			is_due = is_due || qid_same(&f.due[k], &m->id);
		d->lost += m->acknowledged && !m->closed && !is_due;
		d->repeated += m->closed_synced && is_due;
	}
}

/* ---- laying out what a disk may hold ---- */

enum survival { NOTHING, EVERYTHING, ALL_BUT_ONE, ONE_TORN };

static void lay_inode(const struct disk *d, int index, const char *name, enum survival how, int victim, size_t block)
{
	const struct inode *i = &d->inodes[index];
	char *bytes = malloc(i->durable_n + 1), path[200];
	size_t n = i->durable_n, seen = 0;
	memcpy(bytes, i->durable == NULL ? "" : i->durable, n);
	for (size_t k = 0; k < i->pending_n && how != NOTHING; k++) {
		const struct write_op *w = &i->pending[k];
		for (size_t at = 0; at < w->n; at += BLOCK, seen++) {
			size_t part = w->n - at < BLOCK ? w->n - at : BLOCK;
			bool hit = index == victim && seen == block;
			if (hit && how == ALL_BUT_ONE)
				put_bytes(&bytes, &n, "", 0, w->at + (off_t)(at + part)); /* the length may have been kept */
			else
				put_bytes(&bytes, &n, w->bytes + at, hit && how == ONE_TORN ? part / 2 : part, w->at + (off_t)at);
		}
	}
	(void)snprintf(path, sizeof path, "%s/%s", d->copy, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	ck_assert_int_eq(write_all(fd, bytes, n), 0);
	(void)close(fd);
	free(bytes);
}

static void lay_out(struct disk *d, enum survival how, int victim, size_t block)
{
	struct entry entries[256];
	const char *names[256];
	size_t n = d->entries_n;
	memcpy(entries, d->entries, n * sizeof *entries);
	for (size_t i = 0; i < d->dir_ops_n && how != NOTHING; i++)
		apply_dir_op(entries, &n, &d->dir_ops[i]);
	for (size_t i = 0; i < n; i++) {
		names[i] = entries[i].name;
		lay_inode(d, entries[i].inode, names[i], how, victim, block);
	}
	judge(d, names, n);
	for (size_t i = 0; i < n; i++) {
		char path[200];
		(void)snprintf(path, sizeof path, "%s/%s", d->copy, names[i]);
		(void)unlink(path);
	}
}

static void cut_here(struct disk *d)
{
	if (d->messages_n == 0)
		return;
	lay_out(d, NOTHING, -1, 0);
	lay_out(d, EVERYTHING, -1, 0);
	for (size_t i = 0; i < d->inodes_n && !d->no_sync; i++) {
		size_t blocks = 0;
		for (size_t k = 0; k < d->inodes[i].pending_n; k++)
			blocks += (d->inodes[i].pending[k].n + BLOCK - 1) / BLOCK;
		for (size_t b = 0; b < blocks; b++) {
			lay_out(d, ALL_BUT_ONE, (int)i, b);
			lay_out(d, ONE_TORN, (int)i, b);
		}
	}
}

/* ---- a queue's life: arrivals, deliveries, waiting, recycling ---- */

struct life {
	struct disk *d;
	struct storage *st;
	struct segment_writer w;
	struct batch batch;
	struct fates_file fates;
	struct qid_maker ids;
	uint64_t last_seq;
	size_t first_of_segment;
};

static void open_segment(struct life *l, uint64_t seq)
{
	uint64_t before = l->w.segment.seq, end = l->w.synced_to;
	l->w = (struct segment_writer){.offset = SEGMENT_BLOCK, .synced_to = SEGMENT_BLOCK, .ends_seq = before, .ends_at = end};
	ck_assert_int_eq(segment_open(l->d->dir_fd, seq, true, &l->w.segment), 0);
}

static void close_message(struct life *l, struct message *m)
{
	struct buffer line;
	struct fate f = {.kind = FATE_CLOSED, .id = m->id};
	buffer_init(&line, 1000);
	fate_put(&line, &f);
	m->closed = true;
	ck_assert_int_eq(fates_append(l->st, &l->fates, buffer_span(&line)), 0);
	buffer_free(&line);
}

static void sync_fates(struct life *l)
{
	ck_assert_int_eq(fates_sync(l->st, &l->fates), 0);
	for (size_t i = 0; i < l->d->messages_n; i++)
		if (l->d->messages[i].closed)
			l->d->messages[i].closed_synced = true;
}

static void store_message(struct life *l, const struct message *m)
{
	struct buffer b;
	char aside[40], name[40];
	buffer_init(&b, 10000);
	wait_put(&b, &m->id, span_of("\x01\0\0\0\0"), span_of("content"), (struct span){"", 0});
	(void)snprintf(aside, sizeof aside, "%s.tmp", m->id.text);
	(void)snprintf(name, sizeof name, "%s.msg", m->id.text);
	int fd = openat(l->d->dir_fd, aside, O_WRONLY | O_CREAT | O_EXCL, 0600);
	ck_assert_int_eq(l->st->write(l->st, fd, aside, buffer_span(&b), 0), 0);
	ck_assert_int_eq(l->st->sync(l->st, fd, aside), 0);
	(void)close(fd);
	ck_assert_int_eq(l->st->rename(l->st, l->d->dir_fd, aside, name), 0);
	ck_assert_int_eq(l->st->sync_dir(l->st, l->d->dir_fd, "."), 0);
	buffer_free(&b);
}

static void deliver_waiting(struct life *l, struct message *m)
{
	char name[40];
	close_message(l, m);
	sync_fates(l); /* lines synced, then unlinked */
	(void)snprintf(name, sizeof name, "%s.msg", m->id.text);
	ck_assert_int_eq(l->st->unlink(l->st, l->d->dir_fd, name), 0);
}

static void add_batch(struct life *l, size_t n)
{
	size_t first = l->d->messages_n;
	batch_begin(&l->batch);
	for (size_t i = 0; i < n; i++) {
		struct message *m = &l->d->messages[first + i];
		static const char content[] = "Subject: x\r\n\r\nsome content of a message\r\n";
		struct span piece = {content, sizeof content - 1};
		m->id = qid_make(&l->ids, 1764093600000000);
		(void)batch_add(&l->batch, &l->w, &m->id, span_of("\x01\0\0\0\0"), &piece, 1);
	}
	l->d->messages_n += n;
	for (size_t i = 0; i < n && l->d->early; i++)
		l->d->messages[first + i].acknowledged = true;
	ck_assert_int_eq(batch_commit(l->st, &l->w, &l->batch), 0);
	for (size_t i = 0; i < n; i++)
		l->d->messages[first + i].acknowledged = true;
}

/* The segment is full: what is in it is delivered or waits, then its space is used again. */
static void turn_segment(struct life *l)
{
	uint64_t old = l->w.segment.seq;
	segment_close(&l->w.segment);
	open_segment(l, l->last_seq);
	for (size_t i = l->first_of_segment; i < l->d->messages_n; i++) {
		if (l->d->messages[i].closed)
			continue;
		if (i % 3 == 0)
			store_message(l, &l->d->messages[i]);
		else
			close_message(l, &l->d->messages[i]);
	}
	for (size_t i = l->first_of_segment; i < l->d->messages_n; i += 6)
		if (!l->d->messages[i].closed && i % 3 == 0)
			deliver_waiting(l, &l->d->messages[i]);
	sync_fates(l);
	ck_assert_int_eq(segment_recycle(l->st, l->d->dir_fd, old, ++l->last_seq, 1), 0);
	l->first_of_segment = l->d->messages_n;
}

static void live(struct disk *d)
{
	struct life l = {.d = d, .st = &d->storage, .ids = {.suffix = "000000"}, .last_seq = 2};
	ck_assert_int_eq(segment_create(l.st, d->dir_fd, 1, 1, SEGMENT), 0);
	ck_assert_int_eq(segment_create(l.st, d->dir_fd, 2, 1, SEGMENT), 0);
	ck_assert_int_eq(fates_create(l.st, d->dir_fd, 1, 64 * 1024, &l.fates), 0);
	open_segment(&l, 1);
	for (size_t step = 0; d->messages_n + 4 <= MESSAGES; step++) {
		if (l.w.offset + 4 * BLOCK > l.w.segment.size)
			turn_segment(&l);
		add_batch(&l, step % 4 + 1);
		if (step % 2 == 0)
			close_message(&l, &d->messages[d->messages_n - 1]);
		if (step % 5 == 0)
			sync_fates(&l);
	}
	segment_close(&l.w.segment);
	(void)close(l.fates.fd);
	buffer_free(&l.batch.bytes);
}

static void run(struct disk *d)
{
	d->storage = (struct storage){.write = traced_write, .sync = traced_sync, .rename = traced_rename, .unlink = traced_unlink,
		.sync_dir = traced_sync_dir, .context = d};
	(void)snprintf(d->dir, sizeof d->dir, "/dev/shm/cut-XXXXXX");
	(void)snprintf(d->copy, sizeof d->copy, "/dev/shm/cut-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(d->dir));
	ck_assert_ptr_nonnull(mkdtemp(d->copy));
	d->dir_fd = open(d->dir, O_RDONLY | O_DIRECTORY);
	d->inodes = calloc(INODES, sizeof *d->inodes);
	d->entries = calloc(NAMES, sizeof *d->entries);
	live(d);
	DIR *dir = fdopendir(d->dir_fd);
	rewinddir(dir);
	for (const struct dirent *e; (e = readdir(dir)) != NULL;)
		(void)unlinkat(d->dir_fd, e->d_name, 0);
	(void)closedir(dir);
	(void)rmdir(d->dir);
	(void)rmdir(d->copy);
}

static struct disk *make_disk(void)
{
	struct disk *d = calloc(1, sizeof *d);
	ck_assert_ptr_nonnull(d);
	return d;
}

START_TEST(a_power_cut_loses_nothing_acknowledged_and_repeats_nothing_recorded)
{
	struct disk *d = make_disk();
	run(d);
	(void)printf("power cut: %u states of the disk, %u lost, %u repeated\n", d->cuts, d->lost, d->repeated);
	ck_assert_uint_ge(d->messages_n, MESSAGES - 4);
	ck_assert_uint_eq(d->lost, 0);
	ck_assert_uint_eq(d->repeated, 0);
}
END_TEST

START_TEST(control_a_build_without_the_sync_is_caught)
{
	struct disk *d = make_disk();
	d->no_sync = true;
	run(d);
	ck_assert_uint_gt(d->lost, 0);
}
END_TEST

START_TEST(control_an_answer_before_the_sync_is_caught)
{
	struct disk *d = make_disk();
	d->early = true;
	run(d);
	ck_assert_uint_gt(d->lost, 0);
}
END_TEST

Suite *suite_powercut(void)
{
	Suite *s = suite_create("powercut");
	TCase *t = tcase_create("powercut");
	tcase_set_timeout(t, 300);
	tcase_add_test(t, a_power_cut_loses_nothing_acknowledged_and_repeats_nothing_recorded);
	tcase_add_test(t, control_a_build_without_the_sync_is_caught);
	tcase_add_test(t, control_an_answer_before_the_sync_is_caught);
	suite_add_tcase(s, t);
	return s;
}
