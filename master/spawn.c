#include "master.h"
#include "lookup/lookup.h"
#include "proc/proc.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <unistd.h>

const char *master_child_server(const struct master *m, const struct child *c)
{
	return c->server == NO_SERVER ? "" : m->config.servers[c->server].name;
}

static struct child *find_child(const struct channel *ch)
{
	return ch->peer_state;
}

static void log_warning(void *context, const char *text)
{
	struct master *m = context;
	LOG(&m->log, config_warning, NO_ID, F("text", span_of(text)));
}

static void announce_if_complete(struct master *m)
{
	for (const struct child *c = m->children; c != NULL; c = c->next)
		if (c->state != CHILD_READY)
			return;
	if (m->announced)
		return;
	LOG(&m->log, started, NO_ID, F("version", SPAN_LIT(POSTHORN_VERSION)));
	config_warnings(&m->config, log_warning, m);
	if (master_any_paused(m))
		LOG(&m->log, still_paused, NO_ID, F("servers", m->paused ? SPAN_LIT("all") : SPAN_LIT("some")));
	own_warn_of_gateways(&m->config, log_warning, m);
	master_announce(m, 0, "started");
}

static int on_ready(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, ready, ready);
	struct child *c = find_child(ch);
	c->state = CHILD_READY;
	c->landlock = ready.landlock;
	announce_if_complete(c->master);
	return 0;
}

static int on_failed(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, failed, failed);
	struct child *c = find_child(ch);
	char text[600];
	(void)snprintf(text, sizeof text, "%s: %.*s", role_name(c->role), SPAN_ARG(failed.reason));
	LOG(&c->master->log, process_ended, NO_ID, F("process", span_of(role_name(c->role))), F("reason", failed.reason));
	if (!c->master->announced) {
		master_announce(c->master, EX_UNAVAILABLE, text);
		master_stop(c->master);
	}
	return 0;
}

static int on_pong(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, pong, pong);
	find_child(ch)->pong_ms = clock_mono_ms();
	return 0;
}

static int on_count(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, count, count);
	struct child *c = find_child(ch);
	struct master *m = c->master;
	if (count.server >= m->config.servers_n || (c->server != NO_SERVER && c->server != count.server))
		return EBADMSG;
	if (c->role == R_FRONT)
		m->sessions[count.server] = count.n;
	else
		m->queued[count.server] = count.n;
	return 0;
}

/* A queue's start must know that a silent agent will not wake up and deliver again. */
static int on_kill_peer(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, kill_peer, wanted);
	struct master *m = find_child(ch)->master;
	for (struct child *c = m->children; c != NULL; c = c->next)
		if (c->instance == wanted.instance && (uint32_t)c->role == wanted.role && (c->role == R_SMTP || c->role == R_DROP || c->role == R_LOCAL) && c->pid > 0)
			(void)kill(c->pid, SIGKILL);
	return 0;
}

static void child_channel_gone(struct channel *ch, int reason)
{
	struct child *c = find_child(ch);
	c->channel = NULL;
	if (reason != 0 && c->state != CHILD_ENDING && c->pid > 0) {
		LOG(&c->master->log, channel_cut, NO_ID, F("process", span_of(role_name(c->role))), F("reason", span_of(strerror(reason))));
		(void)kill(c->pid, SIGKILL);
	}
}

const struct channel_owner master_child_owner = {
	.handlers = {[MSG_ready] = on_ready, [MSG_failed] = on_failed, [MSG_pong] = on_pong, [MSG_count] = on_count,
		[MSG_admin] = master_on_admin,
		[MSG_kill_peer] = on_kill_peer},
	.gone = child_channel_gone,
};

static void exec_child(const struct master *m, const struct child *c, int fd)
{
	char program[4200], name[128];
	(void)snprintf(program, sizeof program, "%s/%s", m->libexec, role_name(c->role));
	(void)snprintf(name, sizeof name, "posthorn: %s%s%s", role_name(c->role), c->server == NO_SERVER ? "" : " ", master_child_server(m, c));
	sigset_t none;
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	/* Mail is batch work: a process that is woken does not push aside the one that woke it, which is
	 * about to wait anyhow (14.7 to 13.3 switches and -15 % CPU a message at one session). */
	const struct sched_param normal = {.sched_priority = 0};
	(void)sched_setscheduler(0, SCHED_BATCH, &normal);
	/* restartable sequences are for programs with threads: without them a switch costs 1 % less */
	(void)setenv("GLIBC_TUNABLES", "glibc.pthread.rseq=0", 1);
	/* every descriptor is close-on-exec; only the channel lives on, as descriptor 3 */
	if (fd == PROC_CONTROL_FD ? fcntl(fd, F_SETFD, 0) == 0 : dup2(fd, PROC_CONTROL_FD) >= 0)
		(void)execl(program, name, (char *)NULL);
	_exit(127);
}

static int spawn(struct master *m, struct child *c, struct complaint *why)
{
	int ends[2];
	int error = channel_pair(ends);
	if (error != 0)
		return error;
	c->instance = ++m->instances;
	pid_t pid = fork();
	if (pid == 0)
		exec_child(m, c, ends[1]);
	(void)close(ends[1]);
	if (pid < 0) {
		error = errno;
		(void)close(ends[0]);
		complain(why, role_name(c->role), 0, "cannot fork: %s", strerror(error));
		return error;
	}
	c->pid = pid;
	c->state = CHILD_STARTING;
	c->started_ms = c->pong_ms = clock_mono_ms();
	c->started_wall_s = clock_wall_us() / 1000000;
	c->ping_sent_ms = 0;
	c->channel = channel_make(m->base, ends[0], R_MASTER, c->role, &master_child_owner, m);
	if (c->channel == NULL)
		return ENOMEM;
	c->channel->peer_state = c;
	error = master_send_hello(m, c, why);
	if (error == 0)
		master_link_child(m, c);
	return error;
}

static void on_respawn(int fd, short what, void *context)
{
	struct child *c = context;
	struct complaint why = {0};
	(void)fd;
	(void)what;
	if (c->master->stopping || c->state != CHILD_DOWN)
		return;
	if (spawn(c->master, c, &why) != 0)
		LOG(&c->master->log, process_ended, NO_ID, F("process", span_of(role_name(c->role))), F("reason", span_of(why.reason)));
}

static int add_child(struct master *m, enum role role, uint32_t server, struct complaint *why)
{
	struct child *c = calloc(1, sizeof *c), **end = &m->children;
	if (c == NULL)
		return ENOMEM;
	*c = (struct child){.role = role, .server = server, .master = m};
	c->respawn = event_new(m->base, -1, 0, on_respawn, c);
	while (*end != NULL)
		end = &(*end)->next;
	*end = c;
	return c->respawn == NULL ? ENOMEM : spawn(m, c, why);
}

/* What runs as users is there only when it is needed: one root parent, an agent for each queue. */
int master_spawn_local(struct master *m, struct complaint *why)
{
	for (const struct child *c = m->children; c != NULL; c = c->next)
		if (c->role == R_DELIVER)
			return 0;
	int error = add_child(m, R_DELIVER, NO_SERVER, why);
	for (uint32_t i = 0; i < m->config.servers_n && error == 0; i++)
		error = add_child(m, R_LOCAL, i, why);
	return error;
}

int master_spawn_wanted(struct master *m, enum role role, struct complaint *why)
{
	const struct config *c = &m->config;
	bool wanted = role == R_MAPS ? config_uses_maps(c) : role == R_GSSD ? config_uses_gss(c) : role == R_GSSC ? config_logs_in_integrated(c) : false;
	for (const struct child *old = m->children; old != NULL; old = old->next)
		wanted = wanted && old->role != role;
	return wanted ? add_child(m, role, NO_SERVER, why) : 0;
}

static int add_queue(struct master *m, uint32_t server, struct complaint *why)
{
	static const enum role roles[] = {R_MOVER, R_CLEANUP, R_QMGR, R_DROP, R_PICKUP};
	int error = 0;
	for (size_t i = 0; i < COUNT_OF(roles) && error == 0; i++)
		error = add_child(m, roles[i], server, why);
	return error;
}

int master_spawn_all(struct master *m, struct complaint *why)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	long workers = cpus < 1 ? 1 : cpus > 8 ? 8 : cpus;
	static const enum role shared[] = {R_LOGD, R_RESOLVER, R_STS, R_AUTHD, R_KEYD, R_BOUNCE, R_CONTROL};
	m->sessions = calloc(m->config.servers_n, sizeof *m->sessions);
	m->queued = calloc(m->config.servers_n, sizeof *m->queued);
	int error = m->sessions == NULL || m->queued == NULL ? ENOMEM : 0;
	for (size_t i = 0; i < COUNT_OF(shared) && error == 0; i++)
		error = add_child(m, shared[i], NO_SERVER, why);
	if (error == 0)
		error = master_spawn_wanted(m, R_MAPS, why);
	if (error == 0 && config_uses_pam(&m->config))
		error = add_child(m, R_PAMD, NO_SERVER, why);
	if (error == 0)
		error = master_spawn_wanted(m, R_GSSD, why);
	if (error == 0)
		error = master_spawn_wanted(m, R_GSSC, why);
	for (uint32_t i = 0; i < m->config.servers_n && error == 0; i++)
		error = add_queue(m, i, why);
	if (error == 0 && config_runs_deliveries(&m->config))
		error = master_spawn_local(m, why);
	for (long i = 0; i < workers && error == 0; i++)
		error = add_child(m, R_SMTP, NO_SERVER, why);
	for (long i = 0; i < workers && error == 0; i++)
		error = add_child(m, R_SMTPD, NO_SERVER, why);
	if (error == 0)
		error = add_child(m, R_FRONT, NO_SERVER, why);
	if (error != 0 && why->reason[0] == '\0')
		complain(why, "posthorn", 0, "cannot start: %s", strerror(error));
	return error == 0 ? 0 : EX_OSERR;
}

static void log_end(struct master *m, const struct child *c, int status)
{
	char text[80];
	if (WIFSIGNALED(status))
		(void)snprintf(text, sizeof text, "signal %d", WTERMSIG(status));
	else
		(void)snprintf(text, sizeof text, "status %d", WEXITSTATUS(status));
	LOG(&m->log, process_ended, NO_ID, F("process", span_of(role_name(c->role))), F("server", span_of(master_child_server(m, c))), F("how", span_of(text)));
}

/* At once the first time; 0.1 s doubling to 10 s when it dies again within a minute. */
static int64_t back_off_ms(struct child *c)
{
	if (clock_mono_ms() - c->started_ms > 60000)
		c->failures = 0;
	int64_t wait = c->failures == 0 ? 0 : INT64_C(100) << (c->failures > 7 ? 7 : c->failures - 1);
	c->failures++;
	return wait > 10000 ? 10000 : wait;
}

void master_child_ended(struct master *m, pid_t pid, int status)
{
	struct child *c = m->children;
	while (c != NULL && c->pid != pid)
		c = c->next;
	if (c == NULL)
		return;
	bool wanted = c->state != CHILD_ENDING && !m->stopping;
	c->pid = 0;
	c->state = CHILD_DOWN;
	if (c->role == R_FRONT)
		memset(m->sessions, 0, m->config.servers_n * sizeof *m->sessions);
	channel_close(c->channel);
	c->channel = NULL;
	if (c->role == R_LOGD) {
		channel_close(m->log.channel);
		m->log.channel = NULL;
	}
	if (m->stopping) {
		master_stop_step(m);
		return;
	}
	log_end(m, c, status);
	if (!m->announced) {
		char text[200];
		(void)snprintf(text, sizeof text, "%s ended during the start (%s %d)", role_name(c->role),
			WIFSIGNALED(status) ? "signal" : "status", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
		master_announce(m, EX_UNAVAILABLE, text);
		master_stop(m);
		return;
	}
	int64_t wait = wanted ? back_off_ms(c) : 0;
	struct timeval tv = {.tv_sec = wait / 1000, .tv_usec = (suseconds_t)(wait % 1000 * 1000)};
	(void)event_add(c->respawn, &tv);
}
