/* A new configuration: checked, then put into force; what can't learn it is replaced, alone. */
#include "master.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

/* smtp may connect to the ports and sockets that it knew when it was confined, and to no others. */
static bool has_new_ports(const struct config *old, const struct config *fresh)
{
	struct port_list before = {0}, after = {0};
	bool found = config_ports(old, &before) != 0 || config_ports(fresh, &after) != 0 || (config_uses_unix_lmtp(fresh) && !config_uses_unix_lmtp(old));
	for (size_t i = 0; i < after.n; i++)
		found = found || !port_list_has(&before, after.ports[i]);
	free(before.ports);
	free(after.ports);
	return found;
}

/* What a confined process can't learn any more is given to its successor: agents whose ports are too few (their
 * messages are taken back and tried again), a resolver with other servers (its questions are asked again). */
static void replace(struct master *m, enum role role)
{
	for (struct child *c = m->children; c != NULL; c = c->next)
		if (c->role == role && c->channel != NULL) {
			c->asked = true;
			send_stop(c->channel, (struct msg_stop){.grace_ms = 10000}, -1);
		}
}

static bool has_new_dns(const struct config *a, const struct config *b)
{
	return strcmp(a->service.dns_servers, b->service.dns_servers) != 0 ||
		strcmp(a->service.dns_trust_anchor_file, b->service.dns_trust_anchor_file) != 0;
}

static bool has_authorities(const struct config *c, const char *file)
{
	bool found = false;
	for (size_t i = 0; i < c->servers_n; i++)
		found = found || strcmp(c->servers[i].p.outbound_tls_ca_file, file) == 0;
	return found;
}

/* smtp and sts read the authorities before they were confined. */
static bool has_new_authorities(const struct config *a, const struct config *b)
{
	bool found = false;
	for (size_t i = 0; i < a->servers_n; i++) /* what is new among the servers that were there: a server's place goes with its file */
		found = found || strcmp(a->servers[i].p.outbound_tls_ca_file, b->servers[i].p.outbound_tls_ca_file) != 0;
	for (size_t i = a->servers_n; i < b->servers_n; i++)
		found = found || !has_authorities(a, b->servers[i].p.outbound_tls_ca_file);
	return found;
}

/* drop opened its directories when it began. */
static bool has_new_drops(const struct server *x, const struct server *y)
{
	for (size_t k = 0; k < y->domains_n; k++) {
		const struct domain *d = &y->domains[k], *old = server_domain(x, span_of(d->name));
		if (d->p.type == DOMAIN_LOCAL && (old == NULL || strcmp(old->p.local.drop_directory, d->p.local.drop_directory) != 0))
			return true;
	}
	return false;
}

/* What concerns the service as a whole; NULL: nothing. */
static const char *needs_restart(const struct service_params *x, const struct service_params *y)
{
	const struct { const char *name, *a, *b; } fixed[] = {
		{"spool_directory", x->spool_directory, y->spool_directory}, {"run_directory", x->run_directory, y->run_directory},
		{"log_directory", x->log_directory, y->log_directory}, {"mail_owner", x->mail_owner, y->mail_owner}, {"setgid_group", x->setgid_group, y->setgid_group}};
	for (size_t i = 0; i < COUNT_OF(fixed); i++)
		if (strcmp(fixed[i].a, fixed[i].b) != 0)
			return fixed[i].name;
	return NULL;
}

/* Its processes hold its directories open. */
static bool needs_new_processes(const struct server *x, const struct server *y)
{
	return x->p.cluster != y->p.cluster || x->p.cluster_lease_time != y->p.cluster_lease_time || strcmp(x->p.queue_directory, y->p.queue_directory) != 0 || strcmp(x->p.local.drop_directory, y->p.local.drop_directory) != 0 ||
		strcmp(x->p.pickup_directory, y->p.pickup_directory) != 0 || strcmp(x->p.badmail_directory, y->p.badmail_directory) != 0;
}

/* What authd was confined to, and whom it asks. */
static bool has_new_backends(const struct config *a, const struct config *b)
{
	bool found = false;
	for (size_t i = 0; i < b->servers_n; i++)
		found = found || strcmp(i < a->servers_n ? a->servers[i].p.auth_backend : "file", b->servers[i].p.auth_backend) != 0;
	return found;
}

static bool has_child(const struct master *m, enum role role)
{
	const struct child *c = m->children;
	while (c != NULL && c->role != role)
		c = c->next;
	return c != NULL;
}

/* Which files these may read, and what is in keytabs, was fixed at their start. */
static void renew_readers(struct master *m)
{
	static const enum role readers[] = {R_MAPS, R_GSSD, R_GSSC, R_PAMD};
	for (size_t i = 0; i < COUNT_OF(readers); i++) {
		struct complaint why = {0};
		if (readers[i] == R_PAMD && has_child(m, R_PAMD))
			continue; /* it reads at each question */
		if (has_child(m, readers[i]))
			replace(m, readers[i]);
		else if (master_spawn_wanted(m, readers[i], &why) != 0)
			LOG(&m->log, process_ended, NO_ID, F("process", span_of(role_name(readers[i]))), F("reason", span_of(why.reason)));
	}
}

/* What is to be done beside telling all processes. */
struct changes {
	bool ports, authorities, dns, reports, backends, log;
	bool drops[SERVERS_MOST], directories[SERVERS_MOST]; /* by server */
	size_t before;                                       /* servers */
	bool main;                                           /* another server takes what programs submit */
};

static void find_changes(struct changes *c, const struct config *a, const struct config *b)
{
	c->before = a->servers_n;
	c->main = config_main_server(a) - a->servers != config_main_server(b) - b->servers;
	c->authorities = has_new_authorities(a, b);
	c->ports = c->authorities || has_new_ports(a, b);
	c->dns = has_new_dns(a, b);
	c->reports = config_reports_tls(a) != config_reports_tls(b);
	c->backends = has_new_backends(a, b);
	c->log = strcmp(a->service.log_target, b->service.log_target) != 0;
	for (size_t i = 0; i < a->servers_n; i++) {
		c->drops[i] = !b->servers[i].gone && has_new_drops(&a->servers[i], &b->servers[i]);
		c->directories[i] = !b->servers[i].gone && needs_new_processes(&a->servers[i], &b->servers[i]);
	}
}

static void replace_of(struct master *m, enum role role, uint32_t server)
{
	for (struct child *c = m->children; c != NULL; c = c->next)
		if (c->role == role && c->server == server && c->channel != NULL) {
			c->asked = true;
			send_stop(c->channel, (struct msg_stop){.grace_ms = 10000}, -1);
		}
}

static void change_servers(struct master *m, const struct changes *c, bool *begun)
{
	struct complaint why = {0};
	(void)master_read_states(m, (uint32_t)c->before, &why); /* one that was renamed keeps what it was */
	for (uint32_t i = 0; i < m->config.servers_n; i++) {
		struct server_run *r = &m->runs[i];
		if (m->config.servers[i].gone) {
			*r = (struct server_run){.state = r->state, .stage = r->stage, .serial = r->serial, .front_knows = r->front_knows, .sessions = r->sessions, .timer = r->timer};
			master_stop_server(m, i);
		} else if (i >= c->before || (!r->known && r->state == RUN_STOPPED && r->why[0] == '\0' && m->config.servers[i].p.startup == STARTUP_AUTOMATIC)) {
			master_tell_state(m, i);
			if (r->known ? !r->wanted : m->config.servers[i].p.startup != STARTUP_AUTOMATIC)
				continue;
			r->known = r->wanted = true;
			begun[i] = true;
			master_start_server(m, i);
		} else if (r->state == RUN_RUNNING && c->directories[i]) {
			master_stop_server(m, i);
			begun[i] = r->again = r->state == RUN_STOPPING;
		} else if (c->drops[i] && master_make_drops(m, &why) == 0) {
			replace_of(m, R_DROP, i);
		}
	}
	int error = master_write_states(m);
	if (error != 0)
		LOG(&m->log, states_unwritten, NO_ID, F("reason", span_of(strerror(error))));
}

static void put_in_force(struct master *m, const struct config *fresh, int fd, bool *begun)
{
	struct complaint why = {0};
	struct changes *changes = calloc(1, sizeof *changes);
	if (changes != NULL)
		find_changes(changes, &m->config, fresh);
	config_free(&m->config);
	(void)close(m->config_fd);
	m->config = *fresh;
	m->config_fd = fd;
	m->generation++;
	for (struct child *c = m->children; c != NULL; c = c->next)
		if (c->channel != NULL)
			send_reload(c->channel, (struct msg_reload){.generation = m->generation}, dup(fd));
	for (struct child *c = m->children; c != NULL; c = c->next)
		if ((c->role == R_KEYD || c->role == R_AUTHD || c->role == R_SMTPD) && c->channel != NULL)
			master_send_secrets(m, c);
	master_relisten_end(m);
	if (changes == NULL)
		return;
	if (changes->ports)
		replace(m, R_SMTP);
	if (changes->authorities || changes->reports)
		replace(m, R_STS);
	if (changes->dns)
		replace(m, R_RESOLVER);
	if (changes->backends)
		replace(m, R_AUTHD);
	if (changes->log)
		replace(m, R_LOGD);
	if (changes->main)
		replace_of(m, R_PICKUP, (uint32_t)(config_main_server(&m->config) - m->config.servers));
	change_servers(m, changes, begun);
	if (config_runs_deliveries(&m->config) && master_spawn_local(m, &why) != 0)
		LOG(&m->log, process_ended, NO_ID, F("process", SPAN_LIT("local")), F("reason", span_of(why.reason)));
	renew_readers(m);
	free(changes);
}

void master_reload(struct master *m, struct buffer *text, uint32_t *status, bool begun[SERVERS_MOST])
{
	struct config fresh;
	struct complaint why = {0};
	int fd;
	*status = EX_CONFIG;
	memset(begun, 0, SERVERS_MOST * sizeof *begun);
	if (master_read_config(m, &fresh, &fd, &why) != 0) {
		buffer_printf(text, "%s:%u: %s", why.file, why.line, why.reason);
		LOG(&m->log, reload_refused, NO_ID, F("reason", buffer_span(text)));
		return;
	}
	char name[64];
	const char *server, *fixed = needs_restart(&m->config.service, &fresh.service);
	if (fixed != NULL)
		buffer_printf(text, "%s changes with a restart of the service only: posthorn stop, posthorn start", fixed);
	else if (config_unknown_operator(&fresh, name, &server))
		buffer_printf(text, "server %s: operators: this machine has no %s %s", server, name[0] == '@' ? "group" : "user", name[0] == '@' ? name + 1 : name);
	else if (master_check_secrets(m, &fresh, &why) != 0 || master_relisten(m, &fresh, &why) != 0)
		buffer_printf(text, "%s: %s", why.file, why.reason);
	if (text->n > 0) {
		LOG(&m->log, reload_refused, NO_ID, F("reason", buffer_span(text)));
		config_free(&fresh);
		(void)close(fd);
		return;
	}
	buffer_puts(text, "reloaded");
	put_in_force(m, &fresh, fd, begun);
	LOG(&m->log, reloaded, NO_ID, F("what", SPAN_LIT("configuration")));
	*status = 0;
}
