#include "mover.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What a killed mover left half written is of no use: its source is still there. */
static int empty_dir(int dir_fd, const char *name)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (dir == NULL)
		return errno;
	for (const struct dirent *d; (d = readdir(dir)) != NULL;)
		if (d->d_name[0] != '.')
			(void)unlinkat(fd, d->d_name, 0);
	(void)closedir(dir);
	return 0;
}

static int make_fan(int dir_fd)
{
	bool made = false;
	for (unsigned i = 0; i <= 256; i++) {
		char name[8];
		(void)snprintf(name, sizeof name, i == 256 ? "tmp" : "%02x", i);
		if (mkdirat(dir_fd, name, 0700) == 0)
			made = true;
		else if (errno != EEXIST)
			return errno;
	}
	if (made && fsync(dir_fd) != 0)
		return errno;
	return empty_dir(dir_fd, "tmp");
}

static int open_below(const struct mover *m, const char *name, int *out)
{
	*out = openat(m->queue_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return *out < 0 ? errno : 0;
}

int dirs_prepare(struct mover *m)
{
	int error = open_below(m, "journal", &m->journal_fd);
	if (error == 0)
		error = open_below(m, "wait", &m->wait_fd);
	if (error == 0)
		error = open_below(m, "body", &m->body_fd);
	if (error == 0)
		error = make_fan(m->wait_fd);
	if (error == 0)
		error = make_fan(m->body_fd);
	return error;
}
