#include "front.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ACCEPTS_A_TURN = 64 };

void front_report_soon(struct front *f)
{
	struct timeval tv = {.tv_usec = 20000};
	if (f->report_due)
		return;
	f->report_due = true;
	(void)event_add(f->report, &tv);
}

/* A refusal needs no session: one write into an empty socket buffer never blocks. */
static void refuse(struct front *f, int fd, enum reply why, const struct sockaddr *sa, uint32_t flags, const char *limit)
{
	struct buffer line;
	char text[INET6_ADDRSTRLEN] = "";
	const void *addr = sa->sa_family == AF_INET ? (const void *)&((const struct sockaddr_in *)sa)->sin_addr
		: (const void *)&((const struct sockaddr_in6 *)sa)->sin6_addr;
	buffer_init(&line, 600);
	reply_put(&line, why, (struct span){"", 0});
	if ((flags & SESSION_TLS) == 0) /* who expects TLS learns nothing from a line of text */
		(void)!send(fd, line.at, line.n, MSG_DONTWAIT | MSG_NOSIGNAL);
	(void)shutdown(fd, SHUT_WR);
	(void)close(fd);
	buffer_free(&line);
	(void)inet_ntop(sa->sa_family, addr, text, sizeof text);
	LOG(&f->proc.log, refused, NO_ID, F("client", span_of(text)), F("limit", span_of(limit)));
}

static struct channel *pick_worker(struct front *f)
{
	struct channel *best = NULL;
	uint32_t fewest = UINT32_MAX;
	for (struct channel *w = f->workers; w != NULL; w = w->next) {
		const struct front_worker *state = w->peer_state;
		if (state->reported && !state->retiring && state->sessions + state->held_all < fewest) {
			fewest = state->sessions + state->held_all;
			best = w;
		}
	}
	return best;
}

static int new_session(struct front *f, uint32_t *number)
{
	for (uint32_t i = 0; i < f->sessions_n; i++) {
		uint32_t k = (f->free_hint + i) % f->sessions_n;
		if (!f->sessions[k].used) {
			*number = k;
			f->free_hint = k + 1;
			return 0;
		}
	}
	uint32_t n = f->sessions_n == 0 ? 256 : f->sessions_n * 2;
	struct front_session *more = realloc(f->sessions, n * sizeof *more);
	if (more == NULL)
		return ENOMEM;
	memset(more + f->sessions_n, 0, (n - f->sessions_n) * sizeof *more);
	*number = f->sessions_n;
	f->free_hint = f->sessions_n + 1;
	f->sessions = more;
	f->sessions_n = n;
	return 0;
}

/* MISSION B5, as far as the address alone decides. */
static bool access_is_denied(const struct front *f, uint32_t server, const struct sockaddr *sa, uint32_t *flags)
{
	enum listed listed = reverse_listed(&f->servers[server].access, sa, NULL);
	bool allow = f->proc.config.servers[server].p.access == 0;
	if (listed == LISTED_NEEDS_NAMES) {
		*flags |= SESSION_NAME_DECIDES;
		return false;
	}
	return (listed == LISTED_YES) == allow;
}

static bool is_counted(const struct front_server *s, const struct server_params *p)
{
	if (p->client_connection_limit != PARAM_UNLIMITED)
		return true;
	for (size_t i = 0; i < RATE_KINDS; i++)
		if (s->rates[i].n != PARAM_UNLIMITED)
			return true;
	return false;
}

void front_admit(struct front *f, int fd, const struct front_listener *l, const struct sockaddr *sa, socklen_t n)
{
	uint32_t server = l->server;
	const struct server_params *p = &f->proc.config.servers[server].p;
	struct front_server *fs = &f->servers[server];
	struct channel *worker = pick_worker(f);
	struct client_count *client = NULL;
	uint32_t number, flags = l->flags | (client_list_has(&fs->trusted, sa) ? SESSION_TRUSTED : 0u);
	enum reply why;
	const char *limit;
	if (worker == NULL) {
		refuse(f, fd, REPLY_SERVICE_DOWN, sa, flags, "stopping");
		return;
	}
	if (fs->state != SERVER_RUNS) {
		refuse(f, fd, REPLY_SERVICE_DOWN, sa, flags, fs->state == SERVER_PAUSED ? "paused" : "stopped");
		return;
	}
	if (access_is_denied(f, server, sa, &flags)) {
		refuse(f, fd, REPLY_ACCESS_DENIED, sa, flags, "access");
		return;
	}
	if ((int64_t)fs->sessions >= p->connection_limit) {
		refuse(f, fd, REPLY_TOO_MANY, sa, flags, "connection_limit");
		return;
	}
	if ((flags & SESSION_TRUSTED) == 0 && is_counted(fs, p)) {
		client = client_enter(f, server, sa, &why, &limit);
		if (client == NULL) {
			refuse(f, fd, why, sa, flags, limit);
			return;
		}
	}
	if (new_session(f, &number) != 0) {
		client_leave(f, client);
		refuse(f, fd, REPLY_TOO_MANY, sa, flags, "memory");
		return;
	}
	f->sessions[number] = (struct front_session){.server = server, .used = true, .trusted = (flags & SESSION_TRUSTED) != 0, .worker = worker, .client = client,
		.may_xclient = client_list_has(&fs->xclients, sa)};
	client_key(sa, f->sessions[number].network);
	fs->sessions++;
	((struct front_worker *)worker->peer_state)->sessions++;
	front_report_soon(f);
	send_session_open(worker, (struct msg_session_open){.session = number, .server = server, .flags = flags, .client = {(const char *)sa, n}, .serial = fs->serial}, fd);
}

static bool is_named_by(const struct server *s, uint16_t port, const struct sockaddr *local)
{
	struct listen_walk w = {0};
	struct endpoint e = {.port = 0};
	unsigned char mine[16], its[16];
	while (server_listen_next(s, &w, &e))
		if (!e.any && e.port == port && (local == NULL || (sockaddr_to_v6(local, mine) == 0 && sockaddr_to_v6((const struct sockaddr *)&e.addr, its) == 0 && memcmp(mine, its, 16) == 0)))
			return true;
	return false;
}

/* Does another server name this port's address local (NULL: any)?  That is its own even while it does not listen (MISSION A2). */
static bool is_of_another(const struct front *f, const struct front_listener *l, const struct sockaddr *local)
{
	bool found = false;
	for (uint32_t i = 0; i < f->proc.config.servers_n && !found; i++)
		found = i != l->server && is_named_by(&f->proc.config.servers[i], l->port, local);
	return found;
}

void front_find_shared(struct front *f)
{
	for (struct front_listener *l = f->listeners; l != NULL; l = l->next)
		l->shared = l->any && is_of_another(f, l, NULL);
}

static bool came_to_another(const struct front *f, const struct front_listener *l, int fd)
{
	struct sockaddr_storage local = {.ss_family = AF_UNSPEC};
	socklen_t n = sizeof local;
	return l->shared && getsockname(fd, (struct sockaddr *)&local, &n) == 0 && is_of_another(f, l, (const struct sockaddr *)&local);
}

bool front_accept(struct front *f, int listen_fd, const struct front_listener *l)
{
	for (int i = 0; i < ACCEPTS_A_TURN; i++) {
		struct sockaddr_storage sa = {.ss_family = AF_UNSPEC};
		socklen_t n = sizeof sa;
		int fd = accept4(listen_fd, (struct sockaddr *)&sa, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0) {
			if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
				LOG(&f->proc.log, accept_failed, NO_ID, F("reason", span_of(strerror(errno))));
			return false;
		}
		if (came_to_another(f, l, fd))
			refuse(f, fd, REPLY_SERVICE_DOWN, (struct sockaddr *)&sa, l->flags, "another server's address");
		else if (!client_list_has(&f->servers[l->server].proxies, (struct sockaddr *)&sa))
			front_admit(f, fd, l, (struct sockaddr *)&sa, n);
		else if (!proxy_begin(f, fd, l, &sa, n))
			refuse(f, fd, REPLY_TOO_MANY, (struct sockaddr *)&sa, l->flags, "memory");
	}
	return true;
}

void front_end_session(struct front *f, uint32_t number)
{
	if (number >= f->sessions_n || !f->sessions[number].used)
		return;
	struct front_session *s = &f->sessions[number];
	f->servers[s->server].sessions--;
	client_leave(f, s->client);
	if (s->worker != NULL)
		((struct front_worker *)s->worker->peer_state)->sessions--;
	*s = (struct front_session){.used = false};
	f->free_hint = number;
	front_report_soon(f);
}

bool front_rate_is_over(struct front *f, uint32_t number, enum rate_kind kind)
{
	struct client_count *c = f->sessions[number].client;
	return c != NULL && client_is_over(f, c, kind);
}

void front_take_held(struct front *f, const struct channel *worker, uint32_t server, uint32_t n)
{
	struct front_worker *state = worker->peer_state;
	f->servers[server].sessions += n;
	f->servers[server].sessions -= state->held[server];
	state->held_all += n - state->held[server];
	state->held[server] = n;
	front_report_soon(f);
}

void front_end_worker(struct front *f, const struct channel *worker)
{
	for (uint32_t i = 0; i < SERVERS_MOST; i++)
		if (((const struct front_worker *)worker->peer_state)->held[i] > 0)
			front_take_held(f, worker, i, 0);
	for (uint32_t i = 0; i < f->sessions_n; i++) {
		if (f->sessions[i].used && f->sessions[i].worker == worker) {
			f->sessions[i].worker = NULL;
			front_end_session(f, i);
		}
	}
}

/* The session's own client stays the one that may say it. */
static enum client_status change_client(struct front *f, struct front_session *s, const struct sockaddr *sa, uint32_t *flags)
{
	const struct server_params *p = &f->proc.config.servers[s->server].p;
	struct front_server *fs = &f->servers[s->server];
	struct client_count *client = NULL;
	enum reply why;
	const char *limit;
	*flags = client_list_has(&fs->trusted, sa) ? SESSION_TRUSTED : 0;
	if (!s->may_xclient)
		return CLIENT_NOT_HERE;
	if (access_is_denied(f, s->server, sa, flags))
		return CLIENT_DENIED;
	if ((*flags & SESSION_TRUSTED) == 0 && is_counted(fs, p)) {
		client = client_enter(f, s->server, sa, &why, &limit);
		if (client == NULL)
			return CLIENT_OVER;
	}
	client_leave(f, s->client);
	s->client = client;
	s->trusted = (*flags & SESSION_TRUSTED) != 0;
	client_key(sa, s->network);
	return CLIENT_TAKEN;
}

int front_on_session_client(struct channel *c, struct message *m)
{
	HANDLE(c, m, session_client, said);
	struct front *f = c->program;
	struct sockaddr_storage sa = {.ss_family = AF_UNSPEC};
	struct msg_session_client_answer answer = {.session = said.session, .status = CLIENT_NOT_HERE};
	if (said.client.n == 0 || said.client.n > sizeof sa)
		return EBADMSG;
	memcpy(&sa, said.client.at, said.client.n);
	bool known = said.session < f->sessions_n && f->sessions[said.session].used && f->sessions[said.session].worker == c;
	if (known && (sa.ss_family == AF_INET || sa.ss_family == AF_INET6))
		answer.status = change_client(f, &f->sessions[said.session], (const struct sockaddr *)&sa, &answer.flags);
	send_session_client_answer(c, answer, -1);
	return 0;
}

/* Whose session a worker tells authd of is said here, since a worker may say what it likes. */
int front_on_client_query(struct channel *c, struct message *m)
{
	HANDLE(c, m, client_query, query);
	struct front *f = c->program;
	const struct front_session *s = query.session < f->sessions_n ? &f->sessions[query.session] : NULL;
	struct msg_client_answer answer = {.serial = query.serial};
	if (s != NULL && s->used && s->worker != NULL && s->worker->instance == query.worker) {
		answer.trusted = s->trusted;
		answer.client = (struct span){(const char *)s->network, sizeof s->network};
	}
	send_client_answer(c, answer, -1);
	return 0;
}
