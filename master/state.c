/* What is remembered of servers (MISSION A3, A4): which are paused, and whether the service is.  DIR/state/servers has a line each. */
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
		any = any || m->server_paused[i];
	return any;
}

static bool is_paused(const struct master *m, uint32_t server)
{
	return m->paused || m->server_paused[server];
}

const char *master_server_state(const struct master *m, uint32_t server)
{
	return m->stopping ? "stopping" : is_paused(m, server) ? "paused" : "running";
}

static uint32_t index_of(const struct master *m, struct span name)
{
	for (uint32_t i = 0; i < m->config.servers_n; i++)
		if (span_is(name, m->config.servers[i].name))
			return i;
	return NO_SERVER;
}

int master_read_states(struct master *m, struct complaint *why)
{
	struct buffer text;
	m->server_paused = calloc(m->config.servers_n, sizeof *m->server_paused);
	buffer_init(&text, STATE_MOST);
	int error = m->server_paused == NULL ? ENOMEM : read_file_at(m->dir_fd, "state/servers", STATE_MOST, &text);
	if (error != 0 && error != ENOENT) {
		complain(why, "state/servers", 0, "cannot read: %s", strerror(error));
		buffer_free(&text);
		return EX_NOINPUT;
	}
	for (struct span rest = buffer_span(&text); rest.n > 0;) {
		struct span line = span_until(&rest, '\n'), word = span_word(&line, " ");
		uint32_t server = index_of(m, span_word(&line, " "));
		if (span_is(word, "service-paused"))
			m->paused = true;
		else if (span_is(word, "paused") && server != NO_SERVER) /* one that is there no more is forgotten */
			m->server_paused[server] = true;
	}
	buffer_free(&text);
	return 0;
}

/* 0 or errno; what is in force is what the file says. */
static int write_states(const struct master *m, bool service, const bool *servers)
{
	struct buffer text;
	buffer_init(&text, STATE_MOST);
	if (service)
		buffer_puts(&text, "service-paused\n");
	for (uint32_t i = 0; i < m->config.servers_n; i++)
		if (servers[i])
			buffer_printf(&text, "paused %s\n", m->config.servers[i].name);
	int fd = openat(m->dir_fd, "state", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int error = fd < 0 ? errno : !buffer_ok(&text) ? EFBIG : replace_file_at(fd, "servers", buffer_span(&text), 0644);
	if (fd >= 0)
		(void)close(fd);
	buffer_free(&text);
	return error;
}

void master_send_states(const struct master *m, struct child *front)
{
	for (uint32_t i = 0; i < m->config.servers_n; i++)
		send_server_state(front->channel, (struct msg_server_state){.server = i, .paused = is_paused(m, i)}, -1);
}

void master_tell_front(const struct master *m, struct child *front)
{
	master_send_states(m, front);
	for (size_t i = 0; i < m->listeners_n; i++) {
		const struct listener *l = &m->listeners[i];
		send_listener(front->channel, (struct msg_listener){.server = l->server, .kind = l->kind}, fcntl(l->fd, F_DUPFD_CLOEXEC, 4));
		channel_flush(front->channel);
	}
}

static void put_in_force(struct master *m)
{
	for (struct child *c = m->children; c != NULL; c = c->next)
		if (c->role == R_FRONT && c->channel != NULL)
			master_send_states(m, c);
}

/* The servers that are named, into which.  False: one is unknown, *unknown. */
static bool choose(const struct master *m, struct span names, bool *which, struct span *unknown)
{
	for (struct span name; (name = span_word(&names, " ")).n > 0;) {
		uint32_t server = index_of(m, name);
		*unknown = name;
		if (server == NO_SERVER)
			return false;
		which[server] = true;
	}
	return true;
}

void master_pause(struct master *m, struct span names, bool pause, struct buffer *text, uint32_t *status)
{
	bool *fresh = calloc(m->config.servers_n, 2 * sizeof *fresh), *which = fresh == NULL ? NULL : fresh + m->config.servers_n, service = m->paused;
	bool all = span_trim(names).n == 0;
	struct span unknown = {"", 0};
	int error = fresh == NULL ? ENOMEM : 0;
	if (error == 0 && !choose(m, names, which, &unknown)) {
		buffer_printf(text, "no server '%.*s'; nothing was changed", SPAN_ARG(unknown));
		*status = EX_USAGE;
		free(fresh);
		return;
	}
	for (uint32_t i = 0; i < m->config.servers_n && error == 0; i++)
		fresh[i] = which[i] ? pause : m->server_paused[i];
	service = all ? pause : service;
	if (error == 0)
		error = write_states(m, service, fresh);
	if (error != 0) {
		buffer_printf(text, "state/servers cannot be written: %s; nothing was changed", strerror(error));
		*status = EX_IOERR;
	} else {
		memcpy(m->server_paused, fresh, m->config.servers_n * sizeof *fresh);
		m->paused = service;
		put_in_force(m);
		LOG(&m->log, state_changed, NO_ID, F("state", pause ? SPAN_LIT("paused") : SPAN_LIT("running")), F("servers", all ? SPAN_LIT("all") : names));
		if (!pause && !all && m->paused)
			buffer_puts(text, "the service itself is paused; posthorn resume without a name resumes it");
	}
	free(fresh);
}
