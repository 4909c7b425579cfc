#include "queuefile/queuefile.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char head_magic[8] = {'P', 'H', 'S', 'E', 'G', '0', '0', '1'}; /* no text: no NUL behind it */
enum { HEAD_BYTES = 8 + 8 + 4 + 4 + SEGMENT_RANDOM + 8 + 4 };

void segment_name(uint64_t seq, char out[32])
{
	(void)snprintf(out, 32, "%016llx.seg", (unsigned long long)seq);
}

static bool parse_hex_name(const char *name, const char *tail, uint64_t *seq)
{
	uint64_t v = 0;
	for (size_t i = 0; i < 16; i++) {
		char c = name[i];
		if (c >= '0' && c <= '9')
			v = v << 4 | (uint64_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			v = v << 4 | (uint64_t)(c - 'a' + 10);
		else
			return false;
	}
	if (strcmp(name + 16, tail) != 0)
		return false;
	*seq = v;
	return true;
}

bool segment_parse_name(const char *name, uint64_t *seq)
{
	return parse_hex_name(name, ".seg", seq);
}

bool fates_parse_name(const char *name, uint64_t *seq)
{
	return parse_hex_name(name, ".log", seq);
}

/* A fresh head: whatever the segment held before is void from then on. */
static int write_head(struct storage *st, int fd, const char *name, uint64_t seq, uint32_t epoch, uint64_t size)
{
	char block[SEGMENT_BLOCK] = {0}, random[SEGMENT_RANDOM];
	if (fill_random(random, sizeof random) != 0)
		return EIO;
	memcpy(block, head_magic, 8);
	store_u64(block + 8, seq);
	store_u32(block + 16, epoch);
	memcpy(block + 24, random, SEGMENT_RANDOM);
	store_u64(block + 24 + SEGMENT_RANDOM, size);
	store_u32(block + HEAD_BYTES - 4, crc32c(0, block, HEAD_BYTES - 4));
	int error = st->write(st, fd, name, (struct span){block, sizeof block}, 0);
	return error == 0 ? st->sync(st, fd, name) : error;
}

static int zero_fill(struct storage *st, int fd, const char *name, uint64_t size)
{
	enum { PIECE = 1 << 20 };
	char *zeros = calloc(1, PIECE);
	int error = zeros == NULL ? ENOMEM : 0;
	for (uint64_t at = 0; at < size && error == 0; at += PIECE)
		error = st->write(st, fd, name, (struct span){zeros, size - at < PIECE ? size - at : PIECE}, (off_t)at);
	free(zeros);
	return error;
}

int segment_create(struct storage *st, int dir_fd, uint64_t seq, uint32_t epoch, uint64_t size)
{
	char name[32], aside[40];
	segment_name(seq, name);
	(void)snprintf(aside, sizeof aside, "%s.new", name);
	int may = storage_check(st);
	if (may != 0)
		return may;
	int fd = openat(dir_fd, aside, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return errno;
	int error = zero_fill(st, fd, aside, size);
	if (error == 0)
		error = write_head(st, fd, aside, seq, epoch, size);
	(void)close(fd);
	if (error == 0)
		error = st->rename(st, dir_fd, aside, name);
	if (error == 0)
		error = st->sync_dir(st, dir_fd, ".");
	if (error != 0)
		(void)unlinkat(dir_fd, aside, 0);
	return error;
}

/* The head is written under the old name: were it renamed first, a cut between the two would
 * leave an old generation's records under a new name, and they would be read again. */
int segment_recycle(struct storage *st, int dir_fd, uint64_t old_seq, uint64_t seq, uint32_t epoch)
{
	char old[32], name[32];
	struct stat s;
	segment_name(old_seq, old);
	segment_name(seq, name);
	int fd = openat(dir_fd, old, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return errno;
	int error = fstat(fd, &s) == 0 ? 0 : errno;
	if (error == 0)
		error = write_head(st, fd, old, seq, epoch, (uint64_t)s.st_size);
	(void)close(fd);
	if (error == 0)
		error = st->rename(st, dir_fd, old, name);
	return error == 0 ? st->sync_dir(st, dir_fd, ".") : error;
}

int segment_open(int dir_fd, uint64_t seq, bool writable, struct segment *out)
{
	char head[HEAD_BYTES];
	struct segment s = {.seq = seq};
	segment_name(seq, s.name);
	s.fd = openat(dir_fd, s.name, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW);
	if (s.fd < 0)
		return errno;
	int error = pread_all(s.fd, head, sizeof head, 0);
	if (error == 0 && (memcmp(head, head_magic, 8) != 0 || load_u64(head + 8) != seq ||
			load_u32(head + HEAD_BYTES - 4) != crc32c(0, head, HEAD_BYTES - 4)))
		error = EBADMSG;
	if (error == ENODATA)
		error = EBADMSG;
	if (error != 0) {
		(void)close(s.fd);
		return error;
	}
	s.epoch = load_u32(head + 16);
	memcpy(s.random, head + 24, SEGMENT_RANDOM);
	s.size = load_u64(head + 24 + SEGMENT_RANDOM);
	*out = s;
	return 0;
}

void segment_close(struct segment *s)
{
	if (s->fd >= 0)
		(void)close(s->fd);
	s->fd = -1;
}

void corrupt_file_name(const struct qid *id, const char *tail, char *out, size_t size)
{
	(void)snprintf(out, size, "corrupt/%s%s", id->text, tail);
}

void corrupt_record_name(uint64_t seq, uint64_t offset, char *out, size_t size)
{
	(void)snprintf(out, size, "corrupt/%016llx-%08llx.rec", (unsigned long long)seq, (unsigned long long)offset);
}
