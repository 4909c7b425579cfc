#include "queuefile/queuefile.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static int real_write(struct storage *s, int fd, const char *name, struct span bytes, off_t at)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes.at, .iov_len = bytes.n};
	(void)s;
	(void)name;
	return pwritev_all(fd, &iov, 1, at);
}

static int real_sync(struct storage *s, int fd, const char *name)
{
	(void)s;
	(void)name;
	return fdatasync(fd) == 0 ? 0 : errno;
}

static int real_rename(struct storage *s, int dir_fd, const char *from, const char *to)
{
	(void)s;
	return renameat(dir_fd, from, dir_fd, to) == 0 ? 0 : errno;
}

static int real_unlink(struct storage *s, int dir_fd, const char *name)
{
	(void)s;
	return unlinkat(dir_fd, name, 0) == 0 ? 0 : errno;
}

static int real_sync_dir(struct storage *s, int dir_fd, const char *name)
{
	(void)s;
	int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	int error = fsync(fd) == 0 ? 0 : errno;
	(void)close(fd);
	return error;
}

struct storage storage_real = {
	.write = real_write, .sync = real_sync, .rename = real_rename, .unlink = real_unlink, .sync_dir = real_sync_dir};
