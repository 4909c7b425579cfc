/* front: takes connections for all servers and hands them to workers.
 * User: posthorn-in.
 * May: accept on inherited listeners, write one refusal line into a new connection, read the PROXY header of a front end that
 * proxy_clients names.
 * Never: read anything else from a connection, open a file, connect. */
#include "front.h"

#include <stdlib.h>
#include <unistd.h>
#include <sysexits.h>

const struct log_event log_events[] = {
#define EVENT(name, level, meaning, action) {#name, level, meaning, action},
#include "events.def"
#undef EVENT
};

static struct front front;
static const struct confinement rights = {.user_suffix = "in", .calls = CALLS_ACCEPT, .files = 65536};

static int on_session_closed(struct channel *c, struct message *m)
{
	HANDLE(c, m, session_closed, closed);
	struct front *f = c->program;
	if (closed.session < f->sessions_n && f->sessions[closed.session].used && f->sessions[closed.session].worker == c)
		front_end_session(f, closed.session);
	return 0;
}

/* Nobody is let in before all workers have said how many are in already; one that says nothing holds up no other for long. */
static void open_in(struct front *f, time_t seconds, suseconds_t us)
{
	struct timeval tv = {.tv_sec = seconds, .tv_usec = us};
	if (!f->is_open)
		(void)event_add(f->open, &tv);
}

static void on_open(int fd, short what, void *context)
{
	struct front *f = context;
	bool any = false;
	(void)fd;
	(void)what;
	for (const struct channel *w = f->workers; w != NULL; w = w->next)
		any = any || ((const struct front_worker *)w->peer_state)->reported;
	if (!any) { /* meanwhile the backlog waits */
		open_in(f, 1, 0);
		return;
	}
	f->is_open = true;
	for (struct front_listener *l = f->listeners; l != NULL; l = l->next)
		(void)event_add(l->event, NULL); /* what waits in the backlog is served now */
}

/* The last of what a worker holds has been told. */
static void has_reported(struct front *f, struct front_worker *state)
{
	if (state->reported)
		return;
	state->reported = true;
	for (const struct channel *w = f->workers; w != NULL; w = w->next)
		if (!((const struct front_worker *)w->peer_state)->reported)
			return;
	open_in(f, 0, 20000); /* another worker's link may be on its way */
}

static int on_sessions_held(struct channel *c, struct message *m)
{
	HANDLE(c, m, sessions_held, held);
	struct front *f = c->program;
	struct front_worker *state = c->peer_state;
	if (held.server >= SERVERS_MOST)
		return EBADMSG;
	front_take_held(f, c, held.server, held.n);
	if (held.server + 1 == state->servers)
		has_reported(f, c->peer_state);
	return 0;
}

enum { CLOSING_ROUNDS = 64 }; /* of 64 connections: a backlog; who goes on connecting does not hold it up */

/* Who waits in its backlog is answered still. */
static void close_listener(struct front *f, struct front_listener *l)
{
	int fd = event_get_fd(l->event), rounds = CLOSING_ROUNDS;
	while (f->is_open && rounds-- > 0 && front_accept(f, fd, l))
		;
	event_free(l->event);
	(void)close(fd);
	free(l);
}

static void close_listeners(struct front *f, uint32_t server)
{
	for (struct front_listener **p = &f->listeners; *p != NULL;) {
		struct front_listener *l = *p;
		if (l->server != server) {
			p = &l->next;
			continue;
		}
		*p = l->next;
		close_listener(f, l);
	}
}

static int on_listener_closed(struct channel *c, struct message *m)
{
	HANDLE(c, m, listener_closed, said);
	struct front *f = ((struct process *)c->program)->program;
	for (struct front_listener **p = &f->listeners, *l; (l = *p) != NULL; p = &l->next) {
		if (l->number != said.number)
			continue;
		*p = l->next;
		close_listener(f, l);
		break;
	}
	return 0;
}

static int on_server_state(struct channel *c, struct message *m)
{
	HANDLE(c, m, server_state, said);
	struct front *f = ((struct process *)c->program)->program;
	if (said.server >= f->proc.config.servers_n || said.state > SERVER_CUT)
		return EBADMSG;
	f->servers[said.server].state = (enum server_state)said.state;
	f->servers[said.server].serial = said.serial;
	if (said.state >= SERVER_STOPPED)
		close_listeners(f, said.server);
	front_report_soon(f);
	return 0;
}

static int on_retire(struct channel *c, struct message *m)
{
	HANDLE(c, m, retire, said);
	struct front *f = ((struct process *)c->program)->program;
	for (struct channel *w = f->workers; w != NULL; w = w->next) {
		if (w->instance != said.instance)
			continue;
		((struct front_worker *)w->peer_state)->retiring = true;
		send_worker_retire(w, (struct msg_worker_retire){.limit_ms = said.limit_ms}, -1); /* after all that it has been given */
	}
	return 0;
}

static int on_rate_query(struct channel *c, struct message *m)
{
	HANDLE(c, m, rate_query, query);
	struct front *f = c->program;
	if (query.kind >= RATE_KINDS)
		return EBADMSG;
	bool known = query.session < f->sessions_n && f->sessions[query.session].used && f->sessions[query.session].worker == c;
	bool over = known && front_rate_is_over(f, query.session, (enum rate_kind)query.kind);
	send_rate_answer(c, (struct msg_rate_answer){.session = query.session, .over = over}, -1);
	return 0;
}

static void worker_gone(struct channel *c, int reason)
{
	struct front *f = c->program;
	struct channel **p = &f->workers;
	(void)reason;
	while (*p != NULL && *p != c)
		p = &(*p)->next;
	if (*p != NULL)
		*p = c->next;
	front_end_worker(f, c);
	free(c->peer_state);
	c->peer_state = NULL;
}

static void authd_gone(struct channel *c, int reason)
{
	struct front *f = c->program;
	(void)reason;
	if (f->authd == c)
		f->authd = NULL;
}

static const struct channel_owner authd_owner = {.handlers = {[MSG_client_query] = front_on_client_query}, .gone = authd_gone};
static const struct channel_owner owner = {.handlers = {[MSG_session_closed] = on_session_closed, [MSG_rate_query] = on_rate_query,
		[MSG_sessions_held] = on_sessions_held, [MSG_session_client] = front_on_session_client}, .gone = worker_gone};

static void linked(struct process *p, enum role role, uint32_t instance, uint32_t server, pid_t pid, int fd)
{
	struct front *f = p->program;
	struct channel *c = channel_make(p->base, fd, R_FRONT, role, role == R_AUTHD ? &authd_owner : &owner, f);
	if (c == NULL)
		return;
	if (role == R_AUTHD) {
		channel_close(f->authd);
		f->authd = c;
		return;
	}
	c->peer_state = calloc(1, sizeof(struct front_worker) + SERVERS_MOST * sizeof(uint32_t));
	if (c->peer_state == NULL) {
		channel_close(c);
		return;
	}
	((struct front_worker *)c->peer_state)->servers = (uint32_t)p->config.servers_n; /* as the worker has them, which hears of this link now too */
	c->instance = instance;
	c->server = server;
	c->pid = pid;
	c->next = f->workers;
	f->workers = c;
	if (event_pending(f->open, EV_TIMEOUT, NULL) == 0)
		open_in(f, 1, 0);
}

static void on_connection(int fd, short what, void *context)
{
	struct front_listener *l = context;
	(void)what;
	(void)front_accept(l->front, fd, l);
}

static void on_report(int fd, short what, void *context)
{
	struct front *f = context;
	(void)fd;
	(void)what;
	f->report_due = false;
	for (uint32_t i = 0; i < f->proc.config.servers_n && f->proc.control != NULL; i++)
		send_count(f->proc.control, (struct msg_count){.server = i, .n = f->servers[i].sessions, .serial = f->servers[i].serial}, -1);
}

/* Connections whose PROXY header is awaited are nobody else's. */
static void end_if_idle(int fd, short what, void *context)
{
	struct front *f = context;
	struct timeval soon = {.tv_usec = 10000};
	(void)fd;
	(void)what;
	if (f->proxied_n > 0 && clock_mono_ms() < f->stop_ms && event_base_once(f->proc.base, -1, EV_TIMEOUT, end_if_idle, f, &soon) == 0)
		return;
	for (struct channel *w = f->workers; w != NULL; w = w->next) /* the last that were let in */
		channel_flush(w);
	proc_done(&f->proc);
}

static void stop(struct process *p, uint32_t grace_ms)
{
	struct front *f = p->program;
	(void)grace_ms;
	if (f->stopping)
		return;
	f->stopping = true;
	for (struct front_listener *l = f->listeners; l != NULL; l = l->next) /* who waits is a successor's, if there is one */
		(void)event_del(l->event);
	f->stop_ms = clock_mono_ms() + PROXY_HEADER_S * 1000;
	end_if_idle(-1, 0, f);
}

static int read_lists(struct front *f)
{
	for (size_t i = 0; i < f->proc.config.servers_n; i++) {
		const struct server_params *p = &f->proc.config.servers[i].p;
		struct front_server *s = &f->servers[i];
		if (client_list_replace(&s->trusted, p->trusted_networks) != 0 || client_list_replace(&s->access, p->access_exceptions) != 0 ||
			client_list_replace(&s->proxies, p->proxy_clients) != 0 || client_list_replace(&s->xclients, p->xclient_clients) != 0 ||
			rate_parse(span_of(p->client_connection_rate), &s->rates[RATE_CONNECTIONS]) != 0 ||
			rate_parse(span_of(p->client_message_rate), &s->rates[RATE_MESSAGES]) != 0 ||
			rate_parse(span_of(p->client_recipient_rate), &s->rates[RATE_RECIPIENTS]) != 0)
			return ENOMEM;
	}
	return 0;
}

static void reloaded(struct process *p, const struct config *old)
{
	(void)old;
	(void)!read_lists(p->program);
	front_find_shared(p->program);
}

static int on_listener(struct channel *c, struct message *m)
{
	HANDLE(c, m, listener, said);
	static const uint32_t flags[] = {[LISTEN_PLAIN] = 0, [LISTEN_TLS] = SESSION_TLS, [LISTEN_SUBMISSION] = SESSION_SUBMISSION};
	struct front *f = ((struct process *)c->program)->program;
	if (m->fds_n != 1 || said.server >= f->proc.config.servers_n || said.kind >= COUNT_OF(flags))
		return EBADMSG;
	struct front_listener *l = calloc(1, sizeof *l);
	if (l == NULL)
		return ENOMEM;
	*l = (struct front_listener){.number = said.number, .server = said.server, .flags = flags[said.kind], .port = (uint16_t)said.port, .any = said.any != 0, .front = f, .next = f->listeners};
	l->event = event_new(f->proc.base, m->fds[0], EV_READ | EV_PERSIST, on_connection, l);
	if (l->event == NULL) {
		free(l);
		return ENOMEM;
	}
	m->fds[0] = -1; /* taken */
	f->listeners = l;
	front_find_shared(f);
	return f->is_open && event_add(l->event, NULL) != 0 ? ENOMEM : 0;
}

int main(void)
{
	struct complaint why;
	struct front *f = &front;
	if (proc_begin(&f->proc, R_FRONT, &why) != 0)
		return proc_fail(&f->proc, EX_CONFIG, &why);
	f->proc.program = f;
	f->proc.linked = linked;
	f->proc.stop = stop;
	f->proc.reloaded = reloaded;
	proc_handle(&f->proc, MSG_server_state, on_server_state);
	proc_handle(&f->proc, MSG_retire, on_retire);
	proc_handle(&f->proc, MSG_listener, on_listener);
	proc_handle(&f->proc, MSG_listener_closed, on_listener_closed);
	f->servers = calloc(SERVERS_MOST, sizeof *f->servers);
	f->report = event_new(f->proc.base, -1, 0, on_report, f);
	f->open = event_new(f->proc.base, -1, 0, on_open, f);
	if (f->servers == NULL || f->report == NULL || f->open == NULL || fill_random(&f->secret, sizeof f->secret) != 0 || read_lists(f) != 0) {
		complain(&why, "front", 0, "cannot set up its tables");
		return proc_fail(&f->proc, EX_OSERR, &why);
	}
	if (proc_confine(&f->proc, &rights, NULL, 0, NULL, &why) != 0)
		return proc_fail(&f->proc, EX_OSERR, &why);
	return proc_run(&f->proc);
}
