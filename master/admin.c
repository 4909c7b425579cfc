#include "master.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

static void put_user(struct buffer *b, pid_t pid)
{
	char path[64];
	FILE *f;
	unsigned uid = 0;
	char line[256];
	(void)snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	while (f != NULL && fgets(line, sizeof line, f) != NULL) {
		struct span rest = span_of(line);
		if (!span_is(span_word(&rest, " \t\n"), "Uid:"))
			continue;
		uint64_t v = 0;
		(void)!parse_u64(span_word(&rest, " \t\n"), UINT32_MAX, &v);
		uid = (unsigned)v;
	}
	if (f != NULL)
		(void)fclose(f);
	const struct passwd *pw = getpwuid(uid);
	buffer_put_json(b, span_of(pw == NULL ? "?" : pw->pw_name));
}

static unsigned seccomp_mode(pid_t pid)
{
	char path[64], line[256];
	unsigned mode = 0;
	(void)snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
	FILE *f = fopen(path, "re");
	while (f != NULL && fgets(line, sizeof line, f) != NULL) {
		struct span rest = span_of(line);
		uint64_t v = 0;
		if (span_is(span_word(&rest, " \t\n"), "Seccomp:") && parse_u64(span_word(&rest, " \t\n"), 9, &v) == 0)
			mode = (unsigned)v;
	}
	if (f != NULL)
		(void)fclose(f);
	return mode;
}

static void put_process(struct buffer *b, const struct master *m, const struct child *c)
{
	buffer_printf(b, "{\"role\":\"%s\",\"server\":", role_name(c->role));
	buffer_put_json(b, span_of(master_child_server(m, c)));
	buffer_printf(b, ",\"pid\":%d,\"user\":", (int)c->pid);
	put_user(b, c->pid);
	buffer_printf(b, ",\"seccomp\":%u,\"landlock\":%u,\"started\":\"", seccomp_mode(c->pid), c->landlock);
	format_rfc3339(b, c->started_wall_s);
	buffer_puts(b, "\"}");
}

static void put_server(struct buffer *b, const struct master *m, uint32_t i)
{
	const struct server *s = &m->config.servers[i];
	buffer_puts(b, "{\"name\":");
	buffer_put_json(b, span_of(s->name));
	buffer_printf(b, ",\"state\":\"%s\",\"listen\":", master_server_state(m, i));
	buffer_put_json(b, span_of(s->p.listen));
	buffer_puts(b, ",\"listen_tls\":");
	buffer_put_json(b, span_of(s->p.listen_tls));
	buffer_puts(b, ",\"listen_submission\":");
	buffer_put_json(b, span_of(s->p.listen_submission));
	buffer_printf(b, ",\"sessions\":%llu,\"queue\":%llu}", (unsigned long long)m->sessions[i], (unsigned long long)m->queued[i]);
}

static void put_status(struct buffer *b, const struct master *m)
{
	buffer_printf(b, "{\"state\":\"%s\",\"pid\":%d,\"version\":\"%s\",\"generation\":%u,\"processes\":[", m->stopping ? "stopping" : m->paused ? "paused" : "running",
		(int)getpid(), POSTHORN_VERSION, m->generation);
	bool first = true;
	for (const struct child *c = m->children; c != NULL; c = c->next) {
		if (c->pid <= 0)
			continue;
		if (!first)
			buffer_putc(b, ',');
		first = false;
		put_process(b, m, c);
	}
	buffer_puts(b, "],\"servers\":[");
	for (uint32_t i = 0; i < m->config.servers_n; i++) {
		if (i > 0)
			buffer_putc(b, ',');
		put_server(b, m, i);
	}
	buffer_puts(b, "]}");
}

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
		if (c->role == role && c->channel != NULL)
			send_stop(c->channel, (struct msg_stop){.grace_ms = 10000}, -1);
}

static bool has_new_dns(const struct config *a, const struct config *b)
{
	return strcmp(a->service.dns_servers, b->service.dns_servers) != 0 ||
		strcmp(a->service.dns_trust_anchor_file, b->service.dns_trust_anchor_file) != 0;
}

/* smtp and sts read the authorities before they were confined. */
static bool has_new_authorities(const struct config *a, const struct config *b)
{
	for (size_t i = 0; i < b->servers_n; i++)
		if (strcmp(a->servers[i].p.outbound_tls_ca_file, b->servers[i].p.outbound_tls_ca_file) != 0)
			return true;
	return false;
}

/* drop opened its directories when it began. */
static bool has_new_drops(const struct config *a, const struct config *b)
{
	for (size_t i = 0; i < b->servers_n; i++)
		for (size_t k = 0; k < b->servers[i].domains_n; k++) {
			const struct domain *d = &b->servers[i].domains[k], *old = server_domain(&a->servers[i], span_of(d->name));
			if (d->p.type == DOMAIN_LOCAL && (old == NULL || strcmp(old->p.local.drop_directory, d->p.local.drop_directory) != 0))
				return true;
		}
	return false;
}

static bool needs_restart(const struct config *a, const struct config *b)
{
	if (a->servers_n != b->servers_n || strcmp(a->service.spool_directory, b->service.spool_directory) != 0 ||
		strcmp(a->service.run_directory, b->service.run_directory) != 0 || strcmp(a->service.mail_owner, b->service.mail_owner) != 0 ||
		strcmp(a->service.log_target, b->service.log_target) != 0)
		return true;
	for (size_t i = 0; i < a->servers_n; i++) {
		const struct server *x = &a->servers[i], *y = &b->servers[i];
		if (strcmp(x->name, y->name) != 0 || strcmp(x->p.listen, y->p.listen) != 0 || strcmp(x->p.listen_tls, y->p.listen_tls) != 0 ||
			strcmp(x->p.listen_submission, y->p.listen_submission) != 0 || strcmp(x->p.auth_backend, y->p.auth_backend) != 0 ||
			strcmp(x->p.queue_directory, y->p.queue_directory) != 0 || strcmp(x->p.local.drop_directory, y->p.local.drop_directory) != 0 ||
			strcmp(x->p.pickup_directory, y->p.pickup_directory) != 0 || strcmp(x->p.badmail_directory, y->p.badmail_directory) != 0)
			return true;
	}
	return false;
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
	static const enum role readers[] = {R_MAPS, R_GSSD, R_GSSC};
	for (size_t i = 0; i < COUNT_OF(readers); i++) {
		struct complaint why = {0};
		if (has_child(m, readers[i]))
			replace(m, readers[i]);
		else if (master_spawn_wanted(m, readers[i], &why) != 0)
			LOG(&m->log, process_ended, NO_ID, F("process", span_of(role_name(readers[i]))), F("reason", span_of(why.reason)));
	}
}

void master_reload(struct master *m, struct buffer *text, uint32_t *status)
{
	struct config fresh;
	struct complaint why = {0};
	int fd;
	*status = EX_CONFIG;
	if (master_read_config(m, &fresh, &fd, &why) != 0) {
		buffer_printf(text, "%s:%u: %s", why.file, why.line, why.reason);
		LOG(&m->log, reload_refused, NO_ID, F("reason", buffer_span(text)));
		return;
	}
	if (needs_restart(&m->config, &fresh)) {
		buffer_puts(text, "servers, listen, directories, mail_owner, auth_backend and log_target change with a restart only: posthorn stop, posthorn start");
		LOG(&m->log, reload_refused, NO_ID, F("reason", buffer_span(text)));
		config_free(&fresh);
		(void)close(fd);
		return;
	}
	if (master_check_secrets(m, &fresh, &why) != 0) {
		buffer_printf(text, "%s: %s", why.file, why.reason);
		LOG(&m->log, reload_refused, NO_ID, F("reason", buffer_span(text)));
		config_free(&fresh);
		(void)close(fd);
		return;
	}
	bool new_reports = config_reports_tls(&m->config) != config_reports_tls(&fresh);
	bool new_authorities = has_new_authorities(&m->config, &fresh), new_ports = has_new_ports(&m->config, &fresh) || new_authorities, new_dns = has_new_dns(&m->config, &fresh), new_drops = has_new_drops(&m->config, &fresh);
	config_free(&m->config);
	(void)close(m->config_fd);
	m->config = fresh;
	m->config_fd = fd;
	m->generation++;
	for (struct child *c = m->children; c != NULL; c = c->next)
		if (c->channel != NULL)
			send_reload(c->channel, (struct msg_reload){.generation = m->generation}, dup(fd));
	for (struct child *c = m->children; c != NULL; c = c->next)
		if ((c->role == R_KEYD || c->role == R_AUTHD || c->role == R_SMTPD) && c->channel != NULL)
			master_send_secrets(m, c);
	if (new_ports)
		replace(m, R_SMTP);
	if (new_authorities || new_reports)
		replace(m, R_STS);
	if (new_dns)
		replace(m, R_RESOLVER);
	if (new_drops && master_make_drops(m, &why) == 0)
		replace(m, R_DROP);
	if (config_runs_deliveries(&m->config) && master_spawn_local(m, &why) != 0)
		LOG(&m->log, process_ended, NO_ID, F("process", SPAN_LIT("local")), F("reason", span_of(why.reason)));
	renew_readers(m);
	buffer_puts(text, "reloaded");
	LOG(&m->log, reloaded, NO_ID, F("what", SPAN_LIT("configuration")));
	*status = 0;
}

int master_on_admin(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, admin, admin);
	struct child *c = ch->peer_state;
	struct master *m = c->master;
	struct buffer text;
	uint32_t status = 0;
	buffer_init(&text, 200 * 1024);
	if (span_is(admin.act, "status"))
		put_status(&text, m);
	else if (span_is(admin.act, "reload"))
		master_reload(m, &text, &status);
	else if (span_is(admin.act, "pause") || span_is(admin.act, "resume"))
		master_pause(m, admin.args, span_is(admin.act, "pause"), &text, &status);
	else
		status = EX_USAGE;
	send_admin_done(ch, (struct msg_admin_done){.serial = admin.serial, .status = status, .text = buffer_span(&text)}, -1);
	buffer_free(&text);
	return 0;
}
