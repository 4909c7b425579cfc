/* ATRN (RFC 2645): the client, who has logged in, becomes the server.  Its connection stays here, with its TLS; what smtp says
 * to it, and what it answers, passes through a pair of sockets. */
#include "worker.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const struct span no_detail = {"", 0};

bool turn_is_offered(const struct session *s)
{
	const struct server *server = &s->worker->proc.config.servers[s->server];
	for (size_t i = 0; i < server->domains_n; i++)
		if (server->domains[i].p.atrn_users[0] != '\0')
			return true;
	return false;
}

/* "*.example.org" as a node: all below it. */
static void put_section(struct buffer *nodes, const struct domain *d)
{
	bool wild = d->name[0] == '*';
	buffer_printf(nodes, "%s%s%s", nodes->n > 0 ? " " : "", wild ? "@" : "", wild ? d->name + 2 : d->name);
}

/* The domains that are asked for; without any all that the login may take.  False: one of them is not for it. */
static bool put_nodes(const struct session *s, struct span args, struct buffer *nodes)
{
	const struct server *server = &s->worker->proc.config.servers[s->server];
	struct span name, login = span_of(s->login->name);
	bool good = true;
	if (args.n == 0) {
		for (size_t i = 0; i < server->domains_n; i++)
			if (domain_may_be_taken(&server->domains[i], login))
				put_section(nodes, &server->domains[i]);
	}
	while (args.n > 0 && good) {
		name = span_trim(span_until(&args, ','));
		good = domain_is_valid(name, false) && route_may_take(server, name, login);
		buffer_printf(nodes, "%s%.*s", nodes->n > 0 ? " " : "", SPAN_ARG(name));
	}
	return good && nodes->n > 0 && buffer_ok(nodes);
}

static void unlink_turn(struct session_turn *t)
{
	struct session_turn **p = &t->session->worker->turns;
	while (*p != NULL && *p != t)
		p = &(*p)->next;
	if (*p != NULL)
		*p = t->next;
}

void turn_forget(struct session *s)
{
	struct session_turn *t = s->turn;
	struct channel *qmgr = s->worker->servers[s->server].qmgr;
	if (t == NULL)
		return;
	if (qmgr != NULL)
		send_turn_over(qmgr, (struct msg_turn_over){.serial = t->serial}, -1);
	unlink_turn(t);
	if (t->readable != NULL)
		event_free(t->readable);
	if (t->writable != NULL)
		event_free(t->writable);
	if (t->fd >= 0)
		(void)close(t->fd);
	free(t);
	s->turn = NULL;
}

static enum reply ask_qmgr(struct session *s, struct span nodes)
{
	struct worker *w = s->worker;
	struct channel *qmgr = w->servers[s->server].qmgr;
	int ends[2];
	struct session_turn *t = qmgr == NULL ? NULL : calloc(1, sizeof *t);
	if (t == NULL || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) {
		free(t);
		return REPLY_TURN_UNABLE;
	}
	*t = (struct session_turn){.session = s, .serial = ++w->questions, .fd = ends[0], .next = w->turns};
	w->turns = s->turn = t;
	send_turn(qmgr, (struct msg_turn){.serial = t->serial, .nodes = nodes, .login = span_of(s->login->name),
		.proof = {(const char *)s->login->proof, sizeof s->login->proof}, .client = span_of(s->address), .tls = s->ssl != NULL}, ends[1]);
	s->state = ST_ASKING;
	return REPLY_COUNT;
}

void turn_command(struct session *s, struct span args)
{
	struct buffer nodes;
	enum reply r;
	buffer_init(&nodes, 32 * 1024);
	if (!turn_is_offered(s))
		r = REPLY_NOT_IMPLEMENTED;
	else if (!session_has_login(s)) /* RFC 2645 4.1 */
		r = REPLY_AUTH_NEEDED;
	else if (!put_nodes(s, args, &nodes))
		r = REPLY_TURN_REFUSED;
	else
		r = ask_qmgr(s, buffer_span(&nodes));
	buffer_free(&nodes);
	if (r != REPLY_COUNT)
		session_reply(s, r, no_detail);
}

/* ---- both ways ---- */

static void want(struct event *e, bool *wanted, bool want)
{
	if (*wanted == want)
		return;
	*wanted = want;
	if (want)
		(void)event_add(e, NULL);
	else
		(void)event_del(e);
}

size_t turn_pass(struct session *s, struct span in)
{
	struct session_turn *t = s->turn;
	ssize_t n = send(t->fd, in.at, in.n, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		s->quit = true;
		return in.n;
	}
	want(t->writable, &t->wants_write, n < 0 || (size_t)n < in.n);
	session_arm(s);
	return n < 0 ? 0 : (size_t)n;
}

void turn_look(struct session *s)
{
	want(s->turn->readable, &s->turn->wants_read, s->out.n < OUTPUT_LIMIT / 2 && !s->quit);
}

/* May free the session. */
static void on_pair(int fd, short what, void *context)
{
	struct session *s = context;
	if ((what & EV_READ) != 0) {
		ssize_t n = recv(fd, s->worker->scratch, sizeof s->worker->scratch, MSG_DONTWAIT);
		if (n > 0)
			buffer_put(&s->out, s->worker->scratch, (size_t)n);
		else if (n == 0 || (errno != EAGAIN && errno != EINTR))
			s->quit = true; /* smtp has said QUIT, or is gone */
		session_arm(s);
	}
	session_run(s);
}

/* ---- the answer ---- */

static bool watch(struct session *s)
{
	struct session_turn *t = s->turn;
	struct event_base *base = s->worker->proc.base;
	t->readable = event_new(base, t->fd, EV_READ | EV_PERSIST, on_pair, s);
	t->writable = event_new(base, t->fd, EV_WRITE | EV_PERSIST, on_pair, s);
	return t->readable != NULL && t->writable != NULL;
}

static void take_answer(struct session *s, int status)
{
	enum reply r = status == 0 ? REPLY_TURN_OK : status == ENOENT ? REPLY_TURN_EMPTY : status == EPERM ? REPLY_TURN_REFUSED : REPLY_TURN_UNABLE;
	s->state = ST_COMMAND;
	session_arm(s);
	if (status == 0 && !watch(s))
		r = REPLY_TURN_UNABLE;
	LOG(&s->worker->proc.log, turn, NO_ID, F("client", span_of(s->address)), F("sasl_username", span_of(s->login->name)), F("reply", span_of(reply_row(r)->text)));
	session_reply(s, r, no_detail);
	if (r == REPLY_TURN_OK)
		s->state = ST_TURNED;
	else
		turn_forget(s);
	session_run(s);
}

static struct session *find(struct worker *w, uint64_t serial)
{
	struct session_turn *t = w->turns;
	while (t != NULL && t->serial != serial)
		t = t->next;
	return t == NULL || t->session->state != ST_ASKING ? NULL : t->session;
}

int turn_on_answer(struct channel *c, struct message *m)
{
	HANDLE(c, m, turn_answer, got);
	struct session *s = find(c->program, got.serial);
	if (s != NULL)
		take_answer(s, (int)got.status);
	return 0;
}

/* What is turned already goes on with smtp alone. */
void turn_qmgr_gone(struct worker *w, uint32_t server)
{
	struct session_turn *next;
	for (struct session_turn *t = w->turns; t != NULL; t = next) {
		next = t->next;
		if (t->session->server == server && t->session->state == ST_ASKING)
			take_answer(t->session, EAGAIN);
	}
}
