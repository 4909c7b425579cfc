/* cleanup: appends what the origins submit to the journal, syncs it, answers them.
 * User: posthorn.
 * May: write segments below Queue/journal.
 * Never: parse content, use the network, touch another file. */
#include "cleanup.h"

#include <fcntl.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

const struct log_event log_events[] = {
#define EVENT(name, level, meaning, action) {#name, level, meaning, action},
#include "events.def"
#undef EVENT
};

static struct cleanup cleanup = {.journal_fd = -1, .storage = &storage_real};
static const struct confinement rights = {.user_suffix = "", .calls = CALLS_FILES | CALLS_WRITE};

static void peer_gone(struct channel *ch, int reason)
{
	struct cleanup *c = ch->program;
	(void)reason;
	if (ch == c->qmgr)
		c->qmgr = NULL;
	else if (ch == c->mover)
		c->mover = NULL, c->wanted = false;
	else
		submit_origin_gone(c, ch);
}

static const struct channel_owner owner = {
	.handlers = {[MSG_submit] = submit_on_submit, [MSG_submit_part] = submit_on_part, [MSG_segment_ready] = journal_on_ready},
	.gone = peer_gone,
};

static void linked(struct process *p, enum role role, uint32_t instance, uint32_t server, pid_t pid, int fd)
{
	struct cleanup *c = p->program;
	struct channel *ch = channel_make(p->base, fd, R_CLEANUP, role, &owner, c);
	if (ch == NULL)
		return;
	ch->instance = instance;
	ch->server = server;
	ch->pid = pid;
	if (role == R_QMGR) {
		channel_close(c->qmgr);
		c->qmgr = ch;
		journal_tell_qmgr(c);
	} else if (role == R_MOVER) {
		channel_close(c->mover);
		c->mover = ch;
		c->wanted = false;
		journal_want(c);
	}
}

static void on_commit(int fd, short what, void *context)
{
	struct cleanup *c = context;
	(void)fd;
	(void)what;
	c->commit_due = false;
	journal_commit(c);
}

static void on_retry(int fd, short what, void *context)
{
	(void)fd;
	(void)what;
	journal_want(context);
}

static void stop(struct process *p, uint32_t grace_ms)
{
	(void)grace_ms;
	journal_commit(p->program);
	proc_done(p);
}

int main(void)
{
	struct complaint why;
	struct cleanup *c = &cleanup;
	if (proc_begin(&c->proc, R_CLEANUP, &why) != 0)
		return proc_fail(&c->proc, EX_CONFIG, &why);
	c->proc.program = c;
	c->proc.linked = linked;
	c->proc.stop = stop;
	c->lease = proc_own_lease(&c->proc);
	if (c->lease != NULL) {
		c->leased = storage_leased(c->lease);
		c->storage = &c->leased;
	}
	batch_begin(&c->batch);
	c->commit = event_new(c->proc.base, -1, 0, on_commit, c);
	c->retry = event_new(c->proc.base, -1, 0, on_retry, c);
	c->journal_fd = openat(proc_fd(&c->proc, "queue"), "journal", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int error = c->commit == NULL || c->retry == NULL ? ENOMEM : c->journal_fd < 0 ? errno : 0;
	if (error == 0)
		error = login_read_key(proc_fd(&c->proc, "authkey"), c->auth_key);
	struct path_rule paths[] = {{c->journal_fd, PATH_READ | PATH_WRITE}};
	if (error == 0 && proc_confine(&c->proc, &rights, paths, COUNT_OF(paths), NULL, &why) != 0)
		return proc_fail(&c->proc, EX_OSERR, &why);
	if (error == 0)
		error = journal_recover(c);
	if (error != 0) {
		complain(&why, "journal", 0, "cannot be read: %s", strerror(error));
		return proc_fail(&c->proc, EX_IOERR, &why);
	}
	return proc_run(&c->proc);
}
