/* Which files are complete, and taking them. */
#include "pickup.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

/* Atomically out of the way of whoever wrote it: from now on its name is its token. */
static void take(struct pickup *p, struct place *pl, const char *name)
{
	struct qid id = qid_make(&p->ids, clock_wall_us());
	if (!lease_holds(proc_own_lease(&p->proc)))
		return; /* whoever has the server now takes it */
	if (renameat(pl->fd, name, pl->taken_fd, id.text) != 0)
		return;
	submit_file(p, pl, &id, name);
}

static bool is_regular(const struct place *pl, const char *name, struct stat *st)
{
	return name[0] != '.' && fstatat(pl->fd, name, st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st->st_mode);
}

/* settle: only what has not changed for pickup_settle; nobody told us that it is complete. */
void scan_place(struct pickup *p, struct place *pl, bool settle)
{
	int fd = openat(pl->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	int64_t now = clock_wall_us() / 1000000;
	unsigned n = 0;
	if (dir == NULL) {
		LOG(&p->proc.log, scan_failed, NO_ID, F("reason", span_of(strerror(errno))));
		return;
	}
	for (const struct dirent *d; p->submissions_n < SUBMIT_MOST && n < FILES_A_TURN && (d = readdir(dir)) != NULL;) {
		struct stat st;
		if (!is_regular(pl, d->d_name, &st) || (settle && now - st.st_mtime < p->server->p.pickup_settle))
			continue;
		take(p, pl, d->d_name);
		n++;
	}
	(void)closedir(dir);
	if (n == FILES_A_TURN)
		event_active(p->rescan, 0, 0);
}

static void go_on_with_leftovers(struct pickup *p, struct place *pl)
{
	const struct dirent *d;
	while (pl->left != NULL && p->submissions_n < SUBMIT_MOST) {
		struct qid id;
		d = readdir(pl->left);
		if (d == NULL) {
			(void)closedir(pl->left);
			pl->left = NULL;
		} else if (qid_parse(span_of(d->d_name), &id) == 0) {
			submit_file(p, pl, &id, "");
		}
	}
}

/* What was taken before this process began, or was put off: under its token it is submitted (again). */
void scan_leftovers(struct pickup *p, struct place *pl)
{
	int fd = pl->left != NULL ? -1 : openat(pl->taken_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0)
		pl->left = fdopendir(fd);
	go_on_with_leftovers(p, pl);
}

void scan_more(struct pickup *p)
{
	for (size_t i = 0; i < p->places_n; i++)
		go_on_with_leftovers(p, &p->places[i]);
	while (p->later != NULL && p->submissions_n < SUBMIT_MOST) {
		struct later *l = p->later;
		struct stat st;
		p->later = l->next;
		p->later_n--;
		if (is_regular(l->place, l->name, &st))
			take(p, l->place, l->name);
		free(l);
	}
}

/* Beyond the limit it waits for a rescan. */
static void take_later(struct pickup *p, struct place *pl, const char *name)
{
	size_t n = strlen(name) + 1;
	struct later *l = p->later_n >= LATER_MOST ? NULL : malloc(sizeof *l + n);
	if (l == NULL)
		return;
	l->next = NULL;
	l->place = pl;
	memcpy(l->name, name, n);
	if (p->later == NULL)
		p->later_end = &p->later;
	*p->later_end = l;
	p->later_end = &l->next;
	p->later_n++;
}

int scan_begin(struct pickup *p)
{
	p->inotify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (p->inotify_fd < 0)
		return errno;
	for (size_t i = 0; i < p->places_n; i++) {
		struct place *pl = &p->places[i];
		char path[64];
		(void)snprintf(path, sizeof path, "/proc/self/fd/%d", pl->fd);
		pl->watch = inotify_add_watch(p->inotify_fd, path, IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE);
		if (pl->watch < 0)
			return errno;
	}
	return 0;
}

/* As the process's own user: the directory is nobody else's. */
int scan_make_taken(struct pickup *p)
{
	for (size_t i = 0; i < p->places_n; i++) {
		struct place *pl = &p->places[i];
		if (mkdirat(pl->fd, ".taken", 0700) != 0 && errno != EEXIST)
			return errno;
		pl->taken_fd = openat(pl->fd, ".taken", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		if (pl->taken_fd < 0)
			return errno;
	}
	return 0;
}

/* Links, folders and the like are no mail: they stay where they are, and are told of when they come. */
static void tell_of_other(struct pickup *p, const struct place *pl, const char *name)
{
	struct stat st;
	if (name[0] != '.' && fstatat(pl->fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISREG(st.st_mode))
		LOG(&p->proc.log, not_a_file, NO_ID, F("file", span_of(name)), F("reason", S_ISLNK(st.st_mode) ? SPAN_LIT("a link") : S_ISDIR(st.st_mode) ? SPAN_LIT("a directory")
			: SPAN_LIT("not a regular file")));
}

/* Closed by its writer, or renamed in: complete. */
static void notified(struct pickup *p, const struct inotify_event *e)
{
	struct stat st;
	for (size_t i = 0; i < p->places_n; i++) {
		struct place *pl = &p->places[i];
		if (pl->watch != e->wd || e->len == 0)
			continue;
		if ((e->mask & (IN_CLOSE_WRITE | IN_MOVED_TO)) != 0 && is_regular(pl, e->name, &st)) {
			if (p->submissions_n < SUBMIT_MOST && p->later == NULL)
				take(p, pl, e->name);
			else
				take_later(p, pl, e->name);
		} else if ((e->mask & (IN_CREATE | IN_MOVED_TO)) != 0)
			tell_of_other(p, pl, e->name);
	}
}

void scan_notified(struct pickup *p)
{
	_Alignas(struct inotify_event) char bytes[8192];
	ssize_t n;
	while ((n = read(p->inotify_fd, bytes, sizeof bytes)) > 0) {
		for (ssize_t at = 0; at < n;) {
			const struct inotify_event *e = (const struct inotify_event *)(const void *)(bytes + at);
			notified(p, e);
			at += (ssize_t)(sizeof *e + e->len);
		}
	}
}
