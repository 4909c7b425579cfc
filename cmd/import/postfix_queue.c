/* Postfix's queue files, into Posthorn's maildrop. */
#include "cmd/common/run.h"
#include "cmd/import/postfix.h"
#include "cmd/import/postfix_record.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

enum { MESSAGE_MOST = 512 * 1024 * 1024, DEPTH_MOST = 6 };

struct queue_job {
	struct postfix *pf;
	const char *queue;
	int queue_fd, drop_fd, done_fd;
	const char *postcat; /* NULL: Postfix is not there any more, its files are read here */
	unsigned taken, left;
};

/* ---- postcat ---- */

static bool ask(const struct queue_job *j, const char *what, const char *path, struct buffer *out)
{
	char *const argv[] = {"postcat", "-c", (char *)(uintptr_t)j->pf->dir, (char *)(uintptr_t)what, (char *)(uintptr_t)path, NULL};
	return run_output(j->postcat, argv, false, out) == 0 && buffer_ok(out);
}

static void ask_postcat(const struct queue_job *j, struct pf_envelope *e, const char *path)
{
	struct buffer text;
	struct span sender = SPAN_LIT("sender: "), recipient = SPAN_LIT("recipient: ");
	buffer_init(&text, MESSAGE_MOST);
	if (!ask(j, "-e", path, &text) || !ask(j, "-hb", path, &e->content))
		e->fault = "postcat cannot read it";
	struct span rest = buffer_span(&text);
	while (rest.n > 0) {
		struct span line = span_until(&rest, '\n');
		if (line.n >= sender.n && memcmp(line.at, sender.at, sender.n) == 0)
			pf_take_sender(e, span_from(line, sender.n));
		else if (line.n >= recipient.n && memcmp(line.at, recipient.at, recipient.n) == 0)
			pf_take_recipient(e, span_from(line, recipient.n));
	}
	buffer_free(&text);
}

/* ---- a file ---- */

/* Handed in, durably, before its file leaves Postfix's queue: a crash between the two hands it in again. */
static int hand_in(struct queue_job *j, struct pf_envelope *e, int dir, const char *name)
{
	char fresh[300];
	int error = 0;
	(void)snprintf(fresh, sizeof fresh, "pf-%s", name);
	buffer_put_span(&e->file, buffer_span(&e->content));
	if (!buffer_ok(&e->file))
		return ENOMEM;
	if (e->recipients > 0)
		error = hand_in_file_at(j->drop_fd, fresh, buffer_span(&e->file), 0640);
	if (error == 0 && renameat(dir, name, j->done_fd, name) != 0)
		error = errno;
	return error;
}

static void take_file(struct queue_job *j, int dir, const char *place, const char *name)
{
	struct pf_envelope e = {.fault = NULL};
	struct buffer whole;
	struct stat st;
	char path[1400];
	buffer_init(&e.file, MESSAGE_MOST);
	buffer_init(&e.content, MESSAGE_MOST);
	buffer_init(&whole, MESSAGE_MOST);
	(void)snprintf(path, sizeof path, "%s/%s/%s", j->queue, place, name);
	int error = read_plain_file_at(dir, name, MESSAGE_MOST, &whole, &st);
	if (error == 0 && (st.st_mode & S_IXUSR) == 0)
		e.fault = "it was never finished: nobody was told that it is taken"; /* Postfix marks the others so */
	else if (error == 0 && j->postcat != NULL)
		ask_postcat(j, &e, path);
	else if (error == 0)
		pf_read_records(&e, buffer_span(&whole));
	if (error == 0 && e.fault == NULL && !e.has_sender)
		e.fault = "it has no sender";
	if (error == 0 && e.fault == NULL)
		error = hand_in(j, &e, dir, name);
	if (error != 0 || e.fault != NULL)
		import_say(&j->pf->im, IMPORT_DIFFERS, path, "left there: %s", error != 0 ? strerror(error) : e.fault);
	j->left += error != 0 || e.fault != NULL;
	j->taken += error == 0 && e.fault == NULL;
	buffer_free(&whole);
	buffer_free(&e.file);
	buffer_free(&e.content);
}

/* Postfix spreads files over folders of one letter. */
static void take_folder(struct queue_job *j, int parent, const char *name, const char *place, unsigned depth)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	if (d == NULL)
		return;
	for (const struct dirent *one; (one = readdir(d)) != NULL;) {
		struct stat st;
		char below[1000];
		if (one->d_name[0] == '.' || fstatat(fd, one->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
			continue;
		(void)snprintf(below, sizeof below, "%s/%s", place, one->d_name);
		if (S_ISDIR(st.st_mode) && depth < DEPTH_MOST)
			take_folder(j, fd, one->d_name, below, depth + 1);
		else if (S_ISREG(st.st_mode))
			take_file(j, fd, place, one->d_name);
	}
	(void)closedir(d);
}

/* Postfix's master holds a lock on its file. */
static bool is_running(int queue_fd)
{
	int fd = openat(queue_fd, "pid/master.pid", O_RDWR | O_CLOEXEC);
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	bool held = fd >= 0 && ((flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) || (fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK));
	if (fd >= 0)
		(void)close(fd);
	return held;
}

static int open_all(struct queue_job *j)
{
	const struct cli *c = &j->pf->im.cli;
	char drop[1200];
	(void)snprintf(drop, sizeof drop, "%s/maildrop", c->config.service.spool_directory);
	j->queue_fd = open(j->queue, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (j->queue_fd < 0)
		return cli_fail(c, EX_NOINPUT, "%s: %s", j->queue, strerror(errno));
	if (is_running(j->queue_fd))
		return cli_fail(c, EX_TEMPFAIL, "%s: Postfix is running; end it first (postfix stop)", j->queue);
	j->drop_fd = open(drop, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (j->drop_fd < 0)
		return cli_fail(c, EX_CANTCREAT, "%s: %s; posthorn start makes it", drop, strerror(errno));
	if (mkdirat(j->queue_fd, "posthorn", 0700) != 0 && errno != EEXIST)
		return cli_fail(c, EX_CANTCREAT, "%s/posthorn: %s", j->queue, strerror(errno));
	j->done_fd = openat(j->queue_fd, "posthorn", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return j->done_fd < 0 ? cli_fail(c, EX_CANTCREAT, "%s/posthorn: %s", j->queue, strerror(errno)) : 0;
}

int pf_queue(struct postfix *pf, const char *queue, bool held, bool direct)
{
	static const char *const folders[] = {"incoming", "active", "deferred", "maildrop", "hold"};
	struct queue_job j = {.pf = pf, .queue = queue, .queue_fd = -1, .drop_fd = -1, .done_fd = -1};
	j.postcat = !direct && access("/usr/sbin/postcat", X_OK) == 0 ? "/usr/sbin/postcat" : NULL;
	int status = open_all(&j);
	for (size_t i = 0; status == 0 && i < COUNT_OF(folders) - !held; i++)
		take_folder(&j, j.queue_fd, folders[i], folders[i], 0);
	if (j.taken > 0)
		import_say(&pf->im, IMPORT_TAKEN, queue, "%u message%s handed in; the files are in %s/posthorn; the time that each may wait begins anew", j.taken, j.taken == 1 ? "" : "s", queue);
	else if (status == 0)
		import_say(&pf->im, IMPORT_TAKEN, queue, "no message waits there");
	for (size_t i = 0; i < 3; i++)
		if ((int[]){j.queue_fd, j.drop_fd, j.done_fd}[i] >= 0)
			(void)close((int[]){j.queue_fd, j.drop_fd, j.done_fd}[i]);
	return status != 0 ? status : j.left > 0 ? EX_DATAERR : 0;
}
