#include "base/base.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/mman.h>
#include <unistd.h>

int write_all(int fd, const void *bytes, size_t n)
{
	const char *p = bytes;
	while (n > 0) {
		ssize_t done = write(fd, p, n);
		if (done < 0) {
			if (errno == EINTR)
				continue;
			return errno;
		}
		p += done;
		n -= (size_t)done;
	}
	return 0;
}

int pwritev_all(int fd, struct iovec *iov, int n, off_t at)
{
	while (n > 0) {
		ssize_t done = pwritev(fd, iov, n > 1024 ? 1024 : n, at);
		if (done < 0) {
			if (errno == EINTR)
				continue;
			return errno;
		}
		if (done == 0)
			return EIO;
		at += done;
		while (n > 0 && (size_t)done >= iov->iov_len) {
			done -= (ssize_t)iov->iov_len;
			iov++;
			n--;
		}
		if (n > 0) {
			iov->iov_base = (char *)iov->iov_base + done;
			iov->iov_len -= (size_t)done;
		}
	}
	return 0;
}

int pread_all(int fd, void *bytes, size_t n, off_t at)
{
	char *p = bytes;
	while (n > 0) {
		ssize_t done = pread(fd, p, n, at);
		if (done < 0) {
			if (errno == EINTR)
				continue;
			return errno;
		}
		if (done == 0)
			return ENODATA;
		p += done;
		at += done;
		n -= (size_t)done;
	}
	return 0;
}

static int read_rest(int fd, size_t limit, struct buffer *out)
{
	for (;;) {
		char block[16384];
		ssize_t n = read(fd, block, sizeof block);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno;
		if (n == 0)
			return 0;
		if (out->n + (size_t)n > limit)
			return EFBIG;
		buffer_put(out, block, (size_t)n);
		if (!buffer_ok(out))
			return ENOMEM;
	}
}

int read_given_file(int fd, size_t limit, struct buffer *out)
{
	off_t size = lseek(fd, 0, SEEK_END); /* fstat is a call that the confined do not have */
	if (size < 0 || (uint64_t)size > limit)
		return size < 0 ? errno : EFBIG;
	int error = buffer_reserve(out, (size_t)size + 1);
	if (error == 0)
		error = pread_all(fd, out->at, (size_t)size, 0);
	out->n = error == 0 ? (size_t)size : 0;
	return error;
}

int read_file_at(int dir_fd, const char *name, size_t limit, struct buffer *out)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	int error = read_rest(fd, limit, out);
	(void)close(fd);
	return error;
}

int read_plain_file_at(int dir_fd, const char *name, size_t limit, struct buffer *out, struct stat *st)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return errno;
	int error = fstat(fd, st) != 0 ? errno : !S_ISREG(st->st_mode) || st->st_nlink != 1 ? ELOOP : (uint64_t)st->st_size > limit ? EFBIG : 0;
	if (error == 0)
		error = buffer_reserve(out, (size_t)st->st_size + 1);
	if (error == 0)
		error = read_rest(fd, limit, out);
	(void)close(fd);
	return error;
}

int sealed_file(const char *name, struct span bytes, int *out)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return errno;
	int error = write_all(fd, bytes.at, bytes.n);
	if (error == 0 && lseek(fd, 0, SEEK_SET) != 0)
		error = errno;
	if (error == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) != 0)
		error = errno;
	if (error != 0)
		(void)close(fd);
	else
		*out = fd;
	return error;
}

/* The name aside is made anew: whatever stands there, left behind or planted, is not written into. */
static int write_synced(int dir_fd, const char *name, struct span bytes, mode_t mode, gid_t gid)
{
	if (unlinkat(dir_fd, name, 0) != 0 && errno != ENOENT)
		return errno;
	int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
	if (fd < 0)
		return errno;
	int error = write_all(fd, bytes.at, bytes.n);
	if (error == 0 && gid != (gid_t)-1 && fchown(fd, (uid_t)-1, gid) != 0)
		error = errno;
	if (error == 0 && fchmod(fd, mode) != 0)
		error = errno;
	if (error == 0 && fsync(fd) != 0)
		error = errno;
	if (close(fd) != 0 && error == 0)
		error = errno;
	return error;
}

static int put_aside_and_name(int dir_fd, const char *name, struct span bytes, mode_t mode, gid_t gid)
{
	char aside[300];
	const char *slash = strrchr(name, '/'), *last = slash == NULL ? name : slash + 1;
	/* hidden: nobody who watches the directory takes it for a file of its own */
	int n = snprintf(aside, sizeof aside, "%.*s.%s.new", (int)(last - name), name, last);
	if (n < 0 || (size_t)n >= sizeof aside)
		return ENAMETOOLONG;
	int error = write_synced(dir_fd, aside, bytes, mode, gid);
	if (error == 0 && renameat(dir_fd, aside, dir_fd, name) != 0)
		error = errno;
	if (error != 0)
		(void)unlinkat(dir_fd, aside, 0);
	return error;
}

int hand_in_file_at(int dir_fd, const char *name, struct span bytes, mode_t mode)
{
	return put_aside_and_name(dir_fd, name, bytes, mode, (gid_t)-1);
}

int replace_file_at(int dir_fd, const char *name, struct span bytes, mode_t mode)
{
	return replace_group_file_at(dir_fd, name, bytes, mode, (gid_t)-1);
}

int replace_group_file_at(int dir_fd, const char *name, struct span bytes, mode_t mode, gid_t gid)
{
	char parent[300];
	const char *slash = strrchr(name, '/');
	int error = put_aside_and_name(dir_fd, name, bytes, mode, gid);
	if (error != 0)
		return error;
	(void)snprintf(parent, sizeof parent, "%.*s.", slash == NULL ? 0 : (int)(slash + 1 - name), name);
	int dir = openat(dir_fd, parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return errno;
	if (fsync(dir) != 0)
		error = errno;
	(void)close(dir);
	return error;
}

int mkdir_chain(const char *path, mode_t mode)
{
	char part[4096];
	size_t n = strlen(path);
	if (n >= sizeof part)
		return ENAMETOOLONG;
	for (size_t i = 1; i <= n; i++) {
		if (path[i] != '/' && path[i] != '\0')
			continue;
		memcpy(part, path, i);
		part[i] = '\0';
		if (mkdir(part, mode) != 0 && errno != EEXIST)
			return errno;
	}
	return 0;
}

int fill_random(void *at, size_t n)
{
	return getrandom(at, n, 0) == (ssize_t)n ? 0 : EIO;
}
