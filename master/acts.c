/* Start and stop of servers while the service runs. */
#include "master.h"

#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

static struct channel *control_of(const struct master *m, uint32_t instance)
{
	for (const struct child *c = m->children; c != NULL; c = c->next)
		if (c->role == R_CONTROL && c->instance == instance && c->channel != NULL)
			return c->channel;
	return NULL;
}

static bool is_through(const struct master *m, const struct pending *p)
{
	bool all = true;
	for (uint32_t i = 0; i < m->config.servers_n; i++)
		all = all && (!p->servers[i] || (!m->runs[i].again && (m->runs[i].state == RUN_STOPPED || m->runs[i].state == RUN_RUNNING)));
	return all;
}

static void answer(const struct master *m, const struct pending *p)
{
	struct buffer text;
	uint32_t status = 0;
	struct channel *ch = control_of(m, p->instance);
	buffer_init(&text, 256 * 1024);
	buffer_puts(&text, p->reload ? "reloaded" : "");
	for (uint32_t i = 0; i < m->config.servers_n; i++) {
		if (!p->servers[i] || !p->start || m->runs[i].state == RUN_RUNNING)
			continue;
		buffer_printf(&text, "%sserver %s did not start: %s", text.n > 0 ? "; " : "", m->config.servers[i].name, m->runs[i].why[0] == '\0' ? "it was stopped meanwhile" : m->runs[i].why);
		status = p->reload ? 0 : EX_UNAVAILABLE;
	}
	if (ch != NULL)
		send_admin_done(ch, (struct msg_admin_done){.serial = p->serial, .status = status, .text = buffer_span(&text)}, -1);
	buffer_free(&text);
}

void master_end_pending(struct master *m)
{
	for (struct pending **p = &m->pendings; *p != NULL;) {
		struct pending *one = *p;
		if (!is_through(m, one)) {
			p = &one->next;
			continue;
		}
		*p = one->next;
		answer(m, one);
		free(one);
	}
}

/* NULL: why is filled. */
static struct pending *read_names(const struct master *m, struct span names, struct buffer *why)
{
	struct pending *p = calloc(1, sizeof *p + SERVERS_MOST * sizeof(bool));
	if (p == NULL)
		buffer_puts(why, "not enough memory");
	for (struct span name; p != NULL && (name = span_word(&names, " ")).n > 0;) {
		uint32_t server = master_server_named(m, name);
		if (server != NO_SERVER) {
			p->servers[server] = true;
			continue;
		}
		buffer_printf(why, "no server '%.*s'; nothing was changed", SPAN_ARG(name));
		free(p);
		p = NULL;
	}
	return p;
}

static int remember(struct master *m, const struct pending *p)
{
	struct { bool known, wanted; } old[SERVERS_MOST];
	for (uint32_t i = 0; i < m->config.servers_n; i++) {
		struct server_run *r = &m->runs[i];
		old[i].known = r->known;
		old[i].wanted = r->wanted;
		if (p->servers[i]) {
			r->known = true;
			r->wanted = p->start;
		}
	}
	int error = master_write_states(m);
	for (uint32_t i = 0; i < m->config.servers_n && error != 0; i++) { /* what is in force is what the file says */
		m->runs[i].known = old[i].known;
		m->runs[i].wanted = old[i].wanted;
	}
	return error;
}

void master_answer_reload(struct master *m, struct channel *control, uint64_t serial, const bool *begun)
{
	struct pending *p = calloc(1, sizeof *p + SERVERS_MOST * sizeof(bool));
	if (p == NULL) {
		send_admin_done(control, (struct msg_admin_done){.serial = serial, .text = SPAN_LIT("reloaded")}, -1);
		return;
	}
	*p = (struct pending){.instance = ((const struct child *)control->peer_state)->instance, .serial = serial, .start = true, .reload = true, .next = m->pendings};
	memcpy(p->servers, begun, SERVERS_MOST * sizeof(bool));
	m->pendings = p;
	master_end_pending(m);
}

void master_act_servers(struct master *m, struct channel *control, uint64_t serial, struct span names, bool start)
{
	struct buffer why;
	buffer_init(&why, 4096);
	struct pending *p = read_names(m, names, &why);
	uint32_t status = EX_USAGE;
	if (p != NULL) {
		p->start = start;
		p->serial = serial;
		p->instance = ((const struct child *)control->peer_state)->instance;
		int error = remember(m, p);
		if (error != 0) {
			buffer_printf(&why, "state/servers cannot be written: %s; nothing was changed", strerror(error));
			status = EX_IOERR;
			free(p);
			p = NULL;
		}
	}
	if (p == NULL) {
		send_admin_done(control, (struct msg_admin_done){.serial = serial, .status = status, .text = buffer_span(&why)}, -1);
		buffer_free(&why);
		return;
	}
	buffer_free(&why);
	p->next = m->pendings;
	m->pendings = p;
	for (uint32_t i = 0; i < m->config.servers_n; i++) {
		if (!p->servers[i])
			continue;
		LOG(&m->log, state_changed, NO_ID, F("state", start ? SPAN_LIT("started") : SPAN_LIT("stopped")), F("servers", span_of(m->config.servers[i].name)));
		if (start)
			master_start_server(m, i);
		else
			master_stop_server(m, i);
	}
	master_end_pending(m);
}
