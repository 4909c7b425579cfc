#include "master.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

enum { BACKLOG = 4096 };

static int bind_one(const struct sockaddr *sa, socklen_t n, bool v6_only, int *out)
{
	int on = 1, fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return errno;
	int error = setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 ? 0 : errno;
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

static int keep(struct master *m, int fd, uint32_t server, enum listen_kind kind)
{
	struct listener *more = realloc(m->listeners, (m->listeners_n + 1) * sizeof *more);
	if (more == NULL) {
		(void)close(fd);
		return ENOMEM;
	}
	m->listeners = more;
	m->listeners[m->listeners_n++] = (struct listener){.fd = fd, .server = server, .kind = kind};
	return 0;
}

static int bind_endpoint(struct master *m, const struct endpoint *e, uint32_t server, enum listen_kind kind)
{
	int fd = -1, error;
	if (!e->any) {
		error = bind_one((const struct sockaddr *)&e->addr, e->addr_n, e->addr.ss_family == AF_INET6, &fd);
		return error == 0 ? keep(m, fd, server, kind) : error;
	}
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(e->port)};
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(e->port)};
	error = bind_one((struct sockaddr *)&v6, sizeof v6, true, &fd);
	if (error == 0)
		error = keep(m, fd, server, kind);
	else if (error == EAFNOSUPPORT || error == EADDRNOTAVAIL)
		error = 0; /* a machine without IPv6 */
	if (error == 0)
		error = bind_one((struct sockaddr *)&v4, sizeof v4, false, &fd);
	return error == 0 ? keep(m, fd, server, kind) : error;
}

int master_listen(struct master *m, struct complaint *why)
{
	for (size_t i = 0; i < m->config.servers_n; i++) {
		struct listen_walk w = {0};
		struct endpoint e = {.port = 0};
		while (server_listen_next(&m->config.servers[i], &w, &e)) {
			int error = bind_endpoint(m, &e, (uint32_t)i, w.kind);
			if (error == 0)
				continue;
			struct buffer text;
			buffer_init(&text, 100);
			endpoint_format(&text, &e);
			complain(why, listen_parameter(w.kind), 0, "server %s cannot listen on %s: %s", m->config.servers[i].name, buffer_cstr(&text), strerror(error));
			buffer_free(&text);
			return error == EACCES ? EX_NOPERM : EX_UNAVAILABLE;
		}
	}
	return 0;
}
