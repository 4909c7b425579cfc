/* control: answers operators by peer credentials.
 * User: posthorn-ctl.
 * May: accept on the control socket; talk to master, qmgr, resolver, maps and sts.
 * Never: open a file, use the network. */
#include "control.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

const struct log_event log_events[] = {
#define EVENT(name, level, meaning, action) {#name, level, meaning, action},
#include "events.def"
#undef EVENT
};

static struct control control = {.socket_fd = -1};
static const struct confinement rights = {.user_suffix = "ctl", .calls = CALLS_ACCEPT | CALLS_SOCKET | CALLS_MEMFD, .files = 1024};

static int on_admin_done(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, admin_done, done);
	struct control *c = ((struct process *)ch->program)->program;
	struct client *cl = client_find(c, done.serial);
	if (cl == NULL)
		return 0;
	if (done.text.n > 0 && done.text.at[0] == '{') {
		client_row(cl, done.text);
		cl = client_find(c, done.serial);
		done.text.n = 0;
	}
	if (cl != NULL)
		client_finish(cl, done.status, done.text);
	return 0;
}

/* A large body comes as a descriptor. */
static void copy_file(struct client *cl, int fd)
{
	char block[65536];
	off_t at = 0;
	ssize_t n;
	while ((n = pread(fd, block, sizeof block, at)) > 0) {
		buffer_put(&cl->out, block, (size_t)n);
		at += n;
	}
}

static int on_row(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, queue_row, row);
	struct client *cl = client_find(ch->program, row.serial);
	if (cl == NULL)
		return 0;
	if (m->fds_n == 1)
		copy_file(cl, m->fds[0]);
	else
		client_row(cl, row.row);
	return 0;
}

static int on_done(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, queue_done, done);
	struct client *cl = client_find(ch->program, done.serial);
	if (cl != NULL)
		client_finish(cl, done.status, done.text);
	return 0;
}

static void peer_gone(struct channel *ch, int reason)
{
	struct control *c = ch->program;
	(void)reason;
	if (ch == c->resolver) {
		c->resolver = NULL;
		explain_resolver_gone(c);
		return;
	}
	if (ch == c->sts) {
		c->sts = NULL;
		explain_sts_gone(c);
		return;
	}
	if (ch == c->maps) {
		c->maps = NULL;
		explain_maps_gone(c);
		return;
	}
	client_channel_gone(c, ch);
	if (c->qmgrs[ch->server] == ch)
		c->qmgrs[ch->server] = NULL;
}

static const struct channel_owner owner = {.handlers = {[MSG_queue_row] = on_row, [MSG_queue_done] = on_done, [MSG_dns_answer] = explain_on_answer,
	[MSG_map_answer] = explain_on_map, [MSG_sts_answer] = explain_on_policy}, .gone = peer_gone};

static void linked(struct process *p, enum role role, uint32_t instance, uint32_t server, pid_t pid, int fd)
{
	struct control *c = p->program;
	struct channel *ch = role != R_RESOLVER && role != R_MAPS && role != R_STS && server >= p->config.servers_n ? NULL : channel_make(p->base, fd, R_CONTROL, role, &owner, c);
	if (ch == NULL)
		return;
	ch->instance = instance;
	ch->server = server;
	ch->pid = pid;
	struct channel **place = role == R_RESOLVER ? &c->resolver : role == R_MAPS ? &c->maps : role == R_STS ? &c->sts : &c->qmgrs[server], *old = *place;
	if (old != NULL) /* its successor came before the word that it is gone */
		peer_gone(old, 0);
	channel_close(old);
	*place = ch;
	if (role == R_MAPS)
		operator_ask_again(c); /* what the former one was asked */
}

static int on_server_state(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, server_state, said);
	struct control *c = ((struct process *)ch->program)->program;
	if (said.server >= SERVERS_MOST)
		return EBADMSG;
	c->stopped[said.server] = said.state >= SERVER_STOPPED;
	return 0;
}

static void reloaded(struct process *p, const struct config *old)
{
	(void)old;
	explain_end_all(p->program);
	operator_ask_again(p->program);
}

static void on_accept(int fd, short what, void *context)
{
	int client = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	(void)what;
	if (client >= 0)
		client_open(context, client);
}

int main(void)
{
	struct complaint why;
	struct control *c = &control;
	gid_t gid;
	if (proc_begin(&c->proc, R_CONTROL, &why) != 0)
		return proc_fail(&c->proc, EX_CONFIG, &why);
	c->proc.program = c;
	c->proc.linked = linked;
	c->proc.reloaded = reloaded;
	proc_handle(&c->proc, MSG_admin_done, on_admin_done);
	proc_handle(&c->proc, MSG_server_state, on_server_state);
	c->socket_fd = proc_fd(&c->proc, "socket");
	c->owner_uid = getuid();
	if ((c->proc.flags & PROC_ROOT) != 0)
		(void)!proc_default_uid(c->proc.config.service.mail_owner, "", &c->owner_uid, &gid);
	c->qmgrs = calloc(SERVERS_MOST, sizeof(struct channel *));
	c->accept = event_new(c->proc.base, c->socket_fd, EV_READ | EV_PERSIST, on_accept, c);
	c->reap = event_new(c->proc.base, -1, 0, explain_reap, c);
	if (c->reap == NULL || own_read(&c->own) != 0 || c->qmgrs == NULL || c->accept == NULL || event_add(c->accept, NULL) != 0)
		return proc_fail(&c->proc, EX_OSERR, &why);
	if (proc_confine(&c->proc, &rights, NULL, 0, NULL, &why) != 0)
		return proc_fail(&c->proc, EX_OSERR, &why);
	return proc_run(&c->proc);
}
