/* mover: alone renames, unlinks, zero-fills, writes large bodies and waiting files of one queue.
 * User: posthorn.
 * May: all of that below Queue.
 * Never: use the network, parse content. */
#include "mover.h"

#include <string.h>
#include <sysexits.h>

const struct log_event log_events[] = {
#define EVENT(name, level, meaning, action) {#name, level, meaning, action},
#include "events.def"
#undef EVENT
};

static struct mover mover = {.storage = &storage_real};
static const struct confinement rights = {.user_suffix = "", .calls = CALLS_FILES | CALLS_WRITE | CALLS_RENAME, .files = 4096};

static void peer_gone(struct channel *ch, int reason)
{
	struct mover *m = ch->program;
	(void)reason;
	if (ch == m->qmgr)
		m->qmgr = NULL;
	else if (ch == m->cleanup)
		m->cleanup = NULL;
	else
		body_origin_gone(m, ch);
}

static const struct channel_owner owner = {
	.handlers = {[MSG_store] = store_on_store, [MSG_fold] = store_on_fold, [MSG_discard] = store_on_discard,
		[MSG_corrupt] = store_on_corrupt, [MSG_corrupt_record] = store_on_corrupt_record, [MSG_body_refused] = store_on_body_refused,
		[MSG_body_begin] = body_on_begin, [MSG_body_data] = body_on_data, [MSG_body_copy] = body_on_copy,
		[MSG_body_end] = body_on_end, [MSG_body_drop] = body_on_drop, [MSG_segment_want] = segments_on_want,
		[MSG_segment_free] = segments_on_free},
	.gone = peer_gone,
};

static void linked(struct process *p, enum role role, uint32_t instance, uint32_t server, pid_t pid, int fd)
{
	struct mover *m = p->program;
	struct channel *ch = channel_make(p->base, fd, R_MOVER, role, &owner, m);
	if (ch == NULL)
		return;
	ch->instance = instance;
	ch->server = server;
	ch->pid = pid;
	struct channel **place = role == R_QMGR ? &m->qmgr : role == R_CLEANUP ? &m->cleanup : NULL;
	if (place != NULL) {
		channel_close(*place);
		*place = ch;
	}
}

static void on_work(int fd, short what, void *context)
{
	(void)fd;
	(void)what;
	store_work(context);
}

static void end_if_idle(int fd, short what, void *context)
{
	struct mover *m = context;
	struct timeval soon = {.tv_usec = 20000};
	(void)fd;
	(void)what;
	if (body_any(m) && clock_mono_ms() < m->stop_ms && event_base_once(m->proc.base, -1, EV_TIMEOUT, end_if_idle, m, &soon) == 0)
		return;
	store_work(m);
	proc_done(&m->proc);
}

/* Bodies that are on their way have the grace to come. */
static void stop(struct process *p, uint32_t grace_ms)
{
	struct mover *m = p->program;
	if (m->stop_ms != 0)
		return;
	m->stop_ms = clock_mono_ms() + grace_ms;
	end_if_idle(-1, 0, m);
}

int main(void)
{
	struct complaint why;
	struct mover *m = &mover;
	if (proc_begin(&m->proc, R_MOVER, &why) != 0)
		return proc_fail(&m->proc, EX_CONFIG, &why);
	m->proc.program = m;
	m->proc.linked = linked;
	m->proc.stop = stop;
	m->jobs_end = &m->jobs;
	m->token = m->proc.epoch;
	if (proc_own_lease(&m->proc) != NULL) {
		m->leased = storage_leased(proc_own_lease(&m->proc));
		m->storage = &m->leased;
		m->token = lease_token(proc_own_lease(&m->proc));
	}
	m->queue_fd = proc_fd(&m->proc, "queue");
	m->work = event_new(m->proc.base, -1, 0, on_work, m);
	struct path_rule paths[] = {{m->queue_fd, PATH_READ | PATH_WRITE}};
	if (m->work == NULL || proc_confine(&m->proc, &rights, paths, COUNT_OF(paths), NULL, &why) != 0)
		return proc_fail(&m->proc, EX_OSERR, &why);
	int error = dirs_prepare(m);
	if (error == 0)
		error = segments_recover(m);
	if (error != 0) {
		complain(&why, "Queue", 0, "cannot be read: %s", strerror(error));
		return proc_fail(&m->proc, EX_IOERR, &why);
	}
	return proc_run(&m->proc);
}
