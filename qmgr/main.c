/* qmgr: schedules one queue, records fates, owns the index; gives agents the content of their messages.
 * User: posthorn.
 * May: read and write below Queue (fates and index; the rest is mover's).
 * Never: parse content, use the network, ask DNS. */
#include "qmgr.h"

#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

const struct log_event log_events[] = {
#define EVENT(name, level, meaning, action) {#name, level, meaning, action},
#include "events.def"
#undef EVENT
};

static struct qmgr qmgr = {.storage = &storage_real, .fates = {.fd = -1}};
static const struct confinement rights = {.user_suffix = "", .calls = CALLS_FILES | CALLS_WRITE | CALLS_RENAME | CALLS_DB, .files = 4096};

int64_t q_now(const struct qmgr *q)
{
	return q->start_s + (clock_mono_ms() - q->start_ms) / 1000;
}

void q_turn_soon(struct qmgr *q)
{
	if (q->turn_due || q->turn == NULL)
		return;
	q->turn_due = true;
	if (q->in_turn) { /* by way of a timer: what else is ready gets its turn first */
		struct timeval now = {0};
		(void)event_add(q->turn, &now);
	} else {
		event_active(q->turn, 0, 0);
	}
}

static void commit_index(struct qmgr *q)
{
	if (!q->index_dirty)
		return;
	q->index_dirty = false;
	int error = index_commit(&q->index);
	if (error != 0)
		index_trouble(q, error);
}

static uint64_t count(const struct qmgr *q)
{
	uint64_t n = q->waiting;
	for (size_t b = 0; q->active > 0 && b < BUCKETS; b++)
		for (const struct qmsg *m = q->messages[b]; m != NULL; m = m->next_hash)
			n += !m->in_index;
	return n;
}

/* How much an orderly stop leaves, for who removes the server: Queue/left is there only while nothing runs. */
static void write_left(struct qmgr *q)
{
	char text[32];
	if (storage_check(q->storage) != 0)
		return;
	int n = snprintf(text, sizeof text, "%llu\n", (unsigned long long)count(q));
	int error = replace_file_at(q->queue_fd, "left", (struct span){text, (size_t)n}, 0600);
	if (error != 0)
		LOG(&q->proc.log, fates_failed, NO_ID, F("reason", span_of(strerror(error))));
}

static bool agents_carry(const struct qmgr *q)
{
	for (size_t b = 0; b < BUCKETS; b++)
		for (const struct task *t = q->tasks[b]; t != NULL; t = t->next_hash)
			if (t->agent != NULL)
				return true;
	return false;
}

/* Those tell soon what they hold: before, it is not known what is here. */
static bool has_agents(const struct qmgr *q)
{
	return q->agents[AGENT_SMTP] != NULL || q->agents[AGENT_DROP] != NULL || q->agents[AGENT_LOCAL] != NULL;
}

static void end_if_idle(struct qmgr *q)
{
	bool in_time = clock_mono_ms() < q->stop_ms;
	if (!q->stopping || q->ended || (in_time && (agents_carry(q) || (!q->started && has_agents(q)))))
		return;
	q->ended = true;
	fates_flush(q);
	if (fates_sync_now(q) && q->started && q->leaves) /* cleanup takes more for a successor */
		write_left(q);
	(void)!index_commit(&q->index);
	index_close(&q->index);
	for (size_t k = 0; k < AGENT_KINDS; k++) /* what is confirmed reaches them */
		for (const struct agent *a = q->agents[k]; a != NULL; a = a->next)
			channel_flush(a->channel);
	proc_done(&q->proc);
	(void)event_base_loopbreak(q->proc.base); /* the index is closed: nothing more is heard */
}

static void count_soon(struct qmgr *q)
{
	uint64_t n = count(q);
	if (n == q->last_count || q->proc.control == NULL)
		return;
	q->last_count = n;
	send_count(q->proc.control, (struct msg_count){.server = q->server_index, .n = n}, -1);
}

/* What is shared by all that a turn of the loop brought: lines, rows, hand-overs. */
static void on_turn(int fd, short what, void *context)
{
	struct qmgr *q = context;
	(void)fd;
	(void)what;
	q->turn_due = false;
	q->in_turn = true;
	q->proc.turns++;
	start_when_told(q, false);
	journal_read(q);
	wait_pass(q);
	if (q->more_due && q->active < ACTIVE_LIMIT / 2)
		wait_load_due(q);
	dest_dispatch(q);
	fates_flush(q);
	journal_free_segments(q);
	commit_index(q);
	q->in_turn = false;
	end_if_idle(q);
	if (q->ended)
		return;
	if (!q->count_due) {
		struct timeval tv = {.tv_usec = 30000};
		q->count_due = true;
		(void)event_add(q->soon, &tv);
	}
}

static void on_soon(int fd, short what, void *context)
{
	struct qmgr *q = context;
	(void)fd;
	(void)what;
	q->count_due = false;
	count_soon(q);
}

static void wake_destinations(struct qmgr *q)
{
	for (size_t b = 0; b < BUCKETS; b++) {
		struct dest *next;
		for (struct dest *d = q->dests[b]; d != NULL; d = next) {
			next = d->next_hash;
			dest_wake(q, d);
			if (d->users == 0 && !d->ready) {
				d->users = 1;
				dest_release(q, d);
			}
		}
	}
}

static void on_second(int fd, short what, void *context)
{
	struct qmgr *q = context;
	(void)fd;
	(void)what;
	if (q->ended)
		return;
	(void)fates_sync_now(q);
	if (q->fold_again && q->mover != NULL)
		fates_send_folds(q);
	if (q->pass_again && q->pass_dir >= 256) {
		q->pass_again = false;
		q->pass_dir = 0;
	}
	damage_work(q);
	sweep_bodies(q);
	wait_load_due(q);
	if (q->mover != NULL && q->store_again && q->seconds++ % 5 == 0)
		wait_store_failed(q);
	report_ask_late(q);
	wake_destinations(q);
	q_turn_soon(q);
}

static void on_start_timer(int fd, short what, void *context)
{
	(void)fd;
	(void)what;
	start_when_told(context, true);
}

struct agent **q_agents_of(struct qmgr *q, enum role role)
{
	return role == R_SMTP ? &q->agents[AGENT_SMTP] : role == R_DROP ? &q->agents[AGENT_DROP] : role == R_LOCAL ? &q->agents[AGENT_LOCAL] : NULL;
}

static void peer_gone(struct channel *ch, int reason)
{
	struct qmgr *q = ch->program;
	(void)reason;
	struct channel **single[] = {&q->cleanup, &q->mover, &q->bounce, &q->control};
	for (size_t i = 0; i < COUNT_OF(single); i++)
		if (*single[i] == ch)
			*single[i] = NULL;
	acts_forget(q, ch);
	turn_forget(q, ch);
	if (q_agents_of(q, ch->peer) != NULL) {
		fates_forget_channel(q, ch);
		start_forget(q, ch);
		agent_gone(q, ch);
	}
	q_turn_soon(q);
}

static const struct channel_owner owner = {
	.handlers = {[MSG_journal_end] = journal_on_end, [MSG_segment_ends] = journal_on_segment_ends, [MSG_segment_freed] = journal_on_freed,
		[MSG_stored] = wait_on_stored, [MSG_folded] = fates_on_folded, [MSG_verdict] = verdict_on_verdict, [MSG_holds] = start_on_holds,
		[MSG_report_failed] = report_on_failed, [MSG_queue_act] = acts_on_act, [MSG_queue_credit] = acts_on_credit,
		[MSG_etrn] = etrn_on_etrn, [MSG_turn] = turn_on_turn, [MSG_turn_over] = turn_on_over},
	.gone = peer_gone,
};

static void add_agent(struct qmgr *q, struct channel *ch)
{
	struct agent *a = calloc(1, sizeof *a);
	struct agent **list = q_agents_of(q, ch->peer);
	if (a == NULL)
		return;
	*a = (struct agent){.channel = ch, .next = *list};
	*list = a;
}

static void take_place(struct qmgr *q, struct channel *ch)
{
	struct channel **place = ch->peer == R_CLEANUP ? &q->cleanup : ch->peer == R_MOVER ? &q->mover : ch->peer == R_BOUNCE ? &q->bounce : &q->control;
	struct channel *old = *place; /* NOLINT(clang-analyzer-core.NullDereference): each of the four is a member of *q */
	if (old != NULL)
		acts_forget(q, old);
	channel_close(old);
	*place = ch;
	if (ch->peer == R_BOUNCE)
		report_ask_all(q);
	if (ch->peer != R_MOVER)
		return;
	wait_send_stores(q);
	fates_send_folds(q);
	for (size_t i = 0; i < q->segs_n; i++)
		q->segs[i].freeing = false;
}

static void linked(struct process *p, enum role role, uint32_t instance, uint32_t server, pid_t pid, int fd)
{
	struct qmgr *q = p->program;
	struct channel *ch = channel_make(p->base, fd, R_QMGR, role, &owner, q);
	if (ch == NULL)
		return;
	ch->instance = instance;
	ch->server = server;
	ch->pid = pid;
	if (q_agents_of(q, role) != NULL)
		add_agent(q, ch);
	else if (role != R_SMTPD) /* which only ever says ETRN */
		take_place(q, ch);
	q_turn_soon(q);
}

/* Nothing is handed out any more; what agents carry has the grace to end. */
static void stop(struct process *p, uint32_t grace_ms)
{
	struct qmgr *q = p->program;
	if (q->stopping)
		return;
	q->stopping = true;
	q->stop_ms = clock_mono_ms() + grace_ms;
	q->leaves = grace_ms > 0;
	end_if_idle(q);
}

/* The rows of before are worth something if nobody else had the queue in between; else they are wiped out, and this says false. */
static bool index_is_of(int index_fd, uint32_t token)
{
	struct buffer text;
	uint64_t last = 0;
	buffer_init(&text, 32);
	bool known = read_file_at(index_fd, ".token", 32, &text) == 0 && parse_u64(span_trim(buffer_span(&text)), UINT32_MAX, &last) == 0;
	bool same = known && (last == token || last + 1 == token);
	if (!same)
		(void)!index_wipe();
	buffer_clear(&text);
	buffer_printf(&text, "%u", token);
	(void)!replace_file_at(index_fd, ".token", buffer_span(&text), 0600);
	buffer_free(&text);
	return same || !known;
}

/* Recovery runs in a child with a time limit; what it can't do, a new index can. */
static int open_index(struct qmgr *q, int queue_fd)
{
	uid_t uid;
	gid_t gid;
	int status = 0, index_fd = proc_fd(&q->proc, "index"); /* of a leased queue: on this node's own disk */
	if (index_fd < 0)
		index_fd = openat(queue_fd, "index", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (index_fd < 0 || fchdir(index_fd) != 0)
		return errno;
	if (proc_own_lease(&q->proc) != NULL && !index_is_of(index_fd, lease_token(proc_own_lease(&q->proc))))
		LOG(&q->proc.log, index_rebuilt, NO_ID, F("reason", SPAN_LIT("another node had the queue")));
	bool root = (q->proc.flags & PROC_ROOT) != 0;
	if (root && proc_default_uid(q->proc.config.service.mail_owner, "", &uid, &gid) != 0)
		return ENOENT;
	pid_t pid = fork();
	if (pid == 0) {
		struct index x;
		(void)alarm(30);
		if (root && (setgroups(0, NULL) != 0 || setresgid(gid, gid, gid) != 0 || setresuid(uid, uid, uid) != 0))
			_exit(1);
		int error = index_open(&x, true);
		if (error == 0)
			index_close(&x);
		_exit(error == 0 ? 0 : 1);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return errno;
	q->pass_dir = 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	LOG(&q->proc.log, index_rebuilt, NO_ID, F("reason", SPAN_LIT("recovery failed")));
	return index_wipe();
}

static int open_dirs(struct qmgr *q)
{
	q->queue_fd = proc_fd(&q->proc, "queue");
	struct { const char *name; int *fd; } dirs[] = {{"journal", &q->journal_fd}, {"fates", &q->fates_fd}, {"wait", &q->wait_fd}, {"body", &q->body_fd}};
	for (size_t i = 0; i < COUNT_OF(dirs); i++) {
		*dirs[i].fd = openat(q->queue_fd, dirs[i].name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (*dirs[i].fd < 0)
			return errno;
	}
	if (unlinkat(q->queue_fd, "left", 0) != 0 && errno != ENOENT)
		return errno;
	return open_index(q, q->queue_fd);
}

static int make_timers(struct qmgr *q)
{
	struct timeval second = {.tv_sec = 1}, two = {.tv_sec = 2};
	struct event_base *b = q->proc.base;
	q->turn = event_new(b, -1, 0, on_turn, q);
	q->second = event_new(b, -1, EV_PERSIST, on_second, q);
	q->start_timer = event_new(b, -1, 0, on_start_timer, q);
	q->soon = event_new(b, -1, 0, on_soon, q);
	if (q->turn == NULL || q->second == NULL || q->start_timer == NULL || q->soon == NULL)
		return ENOMEM;
	return event_add(q->second, &second) == 0 && event_add(q->start_timer, &two) == 0 ? 0 : ENOMEM;
}

static void reloaded(struct process *p, const struct config *old)
{
	struct qmgr *q = p->program;
	(void)old;
	struct server *s = config_server(&p->config, span_of(p->server));
	if (s != NULL)
		q->server = s;
}

static void set_up(struct qmgr *q)
{
	struct process *p = &q->proc;
	p->program = q;
	p->linked = linked;
	p->stop = stop;
	p->reloaded = reloaded;
	q->folds_end = &q->folds;
	q->next_delivery = (uint64_t)p->epoch << 48 | (uint64_t)p->instance << 32;
	q->turn_numbers = q->next_delivery;
	q->start_s = clock_wall_us() / 1000000;
	q->start_ms = clock_mono_ms();
	(void)snprintf(q->ids.suffix, sizeof q->ids.suffix, "%.6s", p->suffix);
	buffer_init(&q->lines, 16 * 1024 * 1024);
	buffer_init(&q->unsynced, FATES_MOST);
	buffer_init(&q->notice, 2 * DAMAGE_BYTES);
	buffer_init(&q->content, 64 * 1024 * 1024);
	q->server = config_server(&p->config, span_of(p->server));
	if (q->server != NULL)
		q->server_index = (uint32_t)(q->server - p->config.servers);
	tzset();
}

int main(void)
{
	struct complaint why;
	struct qmgr *q = &qmgr;
	if (proc_begin(&q->proc, R_QMGR, &why) != 0)
		return proc_fail(&q->proc, EX_CONFIG, &why);
	set_up(q);
	if (proc_own_lease(&q->proc) != NULL) {
		q->leased = storage_leased(proc_own_lease(&q->proc));
		q->storage = &q->leased;
	}
	int error = q->server == NULL ? ENOENT : make_timers(q);
	if (error == 0)
		error = login_read_key(proc_fd(&q->proc, "authkey"), q->auth_key);
	if (error == 0)
		error = open_dirs(q);
	if (error != 0) {
		complain(&why, "Queue", 0, "cannot be opened: %s", strerror(error));
		return proc_fail(&q->proc, EX_IOERR, &why);
	}
	struct path_rule paths[] = {{q->queue_fd, PATH_READ | PATH_WRITE}, {proc_fd(&q->proc, "index"), PATH_READ | PATH_WRITE}};
	size_t paths_n = paths[1].dir_fd < 0 ? 1 : 2;
	if (proc_confine(&q->proc, &rights, paths, paths_n, NULL, &why) != 0)
		return proc_fail(&q->proc, EX_OSERR, &why);
	error = index_open(&q->index, false);
	if (error != 0 && index_wipe() == 0)
		error = index_open(&q->index, false);
	if (error != 0) {
		complain(&why, "index", 0, "cannot be opened: %s", db_strerror(error));
		return proc_fail(&q->proc, EX_IOERR, &why);
	}
	if (start_recover(q, &why) != 0)
		return proc_fail(&q->proc, EX_IOERR, &why);
	return proc_run(&q->proc);
}
