/* One server's start and stop while the others go on (MISSION A3 to A5). */
#include "master.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

/* Who ends when: what brings mail in first; qmgr waits for what agents carry; the mover last. */
static const unsigned stages[] = {R_PICKUP, R_QMGR, R_DROP | R_LOCAL, R_CLEANUP, R_MOVER, R_LEASE};
enum { STAGE_EXTRA_S = 5 };

static struct span name_of(const struct master *m, uint32_t server)
{
	return span_of(m->config.servers[server].name);
}

static bool any_child(const struct master *m, uint32_t server, unsigned roles)
{
	for (const struct child *c = m->children; c != NULL; c = c->next)
		if (c->server == server && c->pid > 0 && ((unsigned)c->role & roles) != 0)
			return true;
	return false;
}

static bool any_front(const struct master *m)
{
	for (const struct child *c = m->children; c != NULL; c = c->next)
		if (c->role == R_FRONT && c->channel != NULL)
			return true;
	return false;
}

static bool has_sessions(const struct master *m, uint32_t server)
{
	const struct server_run *r = &m->runs[server];
	return any_front(m) && (!r->front_knows || r->sessions > 0);
}

static void set_timer(struct master *m, uint32_t server);

static void begin_stage(struct master *m, uint32_t server)
{
	uint32_t grace = (uint32_t)(m->config.servers[server].p.stop_grace * 1000);
	for (struct child *c = m->children; c != NULL; c = c->next)
		if (c->server == server && c->pid > 0 && ((unsigned)c->role & stages[m->runs[server].stage]) != 0)
			master_stop_child(c, grace);
	set_timer(m, server);
}

/* Its time is over. */
static void on_timer(int fd, short what, void *context)
{
	struct child *self = context;
	struct master *m = self->master;
	uint32_t server = self->server;
	struct server_run *r = &m->runs[server];
	(void)fd;
	(void)what;
	if (m->stopping || r->state != RUN_STOPPING)
		return;
	for (struct child *c = m->children; c != NULL; c = c->next)
		if (c->server == server && c->pid > 0 && ((unsigned)c->role & stages[r->stage]) != 0)
			(void)kill(c->pid, SIGKILL);
	if (r->stage == 0 && !any_child(m, server, stages[0])) {
		r->sessions = 0;
		r->front_knows = true;
		master_server_step(m, server);
	} else {
		set_timer(m, server);
	}
}

static struct child *any_of(const struct master *m, uint32_t server)
{
	struct child *c = m->children;
	while (c != NULL && c->server != server)
		c = c->next;
	return c;
}

static void set_timer(struct master *m, uint32_t server)
{
	struct server_run *r = &m->runs[server];
	struct timeval tv = {.tv_sec = (time_t)m->config.servers[server].p.stop_grace + (r->stage == 0 ? 0 : STAGE_EXTRA_S)};
	struct child *self = any_of(m, server);
	if (r->timer == NULL && self != NULL)
		r->timer = event_new(m->base, -1, 0, on_timer, self);
	if (r->timer != NULL)
		(void)event_add(r->timer, &tv);
}

static void stopped(struct master *m, uint32_t server)
{
	struct server_run *r = &m->runs[server];
	if (r->timer != NULL)
		(void)event_del(r->timer);
	r->state = RUN_STOPPED;
	r->sessions = 0;
	master_tell_state(m, server);
	LOG(&m->log, server_stopped, NO_ID, F("server", name_of(m, server)), F("reason", span_of(r->why[0] == '\0' ? "by hand" : r->why)));
	if (r->again) {
		r->again = false;
		master_start_server(m, server);
	}
	master_end_pending(m);
	master_announce_if_complete(m);
}

void master_server_step(struct master *m, uint32_t server)
{
	struct server_run *r = &m->runs[server];
	while (!m->stopping && r->state == RUN_STOPPING) {
		if (any_child(m, server, stages[r->stage]) || (r->stage == 0 && has_sessions(m, server)))
			return;
		if (++r->stage == COUNT_OF(stages)) {
			stopped(m, server);
			return;
		}
		if (r->stage == 1)
			master_tell_state(m, server); /* what is left of its sessions has had its time */
		begin_stage(m, server);
	}
}

static void begin_stop(struct master *m, uint32_t server)
{
	struct server_run *r = &m->runs[server];
	r->state = RUN_STOPPING;
	r->stage = 0;
	master_tell_state(m, server);
	master_listen_no_more(m, server);
	begin_stage(m, server);
	master_server_step(m, server);
}

void master_stop_server(struct master *m, uint32_t server)
{
	struct server_run *r = &m->runs[server];
	r->again = false;
	if (r->state == RUN_STOPPED || r->state == RUN_STOPPING)
		return;
	r->why[0] = '\0';
	begin_stop(m, server);
}

void master_end_server(struct master *m, uint32_t server, const char *why)
{
	struct server_run *r = &m->runs[server];
	r->again = false;
	(void)snprintf(r->why, sizeof r->why, "%s", why);
	LOG(&m->log, server_failed, NO_ID, F("server", name_of(m, server)), F("reason", span_of(r->why)));
	begin_stop(m, server);
}

void master_fail_server(struct master *m, uint32_t server, const char *why)
{
	if (m->runs[server].state == RUN_STARTING)
		master_end_server(m, server, why);
}

/* Without a process of its own there is nothing to wait for. */
static void refuse(struct master *m, uint32_t server, const struct complaint *why)
{
	struct server_run *r = &m->runs[server];
	(void)snprintf(r->why, sizeof r->why, "%s%s%s", why->file, why->file[0] == '\0' ? "" : ": ", why->reason);
	r->state = RUN_STOPPED;
	LOG(&m->log, server_failed, NO_ID, F("server", name_of(m, server)), F("reason", span_of(r->why)));
}

void master_start_server(struct master *m, uint32_t server)
{
	struct server_run *r = &m->runs[server];
	const struct server *s = &m->config.servers[server];
	struct complaint why = {0};
	if (r->state == RUN_STOPPING)
		r->again = true;
	if (r->state != RUN_STOPPED)
		return;
	r->why[0] = '\0';
	if (s->gone || s->p.startup == STARTUP_DISABLED) {
		complain(&why, NULL, 0, "%s", s->gone ? "it was removed" : "startup = disabled: hornconf -e startup=manual lets it be started");
		refuse(m, server, &why);
		return;
	}
	r->state = RUN_STARTING;
	int status = master_make_server_dirs(m, s, &why);
	if (status == 0 && master_lease_due(m, server)) {
		if (master_add_child(m, R_LEASE, server, &why) != 0)
			master_fail_server(m, server, why.reason);
		return;
	}
	if (status == 0)
		status = master_listen(m, server, &why);
	if (status != 0) {
		refuse(m, server, &why);
		return;
	}
	if (master_spawn_server(m, server, &why) != 0)
		master_fail_server(m, server, why.reason);
}

void master_start_leased(struct master *m, uint32_t server)
{
	struct complaint why = {0};
	if (master_listen(m, server, &why) != 0 || master_spawn_server(m, server, &why) != 0) {
		char text[800];
		(void)snprintf(text, sizeof text, "%s%s%s", why.file, why.file[0] == '\0' ? "" : ": ", why.reason);
		master_fail_server(m, server, text);
	}
}

void master_server_ready(struct master *m, uint32_t server)
{
	struct server_run *r = &m->runs[server];
	if (r->state != RUN_STARTING || master_waits_for_lease(m, server))
		return;
	for (const struct child *c = m->children; c != NULL; c = c->next)
		if (c->server == server && c->state != CHILD_READY)
			return;
	r->state = RUN_RUNNING;
	master_tell_state(m, server);
	for (const struct child *c = m->children; c != NULL; c = c->next)
		if (c->role == R_FRONT && c->channel != NULL)
			master_tell_listeners(m, c, server);
	if (m->announced)
		LOG(&m->log, server_started, NO_ID, F("server", name_of(m, server)));
	master_end_pending(m);
}

static bool is_to_start(const struct master *m, uint32_t server)
{
	const struct server_run *r = &m->runs[server];
	struct span names = span_of(m->to_start == NULL ? "" : m->to_start);
	for (struct span name; (name = span_word(&names, " ")).n > 0;)
		if (span_is(name, m->config.servers[server].name))
			return true;
	if (m->config.servers[server].p.cluster != 0)
		return false; /* on which node it runs is not for one of them to remember */
	return r->known ? r->wanted : m->config.servers[server].p.startup == STARTUP_AUTOMATIC;
}

void master_start_servers(struct master *m)
{
	for (uint32_t i = 0; i < m->config.servers_n; i++) {
		struct server_run *r = &m->runs[i];
		bool start = is_to_start(m, i);
		if (start && m->config.servers[i].p.startup != STARTUP_DISABLED)
			r->wanted = r->known = true;
		if (start)
			master_start_server(m, i);
		else
			LOG(&m->log, server_stays, NO_ID, F("server", name_of(m, i)));
	}
	int error = master_write_states(m);
	if (error != 0)
		LOG(&m->log, states_unwritten, NO_ID, F("reason", span_of(strerror(error))));
}
