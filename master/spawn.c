#include "master.h"
#include "lookup/lookup.h"
#include "proc/proc.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

/* Of those that did not come up, why.  How many did. */
static size_t say_failures(const struct master *m, struct buffer *text)
{
	size_t up = 0;
	for (uint32_t i = 0; i < m->config.servers_n; i++) {
		const struct server_run *r = &m->runs[i];
		up += r->state == RUN_RUNNING;
		if (r->why[0] != '\0' && !m->config.servers[i].gone)
			buffer_printf(text, "%sserver %s did not start: %s", text->n > 0 ? "; " : "", m->config.servers[i].name, r->why);
	}
	return up;
}

void master_announce_if_complete(struct master *m)
{
	struct buffer text;
	if (m->announced || m->stopping)
		return;
	for (const struct child *c = m->children; c != NULL; c = c->next)
		if (c->state != CHILD_READY && c->server == NO_SERVER && !c->retiring)
			return;
	for (uint32_t i = 0; i < m->config.servers_n; i++)
		if (m->runs[i].state == RUN_STARTING || m->runs[i].state == RUN_STOPPING)
			return;
	buffer_init(&text, 600);
	if (say_failures(m, &text) == 0 && text.n > 0) { /* a service without any server is of no use */
		master_announce(m, EX_UNAVAILABLE, buffer_cstr(&text));
		master_stop(m);
		buffer_free(&text);
		return;
	}
	LOG(&m->log, started, NO_ID, F("version", SPAN_LIT(POSTHORN_VERSION)));
	config_warnings(&m->config, log_warning, m);
	if (master_any_paused(m))
		LOG(&m->log, still_paused, NO_ID, F("servers", m->paused ? SPAN_LIT("all") : SPAN_LIT("some")));
	own_warn_of_gateways(&m->config, log_warning, m);
	master_warn_of_operators(m);
	master_announce(m, 0, text.n > 0 ? buffer_cstr(&text) : "");
	buffer_free(&text);
}

static int on_ready(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, ready, ready);
	struct child *c = find_child(ch);
	c->state = CHILD_READY;
	c->landlock = ready.landlock;
	if (c->server != NO_SERVER)
		master_server_ready(c->master, c->server);
	master_announce_if_complete(c->master);
	master_replace_next(c->master);
	return 0;
}

static int on_failed(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, failed, failed);
	struct child *c = find_child(ch);
	char text[600];
	(void)snprintf(text, sizeof text, "%s: %.*s", role_name(c->role), SPAN_ARG(failed.reason));
	LOG(&c->master->log, process_ended, NO_ID, F("process", span_of(role_name(c->role))), F("reason", failed.reason));
	if (c->server != NO_SERVER) {
		master_fail_server(c->master, c->server, text);
	} else if (!c->master->announced) {
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
	struct server_run *r = &m->runs[count.server];
	if (c->role != R_FRONT) {
		r->queued = count.n;
		return 0;
	}
	r->sessions = count.n;
	r->front_knows = count.serial == r->serial;
	master_server_step(m, count.server);
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
		[MSG_admin] = master_on_admin, [MSG_record] = master_on_record,
		[MSG_kill_peer] = on_kill_peer, [MSG_lease_taken] = master_on_lease_taken, [MSG_lease_lost] = master_on_lease_lost},
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
	c->old = c->asked = false;
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
	if (c->master->stopping || c->state != CHILD_DOWN || (c->server != NO_SERVER && c->master->runs[c->server].state != RUN_RUNNING))
		return;
	if (spawn(c->master, c, &why) != 0)
		LOG(&c->master->log, process_ended, NO_ID, F("process", span_of(role_name(c->role))), F("reason", span_of(why.reason)));
}

/* One that is there and has ended is started again. */
static struct child *find_down(const struct master *m, enum role role, uint32_t server)
{
	struct child *c = m->children;
	while (c != NULL && (c->role != role || c->server != server || c->pid > 0))
		c = c->next;
	return c;
}

struct child *master_new_child(struct master *m, enum role role, uint32_t server)
{
	struct child *c = calloc(1, sizeof *c), **end = &m->children;
	if (c == NULL)
		return NULL;
	*c = (struct child){.role = role, .server = server, .master = m};
	c->respawn = event_new(m->base, -1, 0, on_respawn, c);
	while (*end != NULL)
		end = &(*end)->next;
	*end = c;
	return c;
}

int master_add_child(struct master *m, enum role role, uint32_t server, struct complaint *why)
{
	struct child *c = server == NO_SERVER ? NULL : find_down(m, role, server);
	if (c != NULL)
		(void)event_del(c->respawn);
	else
		c = master_new_child(m, role, server);
	return c == NULL || c->respawn == NULL ? ENOMEM : spawn(m, c, why);
}

/* What runs as users is there only when it is needed: one root parent, an agent for each queue. */
int master_spawn_local(struct master *m, struct complaint *why)
{
	for (const struct child *c = m->children; c != NULL; c = c->next)
		if (c->role == R_DELIVER)
			return 0;
	int error = master_add_child(m, R_DELIVER, NO_SERVER, why);
	for (uint32_t i = 0; i < m->config.servers_n && error == 0; i++)
		if (m->runs[i].state == RUN_STARTING || m->runs[i].state == RUN_RUNNING)
			error = master_add_child(m, R_LOCAL, i, why);
	return error;
}

int master_spawn_wanted(struct master *m, enum role role, struct complaint *why)
{
	const struct config *c = &m->config;
	bool wanted = role == R_MAPS ? config_uses_maps(c) : role == R_GSSD ? config_uses_gss(c) : role == R_GSSC ? config_logs_in_integrated(c) : role == R_PAMD ? config_uses_pam(c) : false;
	for (const struct child *old = m->children; old != NULL; old = old->next)
		wanted = wanted && old->role != role;
	return wanted ? master_add_child(m, role, NO_SERVER, why) : 0;
}

static bool has_child(const struct master *m, enum role role, uint32_t server)
{
	const struct child *c = m->children;
	while (c != NULL && (c->role != role || c->server != server || c->pid <= 0))
		c = c->next;
	return c != NULL;
}

int master_spawn_server(struct master *m, uint32_t server, struct complaint *why)
{
	static const enum role roles[] = {R_MOVER, R_CLEANUP, R_QMGR, R_DROP, R_PICKUP};
	int error = 0;
	for (size_t i = 0; i < COUNT_OF(roles) && error == 0; i++)
		error = master_add_child(m, roles[i], server, why);
	if (error == 0 && config_runs_deliveries(&m->config)) {
		error = master_spawn_local(m, why);
		if (error == 0 && !has_child(m, R_LOCAL, server))
			error = master_add_child(m, R_LOCAL, server, why);
	}
	if (error != 0 && why->reason[0] == '\0')
		complain(why, NULL, 0, "%s", strerror(error));
	return error;
}

void master_stop_child(struct child *c, uint32_t grace_ms)
{
	c->state = CHILD_ENDING;
	if (c->channel != NULL)
		send_stop(c->channel, (struct msg_stop){.grace_ms = grace_ms}, -1);
}

int master_spawn_all(struct master *m, struct complaint *why)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	long workers = cpus < 1 ? 1 : cpus > 8 ? 8 : cpus;
	static const enum role shared[] = {R_LOGD, R_RESOLVER, R_STS, R_AUTHD, R_KEYD, R_BOUNCE, R_CONTROL};
	int error = 0;
	for (size_t i = 0; i < COUNT_OF(shared) && error == 0; i++)
		error = master_add_child(m, shared[i], NO_SERVER, why);
	if (error == 0)
		error = master_spawn_wanted(m, R_MAPS, why);
	if (error == 0)
		error = master_spawn_wanted(m, R_PAMD, why);
	if (error == 0)
		error = master_spawn_wanted(m, R_GSSD, why);
	if (error == 0)
		error = master_spawn_wanted(m, R_GSSC, why);
	if (error == 0)
		master_start_servers(m);
	for (long i = 0; i < workers && error == 0; i++)
		error = master_add_child(m, R_SMTP, NO_SERVER, why);
	for (long i = 0; i < workers && error == 0; i++)
		error = master_add_child(m, R_SMTPD, NO_SERVER, why);
	if (error == 0)
		error = master_add_child(m, R_FRONT, NO_SERVER, why);
	if (error != 0 && why->reason[0] == '\0')
		complain(why, "posthorn", 0, "cannot start: %s", strerror(error));
	return error == 0 ? 0 : EX_OSERR;
}

static void log_end(struct master *m, const struct child *c, int status)
{
	char text[80];
	if (c->asked && WIFEXITED(status) && WEXITSTATUS(status) == 0) /* it went because it was told to */
		return;
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

static void say_end(char *text, size_t size, const struct child *c, int status)
{
	(void)snprintf(text, size, "%s ended during the start (%s %d)", role_name(c->role),
		WIFSIGNALED(status) ? "signal" : "status", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
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
	for (uint32_t i = 0; i < m->config.servers_n && c->role == R_FRONT; i++)
		m->runs[i].sessions = 0;
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
	if (c->retiring) {
		master_end_of_old(m, c);
		return;
	}
	enum run_state run = c->server == NO_SERVER ? RUN_RUNNING : m->runs[c->server].state;
	if (run == RUN_STOPPING || run == RUN_STOPPED) {
		master_server_step(m, c->server);
		return;
	}
	log_end(m, c, status);
	if (run == RUN_STARTING) {
		char text[200];
		say_end(text, sizeof text, c, status);
		master_fail_server(m, c->server, text);
		return;
	}
	for (uint32_t i = 0; i < m->config.servers_n && c->role == R_FRONT; i++)
		master_server_step(m, i);
	if (!m->announced) {
		char text[200];
		say_end(text, sizeof text, c, status);
		master_announce(m, EX_UNAVAILABLE, text);
		master_stop(m);
		return;
	}
	int64_t wait = wanted ? back_off_ms(c) : 0;
	struct timeval tv = {.tv_sec = wait / 1000, .tv_usec = (suseconds_t)(wait % 1000 * 1000)};
	(void)event_add(c->respawn, &tv);
}
