/* What is remembered of servers (MISSION A3 to A5): which run, which are paused, and whether the service is.  DIR/state/servers has
 * a line each. */
#include "master.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

enum { STATE_MOST = 1024 * 1024 };

bool master_any_paused(const struct master *m)
{
	bool any = m->paused;
	for (uint32_t i = 0; i < m->config.servers_n; i++)
		any = any || m->runs[i].paused;
	return any;
}

static enum server_state state_of(const struct master *m, uint32_t server)
{
	const struct server_run *r = &m->runs[server];
	if (r->state != RUN_RUNNING)
		return r->state == RUN_STARTING || r->stage == 0 ? SERVER_STOPPED : SERVER_CUT;
	return m->paused || r->paused ? SERVER_PAUSED : SERVER_RUNS;
}

const char *master_server_state(const struct master *m, uint32_t server)
{
	static const char *const words[] = {[RUN_STOPPED] = "stopped", [RUN_STARTING] = "starting", [RUN_STOPPING] = "stopping"};
	const struct server_run *r = &m->runs[server];
	if (m->stopping)
		return "stopping";
	if (r->state != RUN_RUNNING)
		return words[r->state];
	return m->paused || r->paused ? "paused" : "running";
}

uint32_t master_server_named(const struct master *m, struct span name)
{
	for (uint32_t i = 0; i < m->config.servers_n; i++)
		if (!m->config.servers[i].gone && span_is(name, m->config.servers[i].name))
			return i;
	return NO_SERVER;
}

/* Of servers from a number on. */
int master_read_states(struct master *m, uint32_t first, struct complaint *why)
{
	struct buffer text;
	buffer_init(&text, STATE_MOST);
	int error = read_file_at(m->dir_fd, "state/servers", STATE_MOST, &text);
	if (error != 0 && error != ENOENT) {
		complain(why, "state/servers", 0, "cannot read: %s", strerror(error));
		buffer_free(&text);
		return EX_NOINPUT;
	}
	for (struct span rest = buffer_span(&text); rest.n > 0;) {
		struct span line = span_until(&rest, '\n'), word = span_word(&line, " ");
		uint32_t server = master_server_named(m, span_word(&line, " "));
		if (span_is(word, "service-paused") && first == 0)
			m->paused = true;
		else if (server == NO_SERVER || server < first) /* one that is there no more is forgotten */
			continue;
		else if (span_is(word, "paused"))
			m->runs[server].paused = true;
		else if (span_is(word, "running") || span_is(word, "stopped")) {
			m->runs[server].known = true;
			m->runs[server].wanted = span_is(word, "running");
		}
	}
	buffer_free(&text);
	return 0;
}

int master_write_states(const struct master *m)
{
	struct buffer text;
	buffer_init(&text, STATE_MOST);
	if (m->paused)
		buffer_puts(&text, "service-paused\n");
	for (uint32_t i = 0; i < m->config.servers_n; i++) {
		const struct server_run *r = &m->runs[i];
		if (m->config.servers[i].gone)
			continue;
		if (r->known)
			buffer_printf(&text, "%s %s\n", r->wanted ? "running" : "stopped", m->config.servers[i].name);
		if (r->paused)
			buffer_printf(&text, "paused %s\n", m->config.servers[i].name);
	}
	int fd = openat(m->dir_fd, "state", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int error = fd < 0 ? errno : !buffer_ok(&text) ? EFBIG : replace_file_at(fd, "servers", buffer_span(&text), 0644);
	if (fd >= 0)
		(void)close(fd);
	buffer_free(&text);
	return error;
}

void master_send_state(const struct master *m, const struct child *to, uint32_t server)
{
	send_server_state(to->channel, (struct msg_server_state){.server = server, .state = state_of(m, server), .serial = m->runs[server].serial}, -1);
}

static bool goes_by_states(const struct child *c)
{
	return c->channel != NULL && (c->role == R_FRONT || c->role == R_SMTPD || c->role == R_CONTROL);
}

void master_tell_state(struct master *m, uint32_t server)
{
	m->runs[server].serial++;
	m->runs[server].front_knows = false;
	for (const struct child *c = m->children; c != NULL; c = c->next)
		if (goes_by_states(c))
			master_send_state(m, c, server);
}

void master_tell_child(const struct master *m, const struct child *c)
{
	for (uint32_t i = 0; i < m->config.servers_n && goes_by_states(c); i++) {
		master_send_state(m, c, i);
		if (c->role == R_FRONT && m->runs[i].state == RUN_RUNNING)
			master_tell_listeners(m, c, i);
	}
}

/* The servers that are named, into which.  False: one is unknown, *unknown. */
static bool choose(const struct master *m, struct span names, bool *which, struct span *unknown)
{
	for (struct span name; (name = span_word(&names, " ")).n > 0;) {
		uint32_t server = master_server_named(m, name);
		*unknown = name;
		if (server == NO_SERVER)
			return false;
		which[server] = true;
	}
	return true;
}

static void set_paused(struct master *m, bool service, const bool *servers)
{
	m->paused = service;
	for (uint32_t i = 0; i < m->config.servers_n; i++)
		m->runs[i].paused = servers[i];
}

void master_pause(struct master *m, struct span names, bool pause, struct buffer *text, uint32_t *status)
{
	bool old[SERVERS_MOST], fresh[SERVERS_MOST], which[SERVERS_MOST] = {false}, was = m->paused, all = span_trim(names).n == 0;
	struct span unknown = {"", 0};
	if (!choose(m, names, which, &unknown)) {
		buffer_printf(text, "no server '%.*s'; nothing was changed", SPAN_ARG(unknown));
		*status = EX_USAGE;
		return;
	}
	for (uint32_t i = 0; i < m->config.servers_n; i++) {
		old[i] = m->runs[i].paused;
		fresh[i] = which[i] ? pause : old[i];
	}
	set_paused(m, all ? pause : was, fresh);
	int error = master_write_states(m);
	if (error != 0) { /* what is in force is what the file says */
		set_paused(m, was, old);
		buffer_printf(text, "state/servers cannot be written: %s; nothing was changed", strerror(error));
		*status = EX_IOERR;
		return;
	}
	for (uint32_t i = 0; i < m->config.servers_n; i++)
		if (all || which[i])
			master_tell_state(m, i);
	LOG(&m->log, state_changed, NO_ID, F("state", pause ? SPAN_LIT("paused") : SPAN_LIT("running")), F("servers", all ? SPAN_LIT("all") : names));
	if (!pause && !all && m->paused)
		buffer_puts(text, "the service itself is paused; posthorn resume without a name resumes it");
}
