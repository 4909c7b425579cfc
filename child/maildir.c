/* Maildir: a file for each message, whole and on disk before it has its name. */
#include "child.h"
#include "proc/proc.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_dir(int at, const char *name)
{
	if (mkdirat(at, name, 0700) != 0 && errno != EEXIST)
		return -1;
	return openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
}

static void confine(const struct child_task *t, int dir_fd)
{
	unsigned abi;
	struct path_rule rule = {dir_fd, PATH_READ | PATH_WRITE};
	int error = confine_paths(&rule, 1, NULL, false, &abi);
#ifndef POSTHORN_SANITIZED
	if (error == 0)
		error = confine_calls(CALLS_FILES | CALLS_WRITE | CALLS_RENAME, false);
#endif
	if (error != 0)
		child_fail(t, "the delivery could not be confined", error);
}

/* The name is the message's for ever: a delivery that is done again after a kill finds it and is done. */
_Noreturn void maildir_deliver(const struct child_task *t)
{
	char name[200], place[220];
	int error = mkdir_chain(t->path, 0700);
	if (error != 0)
		child_fail(t, t->path, error);
	int dir = open(t->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		child_fail(t, t->path, errno);
	int tmp = open_dir(dir, "tmp"), fresh = open_dir(dir, "new"), cur = open_dir(dir, "cur");
	if (tmp < 0 || fresh < 0 || cur < 0)
		child_fail(t, "the maildir's directories", errno);
	confine(t, dir);
	(void)snprintf(name, sizeof name, "%.*s.Q%.*sR%08x.posthorn", SPAN_ARG(t->arrived), SPAN_ARG(t->id), crc32c(0, t->recipient.at, t->recipient.n));
	(void)snprintf(place, sizeof place, "%s.%d", name, (int)getpid());
	int fd = openat(tmp, place, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		child_fail(t, "a file in tmp", errno);
	error = content_copy(t, fd, false);
	if (error == 0 && fsync(fd) != 0)
		error = errno;
	if (error == 0 && linkat(tmp, place, fresh, name, 0) != 0 && errno != EEXIST)
		error = errno;
	(void)unlinkat(tmp, place, 0);
	if (error == 0 && fsync(fresh) != 0)
		error = errno;
	if (error != 0)
		child_fail(t, "the message's file", error);
	child_end(250, "2.0.0", "delivered to maildir%s%.*s", t->note.n > 0 ? "; " : "", SPAN_ARG(t->note));
}
