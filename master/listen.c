#include "master.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

enum { BACKLOG = 4096 };

/* mixed: "*" and addresses of their own share the port: the kernel lets them do so if all of them agree. */
static int bind_one(const struct sockaddr *sa, socklen_t n, bool v6_only, bool mixed, int *out)
{
	int on = 1, fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return errno;
	int error = setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 ? 0 : errno;
	if (error == 0 && mixed && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0)
		error = errno;
	if (error == 0 && v6_only && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) != 0)
		error = errno;
	/* accepted sockets inherit it: one call a connection saved */
	if (error == 0 && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0)
		error = errno;
	if (error == 0 && (bind(fd, sa, n) != 0 || listen(fd, BACKLOG) != 0))
		error = errno;
	if (error != 0)
		(void)close(fd);
	else
		*out = fd;
	return error;
}

static int keep(struct master *m, int fd, uint32_t server, enum listen_kind kind, const struct endpoint *e)
{
	struct listener *more = realloc(m->listeners, (m->listeners_n + 1) * sizeof *more);
	if (more == NULL) {
		(void)close(fd);
		return ENOMEM;
	}
	m->listeners = more;
	m->listeners[m->listeners_n++] = (struct listener){.fd = fd, .number = ++m->listeners_made, .server = server, .kind = kind, .endpoint = *e, .any = e->any, .kept = true};
	return 0;
}

/* Is the port of e named both by "*" and by an address, or is one there that was? */
static bool is_mixed(const struct master *m, const struct config *c, const struct endpoint *e)
{
	bool any = false, named = false;
	for (size_t i = 0; i < c->servers_n; i++) {
		struct listen_walk w = {0};
		struct endpoint other = {.port = 0};
		while (server_listen_next(&c->servers[i], &w, &other)) {
			any = any || (other.port == e->port && other.any);
			named = named || (other.port == e->port && !other.any);
		}
	}
	for (size_t i = 0; i < m->listeners_n; i++) {
		any = any || (m->listeners[i].endpoint.port == e->port && m->listeners[i].any);
		named = named || (m->listeners[i].endpoint.port == e->port && !m->listeners[i].any);
	}
	return any && named;
}

/* Those of the port that are there already have to agree. */
static void agree(struct master *m, uint16_t port)
{
	int on = 1;
	for (size_t i = 0; i < m->listeners_n; i++)
		if (m->listeners[i].endpoint.port == port)
			(void)setsockopt(m->listeners[i].fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
}

static int bind_endpoint(struct master *m, const struct config *c, const struct endpoint *e, uint32_t server, enum listen_kind kind)
{
	int fd = -1, error;
	bool mixed = is_mixed(m, c, e);
	if (mixed)
		agree(m, e->port);
	if (!e->any) {
		error = bind_one((const struct sockaddr *)&e->addr, e->addr_n, e->addr.ss_family == AF_INET6, mixed, &fd);
		return error == 0 ? keep(m, fd, server, kind, e) : error;
	}
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(e->port)};
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(e->port)};
	error = bind_one((struct sockaddr *)&v6, sizeof v6, true, mixed, &fd);
	if (error == 0)
		error = keep(m, fd, server, kind, e);
	else if (error == EAFNOSUPPORT || error == EADDRNOTAVAIL)
		error = 0; /* a machine without IPv6 */
	if (error == 0)
		error = bind_one((struct sockaddr *)&v4, sizeof v4, false, mixed, &fd);
	return error == 0 ? keep(m, fd, server, kind, e) : error;
}

/* Closes those for which gone says yes. */
static void close_those(struct master *m, bool (*gone)(const struct listener *, uint32_t), uint32_t what)
{
	size_t n = 0;
	for (size_t i = 0; i < m->listeners_n; i++) {
		if (gone(&m->listeners[i], what))
			(void)close(m->listeners[i].fd);
		else
			m->listeners[n++] = m->listeners[i];
	}
	m->listeners_n = n;
}

static bool is_of(const struct listener *l, uint32_t server)
{
	return l->server == server;
}

static bool is_newer(const struct listener *l, uint32_t number)
{
	return l->number > number;
}

static bool is_unkept(const struct listener *l, uint32_t unused)
{
	(void)unused;
	return !l->kept;
}

/* Marks those that are there already.  False: there are none. */
static bool keep_those(struct master *m, uint32_t server, enum listen_kind kind, const struct endpoint *e)
{
	bool found = false;
	for (size_t i = 0; i < m->listeners_n; i++) {
		struct listener *l = &m->listeners[i];
		if (l->server != server || l->kind != kind || !endpoint_same(&l->endpoint, e))
			continue;
		l->kept = found = true;
	}
	return found;
}

/* What another server, or this one in another way, had until now.  ENOENT: nobody. */
static int take_over(struct master *m, uint32_t server, enum listen_kind kind, const struct endpoint *e)
{
	int error = ENOENT;
	size_t n = m->listeners_n;
	for (size_t i = 0; i < n && (error == 0 || error == ENOENT); i++) {
		if (m->listeners[i].kept || !endpoint_same(&m->listeners[i].endpoint, e))
			continue;
		int fd = fcntl(m->listeners[i].fd, F_DUPFD_CLOEXEC, 4);
		error = fd < 0 ? errno : keep(m, fd, server, kind, e);
	}
	return error;
}

/* All that c has for a server and is not there yet. */
static int listen_for(struct master *m, const struct config *c, uint32_t server, struct complaint *why)
{
	struct listen_walk w = {0};
	struct endpoint e = {.port = 0};
	while (server_listen_next(&c->servers[server], &w, &e)) {
		int error = keep_those(m, server, w.kind, &e) ? 0 : take_over(m, server, w.kind, &e);
		if (error == ENOENT)
			error = bind_endpoint(m, c, &e, server, w.kind);
		if (error == 0)
			continue;
		struct buffer text;
		buffer_init(&text, 100);
		endpoint_format(&text, &e);
		complain(why, listen_parameter(w.kind), 0, "server %s cannot listen on %s: %s", c->servers[server].name, buffer_cstr(&text), strerror(error));
		buffer_free(&text);
		return error == EACCES ? EX_NOPERM : EX_UNAVAILABLE;
	}
	return 0;
}

int master_listen(struct master *m, uint32_t server, struct complaint *why)
{
	int status = listen_for(m, &m->config, server, why);
	if (status != 0)
		master_listen_no_more(m, server);
	return status;
}

void master_listen_no_more(struct master *m, uint32_t server)
{
	close_those(m, is_of, server);
}

static void tell(const struct child *front, const struct listener *l)
{
	send_listener(front->channel, (struct msg_listener){.number = l->number, .server = l->server, .kind = l->kind, .port = l->endpoint.port, .any = l->any}, fcntl(l->fd, F_DUPFD_CLOEXEC, 4));
	channel_flush(front->channel);
}

void master_tell_listeners(const struct master *m, const struct child *front, uint32_t server)
{
	for (size_t i = 0; i < m->listeners_n; i++)
		if (m->listeners[i].server == server)
			tell(front, &m->listeners[i]);
}

static bool runs(const struct master *m, uint32_t server)
{
	return m->runs[server].state == RUN_RUNNING || m->runs[server].state == RUN_STARTING;
}

int master_relisten(struct master *m, const struct config *fresh, struct complaint *why)
{
	uint32_t last = m->listeners_made;
	int status = 0;
	for (size_t i = 0; i < m->listeners_n; i++)
		m->listeners[i].kept = false;
	for (uint32_t i = 0; i < m->config.servers_n && status == 0; i++)
		if (runs(m, i) && !fresh->servers[i].gone)
			status = listen_for(m, fresh, i, why);
	if (status != 0)
		close_those(m, is_newer, last);
	for (size_t i = 0; i < m->listeners_n && status == 0; i++) {
		const struct listener *l = &m->listeners[i];
		for (const struct child *c = m->children; c != NULL; c = c->next) {
			if (c->role != R_FRONT || c->channel == NULL || m->runs[l->server].state != RUN_RUNNING)
				continue;
			if (l->number > last)
				tell(c, l);
			else if (!l->kept)
				send_listener_closed(c->channel, (struct msg_listener_closed){.number = l->number}, -1);
		}
	}
	return status;
}

void master_relisten_end(struct master *m)
{
	close_those(m, is_unkept, 0);
}
