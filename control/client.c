#include "control.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

struct client *client_find(struct control *c, uint64_t serial)
{
	struct client *cl = c->clients;
	while (cl != NULL && cl->serial != serial)
		cl = cl->next;
	return cl;
}

void client_close(struct client *cl)
{
	struct client **p = &cl->control->clients;
	while (*p != cl)
		p = &(*p)->next;
	*p = cl->next;
	free(cl->line);
	cl->control->clients_n--;
	event_free(cl->readable);
	event_free(cl->writable);
	(void)close(cl->fd);
	buffer_free(&cl->in);
	buffer_free(&cl->out);
	free(cl);
}

static void flush(struct client *cl)
{
	while (cl->out.n > 0) {
		ssize_t n = send(cl->fd, cl->out.at, cl->out.n, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN) {
			(void)event_add(cl->writable, NULL);
			return;
		}
		if (n < 0) {
			client_close(cl);
			return;
		}
		buffer_drop(&cl->out, (size_t)n);
	}
	(void)event_del(cl->writable);
	if (cl->finished) {
		client_close(cl);
		return;
	}
	if (cl->credit_due && cl->waiting != NULL) {
		cl->credit_due = false;
		send_queue_credit(cl->waiting, (struct msg_queue_credit){.serial = cl->serial}, -1);
	}
}

void client_row(struct client *cl, struct span row)
{
	if (row.n == 0)
		cl->credit_due = true;
	buffer_put_span(&cl->out, row);
	if (row.n > 0 && row.at[0] == '{')
		buffer_putc(&cl->out, '\n');
	flush(cl);
}

void client_finish(struct client *cl, uint32_t status, struct span text)
{
	if (cl->recorded)
		operator_record(cl, status, text);
	buffer_printf(&cl->out, "\n= %u ", status);
	buffer_put_span(&cl->out, text);
	buffer_putc(&cl->out, '\n');
	cl->finished = true;
	cl->waiting = NULL;
	flush(cl);
}

void client_channel_gone(struct control *c, const struct channel *ch)
{
	struct client *next;
	for (struct client *cl = c->clients; cl != NULL; cl = next) {
		next = cl->next;
		if (cl->waiting == ch)
			client_finish(cl, EX_TEMPFAIL, SPAN_LIT("the queue's process is being replaced; try again"));
	}
}

static void ask_master(struct client *cl, struct span act, struct span args)
{
	if (cl->control->proc.control == NULL)
		return;
	send_admin(cl->control->proc.control, (struct msg_admin){.serial = cl->serial, .act = act, .args = args}, -1);
}

static void ask_qmgr(struct client *cl, struct span act, struct span server, struct span argument)
{
	struct control *c = cl->control;
	const struct server *s = config_server(&c->proc.config, server);
	if (s == NULL) {
		client_finish(cl, EX_USAGE, SPAN_LIT("no such server"));
		return;
	}
	if (span_is(act, "explain")) {
		explain_run(cl, (uint32_t)(s - c->proc.config.servers), argument);
		return;
	}
	struct channel *q = c->qmgrs[s - c->proc.config.servers];
	if (q == NULL && c->stopped[s - c->proc.config.servers]) {
		client_finish(cl, EX_UNAVAILABLE, SPAN_LIT("the server is stopped; posthorn start with its name starts it"));
		return;
	}
	if (q == NULL) {
		client_finish(cl, EX_TEMPFAIL, SPAN_LIT("the queue's process is being replaced; try again"));
		return;
	}
	cl->waiting = q;
	send_queue_act(q, (struct msg_queue_act){.serial = cl->serial, .act = act, .args = argument}, -1);
}

static bool only_looks(struct span act)
{
	return span_is(act, "status") || span_is(act, "list") || span_is(act, "show") || span_is(act, "cat") || span_is(act, "why") || span_is(act, "explain");
}

/* An operator's request, of its own servers alone; an act on the service is root's. */
static bool may(struct client *cl, struct span act, struct span server, struct span argument)
{
	static const char *const on_names[] = {"start", "stop", "pause", "resume"};
	for (size_t i = 0; i < COUNT_OF(on_names); i++) {
		if (!span_is(act, on_names[i]))
			continue;
		struct span names = argument;
		bool all = span_trim(names).n > 0;
		for (struct span name; (name = span_word(&names, " ")).n > 0;)
			all = all && operator_has(cl, name);
		return all;
	}
	if (span_is(act, "reload"))
		return false;
	if (span_is(act, "edit"))
		return operator_has(cl, span_word(&argument, " "));
	return span_is(act, "status") ? cl->servers[0] != '\0' : operator_has(cl, server);
}

static void refuse(struct client *cl, struct span act)
{
	char user[32];
	(void)snprintf(user, sizeof user, "%u", (unsigned)cl->uid);
	LOG(&cl->control->proc.log, refused, NO_ID, F("act", act), F("uid", span_of(user)), F("user", operator_name(cl)), F("server", span_of(cl->servers[0] == '\0' ? "none" : cl->servers)));
	client_finish(cl, EX_NOPERM, cl->servers[0] == '\0' ? SPAN_LIT("only root, the mail owner and a server's operators may do this") : SPAN_LIT("an operator may do this to the servers that are his or hers, by name, and to no other"));
}

void client_run(struct client *cl)
{
	struct span line = span_of(cl->line), act = span_word(&line, " "), server = span_word(&line, " "), argument = span_trim(line);
	char user[32];
	if (!cl->is_admin && !may(cl, act, server, argument)) {
		refuse(cl, act);
		return;
	}
	if (!only_looks(act)) {
		(void)snprintf(user, sizeof user, "%u", (unsigned)cl->uid);
		LOG(&cl->control->proc.log, act, NO_ID, F("act", act), F("server", server), F("argument", argument), F("uid", span_of(user)), F("user", operator_name(cl)));
		cl->recorded = true;
	}
	if (span_is(act, "status"))
		ask_master(cl, act, cl->is_admin ? (struct span){"", 0} : span_of(cl->servers));
	else if (span_is(act, "reload") || span_is(act, "pause") || span_is(act, "resume") || span_is(act, "start") || span_is(act, "stop") || span_is(act, "edit"))
		ask_master(cl, act, argument);
	else
		ask_qmgr(cl, act, server, argument);
}

/* root, mail_owner, and in a private instance its user may all; who others are is asked for each request. */
static void run_request(struct client *cl, struct span line)
{
	struct control *c = cl->control;
	cl->asked = true;
	cl->line = span_dup(line);
	if (cl->line == NULL) {
		client_finish(cl, EX_OSERR, SPAN_LIT("not enough memory"));
		return;
	}
	cl->is_admin = cl->uid == 0 || cl->uid == c->owner_uid;
	if (cl->is_admin || !operator_ask(cl))
		client_run(cl);
}

static void on_readable(int fd, short what, void *context)
{
	struct client *cl = context;
	char block[1024];
	ssize_t n = recv(fd, block, sizeof block, MSG_DONTWAIT);
	(void)what;
	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		client_close(cl);
		return;
	}
	if (cl->asked)
		return;
	buffer_put(&cl->in, block, (size_t)n);
	struct span rest = buffer_span(&cl->in);
	if (!buffer_ok(&cl->in))
		client_finish(cl, EX_USAGE, SPAN_LIT("the request is too long"));
	else if (memchr(rest.at, '\n', rest.n) != NULL)
		run_request(cl, span_until(&rest, '\n'));
}

static void on_writable(int fd, short what, void *context)
{
	(void)fd;
	(void)what;
	flush(context);
}

void client_open(struct control *c, int fd)
{
	struct client *cl = calloc(1, sizeof *cl);
	struct ucred peer = {.uid = (uid_t)-1};
	socklen_t n = sizeof peer;
	if (cl == NULL || c->clients_n >= CLIENTS_MOST || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) != 0) {
		free(cl);
		(void)close(fd);
		return;
	}
	*cl = (struct client){.control = c, .fd = fd, .serial = ++c->serial, .uid = peer.uid};
	buffer_init(&cl->in, REQUEST_LIMIT);
	buffer_init(&cl->out, 64 * 1024 * 1024);
	cl->readable = event_new(c->proc.base, fd, EV_READ | EV_PERSIST, on_readable, cl);
	cl->writable = event_new(c->proc.base, fd, EV_WRITE | EV_PERSIST, on_writable, cl);
	cl->next = c->clients;
	c->clients = cl;
	c->clients_n++;
	if (cl->readable != NULL)
		(void)event_add(cl->readable, NULL);
}
