#include "drop.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <string.h>
#include <unistd.h>

static int copy_body(int from, int to)
{
	char block[65536];
	off_t at = 0;
	for (;;) {
		ssize_t n = pread(from, block, sizeof block, at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? errno : 0;
		int error = write_all(to, block, (size_t)n);
		if (error != 0)
			return error;
		at += n;
	}
}

static int write_side_file(int dir_fd, const struct drop_job *j, const char *tail, struct span bytes)
{
	char name[40];
	(void)snprintf(name, sizeof name, "%s.%s", j->id.text, tail);
	return replace_file_at(dir_fd, name, bytes, 0640);
}

/* The message under a hidden name; the name without the dot comes when all of it is on disk. */
void drop_write_job(struct drop *d, struct drop_job *j)
{
	char name[40];
	int dir_fd = j->dir_fd;
	off_t body = j->body_fd >= 0 ? lseek(j->body_fd, 0, SEEK_END) : 0;
	if (j->badmail && !badmail_takes(d, j->head.n + j->reason.n + j->content.n + (body > 0 ? (uint64_t)body : 0))) {
		j->not_kept = true;
		badmail_lose(d, j);
		return;
	}
	(void)snprintf(name, sizeof name, ".%s.new", j->id.text);
	j->fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);
	j->error = j->fd < 0 ? errno : 0;
	if (j->error == 0 && !(buffer_ok(&j->head) && buffer_ok(&j->content)))
		j->error = ENOMEM;
	if (j->error == 0 && !j->badmail)
		j->error = write_all(j->fd, j->head.at, j->head.n);
	if (j->error == 0)
		j->error = write_all(j->fd, j->content.at, j->content.n);
	if (j->error == 0 && j->body_fd >= 0)
		j->error = copy_body(j->body_fd, j->fd);
	if (j->error == 0)
		(void)sync_file_range(j->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

/* One message of several deliveries (several local recipients at different times) gets several files. */
static void final_name(const struct drop_job *j, unsigned n, char *out, size_t size)
{
	const char *tail = j->badmail ? "BAD" : "eml";
	if (n == 0)
		(void)snprintf(out, size, "%s.%s", j->id.text, tail);
	else
		(void)snprintf(out, size, "%s-%u.%s", j->id.text, n, tail);
}

void drop_name_job(struct drop_job *j)
{
	char from[40], to[48];
	int dir_fd = j->dir_fd;
	if (j->not_kept)
		return;
	if (j->error == 0 && (fchmod(j->fd, 0640) != 0 || fdatasync(j->fd) != 0))
		j->error = errno;
	(void)snprintf(from, sizeof from, ".%s.new", j->id.text);
	if (j->badmail && j->error == 0)
		j->error = write_side_file(dir_fd, j, "BDR", buffer_span(&j->reason));
	if (j->badmail && j->error == 0)
		j->error = write_side_file(dir_fd, j, "BDP", buffer_span(&j->head));
	if (j->error == 0 && j->badmail) {
		final_name(j, 0, to, sizeof to);
		j->error = renameat(dir_fd, from, dir_fd, to) == 0 ? 0 : errno;
	}
	for (unsigned n = 0; j->error == 0 && !j->badmail; n++) {
		final_name(j, n, to, sizeof to);
		if (linkat(dir_fd, from, dir_fd, to, 0) == 0)
			break;
		if (errno != EEXIST || n > 1000)
			j->error = errno;
	}
	if (j->error != 0 || !j->badmail)
		(void)unlinkat(dir_fd, from, 0);
	(void)close(j->fd);
	j->fd = -1;
}
