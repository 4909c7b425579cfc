/* Queue/lease and Queue/tokens. */
#include "process.h"
#include "queuefile/queuefile.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* Opened anew each time: file systems of several nodes look for others' changes then. */
int file_read(const struct keeper *k, struct lease_record *out)
{
	char text[LEASE_BYTES];
	int fd = openat(k->queue_fd, "lease", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return errno;
	int error = pread_all(fd, text, sizeof text, 0);
	(void)close(fd);
	return error == ENODATA ? EBADMSG : error != 0 ? error : lease_parse((struct span){text, sizeof text}, out);
}

int file_lock(struct keeper *k, bool *alone)
{
	if (k->file_fd < 0)
		k->file_fd = openat(k->queue_fd, "lease", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (k->file_fd < 0)
		return errno;
	*alone = flock(k->file_fd, LOCK_EX | LOCK_NB) == 0;
	return 0;
}

int file_write(struct keeper *k)
{
	char text[LEASE_BYTES];
	struct iovec iov = {.iov_base = text, .iov_len = sizeof text};
	lease_put(text, &k->own);
	int error = pwritev_all(k->file_fd, &iov, 1, 0);
	return error != 0 ? error : fdatasync(k->file_fd) == 0 ? 0 : errno;
}

int file_last_token(const struct keeper *k, uint32_t *token)
{
	struct buffer text;
	*token = 0;
	buffer_init(&text, 64 * 1024 * 1024);
	int error = read_file_at(k->queue_fd, "tokens", 64 * 1024 * 1024, &text);
	for (struct span rest = buffer_span(&text); error == 0 && rest.n > 0;) {
		struct span line = span_until(&rest, '\n');
		uint64_t one;
		if (parse_u64(span_word(&line, " "), UINT32_MAX, &one) == 0 && one > *token)
			*token = (uint32_t)one;
	}
	buffer_free(&text);
	return error == ENOENT ? 0 : error;
}

/* The last segments with batches: SEQ:EPOCH:END each.  What is found behind END later was written by who had been cut off. */
static int put_segments(const struct keeper *k, struct buffer *b)
{
	int fd = openat(k->queue_fd, "journal", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	uint64_t seq, last[2] = {0, 0}, end, ends_seq, ends_at;
	if (dir == NULL)
		return errno;
	for (const struct dirent *d; (d = readdir(dir)) != NULL;) {
		if (!segment_parse_name(d->d_name, &seq) || seq <= last[0] || segment_scan_end(fd, seq, &end, &ends_seq, &ends_at) != 0 || end == SEGMENT_BLOCK)
			continue;
		last[0] = seq > last[1] ? last[1] : seq;
		last[1] = seq > last[1] ? seq : last[1];
	}
	for (size_t i = 0; i < COUNT_OF(last); i++) {
		struct segment s;
		if (last[i] == 0 || segment_scan_end(fd, last[i], &end, &ends_seq, &ends_at) != 0 || segment_open(fd, last[i], false, &s) != 0)
			continue;
		buffer_printf(b, " %llx:%u:%llu", (unsigned long long)last[i], s.epoch, (unsigned long long)end);
		segment_close(&s);
	}
	(void)closedir(dir);
	return 0;
}

int file_note(const struct keeper *k, int64_t wall_s)
{
	struct buffer b;
	buffer_init(&b, 4096);
	buffer_printf(&b, "%u %s ", k->own.token, k->own.node);
	format_rfc3339(&b, wall_s);
	buffer_printf(&b, " %s", k->from);
	int error = put_segments(k, &b), fd = -1;
	buffer_putc(&b, '\n');
	if (error == 0) {
		fd = openat(k->queue_fd, "tokens", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
		error = fd < 0 ? errno : buffer_ok(&b) ? write_all(fd, b.at, b.n) : ENOMEM;
	}
	if (error == 0 && fdatasync(fd) != 0)
		error = errno;
	if (fd >= 0)
		(void)close(fd);
	buffer_free(&b);
	return error;
}
