/* Connections of front ends that speak the PROXY protocol: whose they are is read first, and nothing beyond it. */
#include "front.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PENDING_MOST = 2000, PEEK = 4096 };

struct proxied {
	struct front *front;
	struct front_listener listener; /* as it was: it may be closed meanwhile */
	int fd;
	struct sockaddr_storage peer;
	socklen_t peer_n;
	int64_t deadline_ms;
	struct event *readable;
};

static void forget(struct proxied *p)
{
	p->front->proxied_n--;
	if (p->readable != NULL)
		event_free(p->readable);
	if (p->fd >= 0)
		(void)close(p->fd);
	free(p);
}

static void refuse(struct proxied *p, const char *why)
{
	struct buffer b;
	struct endpoint e = {.addr = p->peer, .addr_n = p->peer_n};
	buffer_init(&b, 100);
	endpoint_format(&b, &e);
	LOG(&p->front->proc.log, proxy_refused, NO_ID, F("peer", buffer_span(&b)), F("reason", span_of(why)));
	buffer_free(&b);
	forget(p);
}

/* As the channels do: no other call is allowed here. */
static ssize_t receive(int fd, char *bytes, size_t size, int flags)
{
	struct iovec part = {bytes, size};
	struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
	return recvmsg(fd, &m, flags | MSG_DONTWAIT);
}

/* Readable only when there is more than so much: what has been looked at stays in the socket. */
static void wait_for_more(int fd, int bytes)
{
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof bytes);
}

/* The header is looked at in the socket, and exactly its bytes are taken out of it. */
static void on_readable(int fd, short what, void *context)
{
	struct proxied *p = context;
	struct proxy_client client;
	char bytes[PEEK];
	size_t used;
	if ((what & EV_TIMEOUT) != 0 || clock_mono_ms() >= p->deadline_ms) {
		refuse(p, "no PROXY header in time");
		return;
	}
	ssize_t n = receive(fd, bytes, sizeof bytes, MSG_PEEK);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	int error = n <= 0 ? ENOTCONN : proxy_parse((struct span){bytes, (size_t)n}, &client, &used);
	if (error == EAGAIN) {
		wait_for_more(fd, (int)n + 1);
		return;
	}
	if (error != 0) {
		refuse(p, n <= 0 ? "the connection was closed" : "no PROXY header of version 1 or 2");
		return;
	}
	wait_for_more(fd, 1);
	if (receive(fd, bytes, used, 0) != (ssize_t)used) {
		refuse(p, "the connection was closed");
		return;
	}
	const struct sockaddr_storage sa = client.addr_n > 0 ? client.addr : p->peer;
	socklen_t sa_n = client.addr_n > 0 ? client.addr_n : p->peer_n;
	p->fd = -1;
	front_admit(p->front, fd, &p->listener, (const struct sockaddr *)&sa, sa_n);
	forget(p);
}

bool proxy_begin(struct front *f, int fd, const struct front_listener *l, const struct sockaddr_storage *peer, socklen_t n)
{
	static const struct timeval limit = {.tv_sec = PROXY_HEADER_S};
	struct proxied *p = f->proxied_n >= PENDING_MOST ? NULL : calloc(1, sizeof *p);
	if (p == NULL)
		return false;
	*p = (struct proxied){.front = f, .listener = *l, .fd = fd, .peer = *peer, .peer_n = n, .deadline_ms = clock_mono_ms() + PROXY_HEADER_S * 1000};
	f->proxied_n++;
	p->readable = event_new(f->proc.base, fd, EV_READ | EV_PERSIST, on_readable, p);
	if (p->readable != NULL && event_add(p->readable, &limit) == 0)
		return true;
	p->fd = -1;
	forget(p);
	return false;
}
