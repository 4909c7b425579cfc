/* ~/.forward: read as its owner, followed when nobody else can have written it. */
#include "child.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FORWARD_MOST = 64 * 1024 };

static bool only_own_writes(const struct stat *st)
{
	return (st->st_uid == getuid() || st->st_uid == 0) && (st->st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

/* -1 and 0: there is none; -1 and a reason: it is not followed. */
static int open_forward(const struct child_task *t, int home, const char *name, char *reason, size_t size)
{
	struct stat st;
	int fd = openat(home, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
		return -1;
	if (fd < 0 && errno != ELOOP)
		child_fail(t, name, errno);
	const char *fault = fd < 0 ? "is a link" : fstat(fd, &st) != 0 ? "cannot be looked at" : !S_ISREG(st.st_mode) || st.st_nlink != 1 ? "is not a plain file" :
		!only_own_writes(&st) ? "may be written by others" : st.st_size > FORWARD_MOST ? "is too large" : NULL;
	if (fault == NULL)
		return fd;
	(void)snprintf(reason, size, "%s %s: it was not followed", name, fault);
	if (fd >= 0)
		(void)close(fd);
	return -1;
}

static int open_home(const struct child_task *t, char *reason, size_t size)
{
	struct stat st;
	const char *path = getenv("HOME");
	errno = ENOENT;
	int home = path == NULL || path[0] != '/' ? -1 : open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (home < 0 && errno != ENOENT && errno != ENOTDIR && errno != EACCES) /* it may be there in a while, with a .forward */
		child_fail(t, path, errno);
	if (home < 0 || fstat(home, &st) != 0 || only_own_writes(&st))
		return home;
	(void)snprintf(reason, size, "the home may be written by others: .forward was not followed");
	(void)close(home);
	return -1;
}

/* .forward+extension first, then .forward. */
static int find(const struct child_task *t, int home, char *name, size_t size, char *reason, size_t reason_n)
{
	if (t->extension.n > 0 && memchr(t->extension.at, '/', t->extension.n) == NULL && t->delimiter.n > 0) {
		(void)snprintf(name, size, ".forward%.*s%.*s", 1, t->delimiter.at, SPAN_ARG(t->extension));
		int fd = open_forward(t, home, name, reason, reason_n);
		if (fd >= 0 || reason[0] != '\0')
			return fd;
	}
	(void)snprintf(name, size, ".forward");
	return open_forward(t, home, name, reason, reason_n);
}

void forward_follow(struct child_task *t)
{
	char name[300], reason[400] = "";
	struct stat st;
	int home = open_home(t, reason, sizeof reason);
	int fd = home < 0 ? -1 : find(t, home, name, sizeof name, reason, sizeof reason);
	if (home >= 0)
		(void)close(home);
	t->note = span_of(span_dup(span_of(reason))); /* said beside the delivery */
	if (fd < 0)
		return;
	char *bytes = fstat(fd, &st) == 0 ? malloc((size_t)st.st_size + 1) : NULL;
	int error = bytes == NULL ? ENOMEM : pread_all(fd, bytes, (size_t)st.st_size, 0);
	(void)close(fd);
	if (error != 0)
		child_fail(t, name, error);
	struct items it = {.task = t, .own = span_of(getenv("USER")), .includes = true, .runs = true};
	buffer_init(&it.addresses, 1024 * 1024);
	items_do(&it, (struct span){bytes, (size_t)st.st_size}, name);
	if (it.items == 0)
		return; /* an empty one says nothing */
	items_end(&it, t);
}
