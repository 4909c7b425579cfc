/* What each role is handed at its start. */
#include "master.h"
#include "proc/proc.h"
#include "queuefile/queuefile.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct gift {
	int fds[IPC_FDS];
	size_t n;
	struct buffer names;
	int error;
	const char *what; /* path that could not be opened */
};

static void give_fd(struct gift *g, int fd, const char *name)
{
	if (g->error != 0 || g->n == IPC_FDS) {
		g->error = g->error != 0 ? g->error : EMFILE;
		if (fd >= 0)
			(void)close(fd);
		return;
	}
	if (g->n > 1)
		buffer_putc(&g->names, ' ');
	buffer_puts(&g->names, name);
	g->fds[g->n++] = fd;
}

static void give_path(struct gift *g, const char *path, int flags, const char *name)
{
	int fd = open(path, flags | O_CLOEXEC, 0640);
	if (fd < 0) {
		g->error = errno;
		g->what = path;
		return;
	}
	give_fd(g, fd, name);
}

static void give_copy(struct gift *g, int fd, const char *name)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 4);
	if (copy < 0)
		g->error = errno;
	else
		give_fd(g, copy, name);
}

static void give_dirs(struct gift *g, const struct master *m, const struct child *c)
{
	const struct server *s = c->server == NO_SERVER ? NULL : &m->config.servers[c->server];
	if (s == NULL)
		return;
	if (c->role == R_CLEANUP || c->role == R_MOVER || c->role == R_QMGR || c->role == R_LEASE)
		give_path(g, s->p.queue_directory, O_RDONLY | O_DIRECTORY, "queue");
	if (c->role == R_DROP) {
		give_path(g, s->p.local.drop_directory, O_RDONLY | O_DIRECTORY, "drop");
		give_path(g, s->p.badmail_directory, O_RDONLY | O_DIRECTORY, "badmail");
	}
	if (c->role == R_PICKUP) {
		give_path(g, s->p.pickup_directory, O_RDONLY | O_DIRECTORY, "pickup");
		give_path(g, s->p.badmail_directory, O_RDONLY | O_DIRECTORY, "badmail");
	}
}

static void give_log(struct gift *g, const struct master *m, char path[1200])
{
	const char *target = m->config.service.log_target;
	if (strncmp(target, "file:", 5) == 0)
		(void)snprintf(path, 1200, "%s", target + 5);
	else if (strcmp(target, "auto") == 0 && !m->root)
		(void)snprintf(path, 1200, "%s/mail.log", m->config.service.log_directory);
	else
		return;
	give_path(g, path, O_WRONLY | O_CREAT | O_APPEND, "logfile");
}

static void give_role(struct gift *g, struct master *m, const struct child *c, char paths[2][1200])
{
	give_copy(g, m->config_fd, "");
	int leases = master_leases_for(m, c->role);
	if (leases >= 0)
		give_fd(g, leases, "leases");
	switch (c->role) {
	case R_LOGD:
		give_log(g, m, paths[0]);
		break;
	case R_CONTROL:
		give_copy(g, m->control_fd, "socket");
		break;
	case R_AUTHD:
		give_copy(g, m->auth_key_fd, "authkey");
		(void)snprintf(paths[0], 1200, "%s/servers", m->dir);
		give_path(g, paths[0], O_RDONLY | O_DIRECTORY, "servers");
		break;
	case R_GSSD:
		(void)snprintf(paths[0], 1200, "%s/gss", m->config.service.spool_directory);
		give_path(g, paths[0], O_RDONLY | O_DIRECTORY, "gss");
		break;
	case R_GSSC:
		(void)snprintf(paths[0], 1200, "%s/gssc", m->config.service.spool_directory);
		give_path(g, paths[0], O_RDONLY | O_DIRECTORY, "gssc");
		break;
	case R_STS:
		(void)snprintf(paths[0], 1200, "%s/sts", m->config.service.spool_directory);
		give_path(g, paths[0], O_RDONLY | O_DIRECTORY, "sts");
		(void)snprintf(paths[1], 1200, "%s/maildrop", m->config.service.spool_directory);
		if (config_reports_tls(&m->config))
			give_path(g, paths[1], O_RDONLY | O_DIRECTORY, "maildrop");
		break;
	case R_CLEANUP:
	case R_QMGR:
		give_copy(g, m->auth_key_fd, "authkey");
		give_dirs(g, m, c);
		(void)snprintf(paths[0], 1200, "%s/cluster/%s/index", m->config.service.spool_directory, m->config.servers[c->server].name);
		if (c->role == R_QMGR && m->config.servers[c->server].p.cluster != 0)
			give_path(g, paths[0], O_RDONLY | O_DIRECTORY, "index");
		break;
	case R_PICKUP:
		give_dirs(g, m, c);
		if (&m->config.servers[c->server] == config_main_server(&m->config)) {
			(void)snprintf(paths[0], 1200, "%s/maildrop", m->config.service.spool_directory);
			give_path(g, paths[0], O_RDONLY | O_DIRECTORY, "maildrop");
		}
		break;
	case R_MASTER: case R_FRONT: case R_SMTPD: case R_KEYD: case R_PAMD: case R_MOVER: case R_SMTP: case R_DROP:
	case R_BOUNCE: case R_CONFIG: case R_RESOLVER: case R_LOCAL: case R_DELIVER: case R_MAPS: case R_LEASE: case R_ANY:
		give_dirs(g, m, c);
		break;
	}
}

int master_send_hello(struct master *m, struct child *c, struct complaint *why)
{
	struct gift g = {.n = 0};
	char paths[2][1200], suffix[QID_SUFFIX_N + 1];
	size_t mark;
	buffer_init(&g.names, 4096);
	give_role(&g, m, c, paths);
	if (g.error != 0) {
		complain(why, g.what == NULL ? role_name(c->role) : g.what, 0, "cannot open: %s", strerror(g.error));
		for (size_t i = 0; i < g.n; i++)
			(void)close(g.fds[i]);
		buffer_free(&g.names);
		return g.error;
	}
	qid_suffix(m->node, m->epoch, c->instance, suffix);
	struct msg_hello hello = {.instance = c->instance, .epoch = m->epoch,
		.flags = (m->root ? PROC_ROOT : 0u) | (m->sanitized ? PROC_SANITIZED : 0u),
		.server = span_of(c->server == NO_SERVER ? "" : m->config.servers[c->server].name),
		.suffix = span_of(suffix), .names = buffer_span(&g.names)};
	channel_begin(c->channel, MSG_hello, &mark);
	msg_hello_put(&c->channel->out, &hello);
	channel_end_fds(c->channel, mark, g.fds, g.n);
	channel_flush(c->channel);
	buffer_free(&g.names);
	return 0;
}
