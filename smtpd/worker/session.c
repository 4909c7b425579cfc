#include "worker.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void list_remove(struct session *s)
{
	struct worker_server *ws = &s->worker->servers[s->server];
	*(s->older != NULL ? &s->older->newer : &ws->oldest) = s->newer;
	*(s->newer != NULL ? &s->newer->older : &ws->newest) = s->older;
	s->older = s->newer = NULL;
}

static void list_append(struct session *s)
{
	struct worker_server *ws = &s->worker->servers[s->server];
	s->older = ws->newest;
	s->newer = NULL;
	*(ws->newest != NULL ? &ws->newest->newer : &ws->oldest) = s;
	ws->newest = s;
}

/* All sessions of a server have one time limit, so the list stays sorted by moving to its end:
 * a re-armed timer costs four pointers, not a timer. */
void session_arm(struct session *s)
{
	s->deadline_ms = clock_mono_ms() + session_params(s)->connection_timeout * 1000;
	s->progress = 0;
	list_remove(s);
	list_append(s);
}

void session_put(struct session *s, enum reply r, struct span detail)
{
	reply_put(&s->out, r, detail);
	if (reply_row(r)->code < 500)
		return;
	s->errors++;
	s->slow_down = s->slow_down || (!s->trusted && (int64_t)s->errors >= session_params(s)->error_soft_limit);
}

void session_reply(struct session *s, enum reply r, struct span detail)
{
	session_put(s, r, detail);
	if (reply_row(r)->code >= 550)
		LOG(&s->worker->proc.log, refused_command, NO_ID, F("client", span_of(s->address)),
			F("reply", span_of(reply_row(r)->text)), F("detail", detail));
}

void session_reset(struct session *s)
{
	struct transaction *t = s->t;
	if (s->phase > PHASE_GREETED)
		s->phase = PHASE_GREETED;
	if (t == NULL)
		return;
	screen_forget(s);
	submit_forget(s);
	s->worker->content_bytes -= t->content.n;
	arena_free(&t->arena);
	free(t->rcpts);
	buffer_free(&t->content);
	buffer_free(&t->received);
	free(t);
	s->t = NULL;
}

static int make_events(struct session *s)
{
	s->readable = event_new(s->worker->proc.base, s->fd, EV_READ | EV_PERSIST, session_on_event, s);
	return s->readable != NULL && event_add(s->readable, NULL) == 0 ? 0 : ENOMEM;
}

void session_name_client(struct session *s)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)&s->client;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&s->client;
	if (s->client.ss_family == AF_INET)
		(void)inet_ntop(AF_INET, &v4->sin_addr, s->address, sizeof s->address);
	else
		(void)inet_ntop(AF_INET6, &v6->sin6_addr, s->address, sizeof s->address);
}

void session_put_greeting(struct session *s)
{
	struct buffer name;
	buffer_init(&name, 512);
	buffer_puts(&name, session_params(s)->fqdn);
	buffer_puts(&name, " ESMTP Posthorn");
	reply_put(&s->out, REPLY_GREETING, buffer_span(&name));
	buffer_free(&name);
}

void session_greet(struct session *s, bool refused, struct span why)
{
	char peek[1];
	/* RFC 5321 3.1: the client waits for the greeting; who does not is no mail server */
	if (refused) {
		session_put(s, REPLY_SCREEN_REJECTED, why);
		s->quit = true;
	} else if (s->in.n > 0 || (s->ssl != NULL ? SSL_has_pending(s->ssl) == 1 : recv(s->fd, peek, 1, MSG_PEEK | MSG_DONTWAIT) > 0)) {
		session_reply(s, REPLY_EARLY_TALKER, (struct span){"", 0});
		s->quit = true;
	} else {
		session_put_greeting(s);
	}
	session_run(s);
}

void session_welcome(struct session *s)
{
	if (screen_is_needed(s, ASK_CLIENT))
		screen_ask(s, ASK_CLIENT, span_of(s->address), true);
	else
		session_greet(s, false, (struct span){"", 0});
}

void session_begin(struct session *s)
{
	if (s->decide_by_name)
		client_check_access(s);
	else
		session_welcome(s);
}

/* Without a certificate there is nothing that could be said. */
static void open_with_tls(struct session *s)
{
	if (s->worker->servers[s->server].tls != NULL)
		session_start_tls(s);
	if (s->ssl == NULL)
		session_free(s);
}

void session_let_in(struct session *s)
{
	if (s->awaits_keys) {
		s->awaits_keys = s->paused = false;
		(void)event_add(s->readable, NULL);
	}
	if (s->early_tls)
		open_with_tls(s);
	else
		session_begin(s);
}

void session_open(struct worker *w, const struct msg_session_open *open, int fd)
{
	struct session *s = calloc(1, sizeof *s);
	if (s == NULL || open->client.n > sizeof s->client || open->server >= w->proc.config.servers_n) {
		free(s);
		(void)close(fd);
		send_session_closed(w->front, (struct msg_session_closed){.session = open->session}, -1);
		return;
	}
	struct worker_server *ws = &w->servers[open->server];
	if ((int32_t)(open->serial - ws->serial) > 0) { /* front lets nobody in but to a server that runs */
		ws->serial = open->serial;
		ws->stopped = false;
	}
	*s = (struct session){.fd = fd, .number = open->session, .server = open->server, .worker = w, .state = ST_COMMAND, .phase = PHASE_START,
		.trusted = (open->flags & SESSION_TRUSTED) != 0, .early_tls = (open->flags & SESSION_TLS) != 0, .submission = (open->flags & SESSION_SUBMISSION) != 0,
		.decide_by_name = (open->flags & SESSION_NAME_DECIDES) != 0, .fronts = w->fronts};
	memcpy(&s->client, open->client.at, open->client.n);
	buffer_init(&s->in, INPUT_LIMIT);
	buffer_init(&s->out, OUTPUT_LIMIT);
	session_name_client(s);
	s->may_xclient = client_list_has(&w->servers[s->server].xclients, (const struct sockaddr *)&s->client);
	list_append(s);
	session_arm(s);
	if (w->sessions_n++ == 0) {
		struct timeval tv = {.tv_usec = 500000};
		(void)event_add(w->sweep, &tv);
	}
	if (make_events(s) != 0) {
		session_free(s);
	} else if (ws->stopped) { /* front let it in before it heard of that */
		s->stopping = true;
		if (!s->early_tls) {
			session_end(s, REPLY_SERVICE_DOWN);
			(void)session_write(s);
		}
		session_free(s);
	} else if (w->keys_known || session_params(s)->tls == TLS_NONE) {
		session_let_in(s);
	} else {
		session_rest(s);
		s->awaits_keys = true;
		s->opened_ms = clock_mono_ms();
	}
}

/* A socket closed with unread input resets the connection, and the peer may never see our last words. */
static void drop_input(struct session *s)
{
	size_t most = INPUT_LIMIT;
	ssize_t n;
	(void)shutdown(s->fd, SHUT_WR);
	while (most > 0 && (n = recv(s->fd, s->worker->scratch, sizeof s->worker->scratch, MSG_DONTWAIT)) > 0)
		most -= (size_t)n < most ? (size_t)n : most;
}

/* Another front than the one it came from has given its number to another. */
static void tell_front(const struct session *s)
{
	struct worker *w = s->worker;
	struct worker_server *ws = &w->servers[s->server];
	bool old = s->fronts != w->fronts;
	if (old)
		ws->held--;
	if (w->front != NULL && old)
		send_sessions_held(w->front, (struct msg_sessions_held){.server = s->server, .n = ws->held}, -1);
	else if (w->front != NULL)
		send_session_closed(w->front, (struct msg_session_closed){.session = s->number}, -1);
}

void session_free(struct session *s)
{
	struct worker *w = s->worker;
	screen_forget(s);
	client_forget(s);
	turn_forget(s);
	auth_forget(s);
	xclient_forget(s);
	keys_forget(s);
	session_reset(s);
	list_remove(s);
	if (s->readable != NULL)
		event_free(s->readable);
	if (s->writable != NULL)
		event_free(s->writable);
	if (s->tarpit != NULL)
		event_free(s->tarpit);
	tls_free(s->ssl);
	if (s->quit)
		drop_input(s);
	(void)close(s->fd);
	buffer_free(&s->in);
	buffer_free(&s->out);
	free(s->helo);
	tell_front(s);
	free(s);
	if (--w->sessions_n == 0) {
		(void)event_del(w->sweep);
		if (w->stopping || w->retiring)
			proc_done(&w->proc);
	}
}

void session_end(struct session *s, enum reply r)
{
	LOG(&s->worker->proc.log, session_ended_by_us, NO_ID, F("client", span_of(s->address)), F("reply", span_of(reply_row(r)->text)));
	reply_put(&s->out, r, (struct span){"", 0});
	s->quit = true;
}

static size_t line_limit(const struct session *s, struct span in)
{
	return s->state == ST_LOGIN || (in.n > 5 && span_case_is((struct span){in.at, 5}, "AUTH ")) ? LINE_LIMIT_AUTH : LINE_LIMIT;
}

/* In the midst of AUTH it ends that. */
static void refuse_line(struct session *s, enum reply r)
{
	if (s->state == ST_LOGIN)
		auth_bad_line(s, r == REPLY_LINE_LONG ? REPLY_AUTH_LONG : r);
	else
		session_reply(s, r, (struct span){"", 0});
}

static void run_line(struct session *s, struct span line)
{
	if (s->state == ST_LOGIN)
		auth_line(s, line);
	else
		command_run(s, line);
}

/* The next complete line of in, or what to do without one; returns the bytes used. */
static size_t take_line(struct session *s, struct span in)
{
	const char *lf = memchr(in.at, '\n', in.n);
	if (lf == NULL || (lf > in.at && lf[-1] != '\r') || (lf == in.at && in.n > 0)) {
		/* no line end yet, or a bare LF: RFC 5321 2.3.8 lets only CRLF end a line */
		const char *end = memmem(in.at, in.n, "\r\n", 2);
		if (end == NULL) {
			if (lf != NULL && !s->skipping_line) {
				refuse_line(s, REPLY_LINE_BARE);
				s->skipping_line = true;
			} else if (in.n > line_limit(s, in) && !s->skipping_line) {
				refuse_line(s, REPLY_LINE_LONG);
				s->skipping_line = true;
			}
			if (!s->skipping_line)
				return 0;
			/* a CR at the end may be half of a CRLF */
			return in.at[in.n - 1] == '\r' ? in.n - 1 : in.n;
		}
		lf = end + 1;
	}
	struct span line = {in.at, (size_t)(lf - in.at) - 1};
	bool skip = s->skipping_line;
	s->skipping_line = false;
	session_arm(s); /* a completed command re-arms; dripping bytes buy no time */
	if (skip)
		return line.n + 2;
	if (line.n > line_limit(s, line))
		refuse_line(s, REPLY_LINE_LONG);
	else if (memchr(line.at, '\n', line.n) != NULL || memchr(line.at, '\r', line.n) != NULL || memchr(line.at, '\0', line.n) != NULL)
		refuse_line(s, REPLY_LINE_BARE);
	else
		run_line(s, line);
	return line.n + 2;
}

/* Uses input until more is needed, an answer is waited for, or replies pile up. */
static size_t use_input(struct session *s, struct span in)
{
	size_t used = 0;
	while (used < in.n && !s->quit && !s->dead && !s->slow_down && s->out.n < OUTPUT_LIMIT / 2) {
		struct span rest = {in.at + used, in.n - used};
		size_t n = 0;
		switch (s->state) {
		case ST_COMMAND:
		case ST_LOGIN:
			/* what waits behind a command matters for those that must be alone */
			n = take_line(s, rest);
			break;
		case ST_BODY:
			n = body_take(s, rest);
			break;
		case ST_CHUNK:
			n = chunk_take(s, rest);
			break;
		case ST_TURNED:
			n = turn_pass(s, rest);
			break;
		case ST_HANDSHAKE:
		case ST_ASKING:
		case ST_COMMITTING:
		case ST_CLOSING:
		case ST_COUNT:
			return used;
		}
		if (n == 0)
			return used;
		used += n;
		const struct server_params *p = session_params(s);
		if (!s->trusted && (int64_t)s->errors >= p->error_limit)
			session_end(s, REPLY_ERRORS);
		else if (!s->trusted && (int64_t)s->junk >= p->junk_command_limit)
			session_end(s, REPLY_JUNK);
		else if (s->stopping && s->state == ST_COMMAND)
			session_end(s, REPLY_SHUTDOWN);
	}
	return used;
}

static void on_waited(int fd, short what, void *context)
{
	struct session *s = context;
	(void)fd;
	(void)what;
	event_free(s->tarpit);
	s->tarpit = NULL;
	s->slow_down = false;
	session_arm(s);
	session_run(s);
}

/* MISSION B6: a refusal is told late, and its session alone waits.  False: no memory for that. */
static bool wait_in_tarpit(struct session *s)
{
	struct timeval tv = {.tv_sec = (time_t)session_params(s)->tarpit_delay};
	s->tarpit = event_new(s->worker->proc.base, -1, 0, on_waited, s);
	if (s->tarpit != NULL && event_add(s->tarpit, &tv) == 0) {
		session_rest(s);
		return true;
	}
	if (s->tarpit != NULL)
		event_free(s->tarpit);
	s->tarpit = NULL;
	s->slow_down = false;
	return false;
}

/* Uses what is in the input and gives the buffer back when it is empty; how much it was. */
static size_t use_what_is_there(struct session *s)
{
	if (s->in.n == 0)
		return 0;
	size_t used = use_input(s, buffer_span(&s->in));
	buffer_drop(&s->in, used);
	if (s->in.n == 0)
		buffer_free(&s->in);
	return used;
}

void session_run(struct session *s)
{
	size_t used;
	if (s->tarpit != NULL)
		return;
	do { /* once more when only the room for replies was short, and they are out: no event would tell */
		used = use_what_is_there(s);
		if (s->slow_down && !s->quit && !s->dead && wait_in_tarpit(s))
			return;
		if (!session_write(s) || s->dead || (s->quit && s->out.n == 0)) {
			session_free(s);
			return;
		}
	} while (used > 0 && s->in.n > 0 && s->out.n < OUTPUT_LIMIT / 2);
	if (s->out.n == 0)
		buffer_free(&s->out);
	if (s->state == ST_TURNED)
		turn_look(s);
	/* not read: while an answer of ours is due, input is full, or the mover has no room for more */
	bool pause = s->in.n >= INPUT_LIMIT / 2 || s->out.n >= OUTPUT_LIMIT / 2 || ((s->state == ST_COMMITTING || s->state == ST_ASKING) && s->in.n > 0) ||
		(s->t != NULL && s->t->in_file && s->t->content.n > 2 * IPC_INLINE) || (s->is_asking && s->t != NULL && s->t->content.n > MEMORY_CONTENT + IPC_INLINE);
	if (pause != s->paused) {
		s->paused = pause;
		if (pause)
			(void)event_del(s->readable);
		else
			(void)event_add(s->readable, NULL);
	}
}

static void expire(struct session *s)
{
	if (s->state == ST_COMMITTING || s->state == ST_ASKING || s->tarpit != NULL) { /* our own delay is not the client's */
		session_arm(s);
		return;
	}
	if (s->state != ST_TURNED) { /* who is a client of ours no more gets no reply */
		session_end(s, REPLY_TIMEOUT);
		(void)session_write(s);
	}
	session_free(s);
}

void worker_sweep(int fd, short what, void *context)
{
	struct worker *w = context;
	int64_t now = clock_mono_ms();
	(void)fd;
	(void)what;
	screen_late(w, now);
	client_late(w, now);
	keys_late(w, now);
	for (size_t i = 0; i < w->proc.config.servers_n; i++)
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what is freed has left the list */
		while (w->servers[i].oldest != NULL && w->servers[i].oldest->deadline_ms <= now)
			expire(w->servers[i].oldest);
}

void worker_end_sessions(struct worker *w, uint32_t server)
{
	struct session *next;
	for (struct session *s = w->servers[server].oldest; s != NULL; s = next) {
		next = s->newer;
		s->stopping = true;
		if (s->awaits_keys) { /* nothing has been said to it, and where TLS comes first nothing could be */
			session_free(s);
			continue;
		}
		if (s->state == ST_COMMITTING || s->state == ST_TURNED) /* its true answer is on the way; smtp ends it */
			continue;
		session_reset(s);
		session_end(s, REPLY_SHUTDOWN);
		s->state = s->state == ST_HANDSHAKE ? ST_HANDSHAKE : ST_CLOSING;
		(void)session_write(s);
		session_free(s);
	}
}

int worker_on_server_state(struct channel *c, struct message *m)
{
	HANDLE(c, m, server_state, said);
	struct worker *w = ((struct process *)c->program)->program;
	if (said.server >= w->proc.config.servers_n)
		return EBADMSG;
	struct worker_server *ws = &w->servers[said.server];
	if ((int32_t)(said.serial - ws->serial) < 0) /* front has told of a newer one */
		return 0;
	ws->serial = said.serial;
	ws->stopped = said.state >= SERVER_STOPPED;
	if (said.state == SERVER_STOPPED)
		worker_end_sessions(w, said.server);
	while (said.state == SERVER_CUT && ws->oldest != NULL)
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what is freed has left the list */
		session_free(ws->oldest);
	return 0;
}
