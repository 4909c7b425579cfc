/* mbox: one file, locked by fcntl and by a .lock file beside it (Debian policy 11.6). */
#include "child.h"
#include "proc/proc.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { TRIES = 300, TRY_NS = 100000000, STALE_S = 300 };

static void pause_a_little(void)
{
	const struct timespec t = {.tv_nsec = TRY_NS};
	(void)nanosleep(&t, NULL);
}

/* A lock file that nobody has touched for five minutes is left behind. */
static bool is_stale(int dir, const char *name)
{
	struct stat st;
	return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && time(NULL) - st.st_mtime > STALE_S;
}

static bool take_dot_lock(int dir, const char *name, int *error)
{
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
	*error = fd < 0 ? errno : 0;
	if (fd >= 0)
		(void)close(fd);
	else if (errno == EEXIST && is_stale(dir, name))
		(void)unlinkat(dir, name, 0);
	return fd >= 0;
}

/* fcntl first, then the file; what holds one waits for the other only for a moment, so that nobody waits for ever. */
static int lock(int fd, int dir, const char *name)
{
	int error = EAGAIN;
	for (int i = 0; i < TRIES; i++) {
		struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
		if (fcntl(fd, F_SETLK, &l) == 0) {
			if (take_dot_lock(dir, name, &error))
				return 0;
			l.l_type = F_UNLCK;
			(void)fcntl(fd, F_SETLK, &l);
			if (error != EEXIST)
				return error;
		}
		pause_a_little();
	}
	return error == EEXIST ? EAGAIN : error;
}

static int open_mailbox(const struct child_task *t, int dir, const char *name)
{
	struct stat st;
	int fd = openat(dir, name, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0660);
	if (fd < 0)
		child_fail(t, t->path, errno);
	if (fstat(fd, &st) != 0)
		child_fail(t, t->path, errno);
	if (!S_ISREG(st.st_mode) || st.st_nlink != 1 || st.st_uid != getuid())
		child_end(451, "4.2.0", "%s: not a file with one name that is the recipient's own", t->path);
	return fd;
}

static void confine(const struct child_task *t, int dir)
{
	unsigned abi;
	struct path_rule rule = {dir, PATH_READ | PATH_WRITE};
	int error = confine_paths(&rule, 1, NULL, false, &abi);
#ifndef POSTHORN_SANITIZED
	if (error == 0)
		error = confine_calls(CALLS_FILES | CALLS_WRITE | CALLS_RENAME | CALLS_DB, false);
#endif
	if (error != 0)
		child_fail(t, "the delivery could not be confined", error);
}

/* Whole or not at all: after an error the file is as long as before. */
static int append(const struct child_task *t, int fd)
{
	struct stat st;
	if (fstat(fd, &st) != 0)
		return errno;
	int error = content_copy(t, fd, true);
	if (error == 0 && fsync(fd) != 0)
		error = errno;
	if (error != 0 && ftruncate(fd, st.st_size) != 0)
		return errno;
	return error;
}

_Noreturn void mbox_deliver(const struct child_task *t)
{
	char lock_name[300];
	char *slash = strrchr(t->path, '/');
	*slash = '\0';
	int dir = open(t->path[0] == '\0' ? "/" : t->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		child_fail(t, t->path, errno);
	*slash = '/';
	const char *name = slash + 1;
	if (strlen(name) > 250)
		child_fail(t, t->path, ENAMETOOLONG);
	(void)snprintf(lock_name, sizeof lock_name, "%s.lock", name);
	confine(t, dir);
	int fd = open_mailbox(t, dir, name);
	int error = lock(fd, dir, lock_name);
	if (error != 0)
		child_fail(t, "the mailbox's lock", error);
	error = append(t, fd);
	(void)unlinkat(dir, lock_name, 0);
	if (error != 0)
		child_fail(t, t->path, error);
	child_end(250, "2.0.0", "delivered to mailbox%s%.*s", t->note.n > 0 ? "; " : "", SPAN_ARG(t->note));
}
