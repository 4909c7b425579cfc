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
	buffer_puts(b, ",\"startup\":\"");
	param_format(b, param_find(SPAN_LIT("startup"), SCOPE_SERVER), &s->p);
	buffer_puts(b, "\",\"reason\":");
	buffer_put_json(b, span_of(m->runs[i].why));
	buffer_printf(b, ",\"sessions\":%llu,\"queue\":%llu}", (unsigned long long)m->runs[i].sessions, (unsigned long long)m->runs[i].queued);
}

/* only: names of servers, of an operator; empty: all. */
static bool is_shown(const struct master *m, struct span only, uint32_t server)
{
	bool found = only.n == 0;
	for (struct span name; !found && (name = span_word(&only, " ")).n > 0;)
		found = server != NO_SERVER && span_is(name, m->config.servers[server].name);
	return found;
}

static void put_status(struct buffer *b, const struct master *m, struct span only)
{
	buffer_printf(b, "{\"state\":\"%s\",\"pid\":%d,\"version\":\"%s\",\"generation\":%u,\"processes\":[", m->stopping ? "stopping" : m->paused ? "paused" : "running",
		(int)getpid(), POSTHORN_VERSION, m->generation);
	bool first = true;
	for (const struct child *c = m->children; c != NULL; c = c->next) {
		if (c->pid <= 0 || !is_shown(m, only, c->server))
			continue;
		if (!first)
			buffer_putc(b, ',');
		first = false;
		put_process(b, m, c);
	}
	buffer_puts(b, "],\"servers\":[");
	first = true;
	for (uint32_t i = 0; i < m->config.servers_n; i++) {
		if (m->config.servers[i].gone || !is_shown(m, only, i))
			continue;
		if (!first)
			buffer_putc(b, ',');
		first = false;
		put_server(b, m, i);
	}
	buffer_puts(b, "]}");
}

int master_on_admin(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, admin, admin);
	struct child *c = ch->peer_state;
	struct master *m = c->master;
	struct buffer text;
	uint32_t status = 0;
	bool begun[SERVERS_MOST];
	if (span_is(admin.act, "start") || span_is(admin.act, "stop")) {
		master_act_servers(m, ch, admin.serial, admin.args, span_is(admin.act, "start"));
		return 0;
	}
	buffer_init(&text, 4 * 1024 * 1024);
	if (span_is(admin.act, "status"))
		put_status(&text, m, admin.args);
	else if (span_is(admin.act, "reload"))
		master_reload(m, &text, &status, begun);
	else if (span_is(admin.act, "edit"))
		master_edit(m, admin.args, &text, &status, begun);
	else if (span_is(admin.act, "pause") || span_is(admin.act, "resume"))
		master_pause(m, admin.args, span_is(admin.act, "pause"), &text, &status);
	else
		status = EX_USAGE;
	if (span_is(admin.act, "reload") && status == 0)
		master_answer_reload(m, ch, admin.serial, begun);
	else
		send_admin_done(ch, (struct msg_admin_done){.serial = admin.serial, .status = status, .text = buffer_span(&text)}, -1);
	buffer_free(&text);
	return 0;
}
