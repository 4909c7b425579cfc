#include "ipc/ipc.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Header of a message: u16 type, u8 version, u8 descriptors, u32 length of the payload. */
enum { HEADER = 8, QUEUE_LIMIT = 64 * 1024 * 1024, RECEIVE = IPC_PACKET_MAX + 4096, PACKETS_A_TURN = 32, LAZY_US = 20000, LAZY_BYTES = 16 * 1024 };

/* A packet that the kernel did not take yet. */
struct packet {
	struct packet *next;
	size_t n, fds_n;
	int fds[IPC_FDS];
	char bytes[];
};

static void on_readable(int fd, short what, void *context);
static void on_writable(int fd, short what, void *context);
static void on_flush(int fd, short what, void *context);

struct channel *channel_make(struct event_base *base, int fd, enum role me, enum role peer,
	const struct channel_owner *owner, void *program)
{
	struct channel *c = calloc(1, sizeof *c);
	if (c == NULL)
		return NULL;
	*c = (struct channel){.fd = fd, .me = me, .peer = peer, .owner = owner, .program = program, .base = base};
	c->queued_end = &c->queued;
	buffer_init(&c->out, IPC_PACKET_MAX + 65536);
	(void)fcntl(fd, F_SETFL, O_NONBLOCK);
	c->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, c);
	c->writable = event_new(base, fd, EV_WRITE | EV_PERSIST, on_writable, c);
	c->flush = event_new(base, -1, 0, on_flush, c);
	c->later = event_new(base, -1, 0, on_flush, c);
	if (c->readable == NULL || c->writable == NULL || c->flush == NULL || c->later == NULL || event_add(c->readable, NULL) != 0) {
		channel_close(c);
		return NULL;
	}
	return c;
}

static void close_fds(const int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (fds[i] >= 0)
			(void)close(fds[i]);
}

static void destroy(struct channel *c)
{
	struct event *events[] = {c->readable, c->writable, c->flush, c->later};
	for (size_t i = 0; i < COUNT_OF(events); i++)
		if (events[i] != NULL)
			event_free(events[i]);
	while (c->queued != NULL) {
		struct packet *p = c->queued;
		c->queued = p->next;
		close_fds(p->fds, p->fds_n);
		free(p);
	}
	close_fds(c->out_fds, c->out_fds_n);
	buffer_free(&c->out);
	free(c);
}

void channel_close(struct channel *c)
{
	if (c == NULL || c->dead)
		return;
	c->dead = true;
	(void)close(c->fd);
	if (c->readable != NULL)
		(void)event_del(c->readable);
	if (c->writable != NULL)
		(void)event_del(c->writable);
	if (!c->in_handler)
		destroy(c);
}

static void lose(struct channel *c, int reason)
{
	if (c->dead)
		return;
	bool nested = c->in_handler;
	c->in_handler = true;
	if (c->owner->gone != NULL)
		c->owner->gone(c, reason);
	c->in_handler = nested;
	if (!c->dead)
		channel_close(c);
	else if (!nested)
		destroy(c);
}

/* ---- out ---- */

static int send_packet(struct channel *c, const char *bytes, size_t n, const int *fds, size_t fds_n)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int) * IPC_FDS)];
	} control;
	struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = n};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	if (fds_n > 0) {
		memset(&control, 0, sizeof control);
		m.msg_control = control.room;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * fds_n);
		struct cmsghdr *h = CMSG_FIRSTHDR(&m);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(sizeof(int) * fds_n);
		memcpy(CMSG_DATA(h), fds, sizeof(int) * fds_n);
	}
	for (;;) {
		if (sendmsg(c->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
			return 0;
		if (errno != EINTR)
			return errno == ENOBUFS ? EAGAIN : errno;
	}
}

static int queue_packet(struct channel *c)
{
	struct packet *p = malloc(sizeof *p + c->out.n);
	if (p == NULL || c->queued_bytes + c->out.n > QUEUE_LIMIT) {
		free(p);
		return ENOBUFS;
	}
	*p = (struct packet){.n = c->out.n, .fds_n = c->out_fds_n};
	memcpy(p->fds, c->out_fds, sizeof p->fds);
	memcpy(p->bytes, c->out.at, c->out.n);
	*c->queued_end = p;
	c->queued_end = &p->next;
	c->queued_bytes += p->n;
	c->out_fds_n = 0;
	buffer_clear(&c->out);
	return event_add(c->writable, NULL) == 0 ? 0 : ENOMEM;
}

static int push(struct channel *c)
{
	if (c->out.n == 0)
		return 0;
	if (c->queued != NULL)
		return queue_packet(c);
	int error = send_packet(c, c->out.at, c->out.n, c->out_fds, c->out_fds_n);
	if (error == EAGAIN)
		return queue_packet(c);
	close_fds(c->out_fds, c->out_fds_n);
	c->out_fds_n = 0;
	buffer_clear(&c->out);
	if (c->out.size > 2 * IPC_PACKET)
		buffer_free(&c->out);
	return error;
}

/* Errors of a send show at the next read as well; the loss is dealt with there, never inside a sender. */
static void fail_later(struct channel *c)
{
	c->closing = true;
	event_active(c->flush, 0, 0);
}

void channel_flush(struct channel *c)
{
	if (!c->dead && push(c) != 0)
		fail_later(c);
}

static void on_flush(int fd, short what, void *context)
{
	struct channel *c = context;
	(void)fd;
	(void)what;
	c->flush_due = c->later_due = false;
	if (c->closing || push(c) != 0)
		lose(c, EPIPE);
}

static void on_writable(int fd, short what, void *context)
{
	struct channel *c = context;
	(void)fd;
	(void)what;
	while (c->queued != NULL) {
		struct packet *p = c->queued;
		int error = send_packet(c, p->bytes, p->n, p->fds, p->fds_n);
		if (error == EAGAIN)
			return;
		if (error != 0) {
			lose(c, error);
			return;
		}
		c->queued = p->next;
		c->queued_bytes -= p->n;
		close_fds(p->fds, p->fds_n);
		free(p);
	}
	c->queued_end = &c->queued;
	(void)event_del(c->writable);
}

size_t channel_backlog(const struct channel *c)
{
	return c->queued_bytes + c->out.n;
}

void channel_begin(struct channel *c, enum msg_type type, size_t *mark)
{
	if (c->out_fds_n > 0) /* what carries a descriptor travels alone: simple and rare */
		channel_flush(c);
	*mark = c->out.n;
	buffer_put_u32(&c->out, (uint32_t)type | msg_version(type) << 16);
	buffer_put_u32(&c->out, 0);
}

/* The message that begins at mark goes into a packet of its own, what stood before it leaves now. */
static void split_off(struct channel *c, size_t mark, size_t fds_n)
{
	struct buffer tail;
	buffer_init(&tail, c->out.limit);
	buffer_put(&tail, c->out.at + mark, c->out.n - mark);
	c->out_fds_n = 0;
	c->out.n = mark;
	channel_flush(c);
	buffer_clear(&c->out);
	buffer_put_span(&c->out, buffer_span(&tail));
	c->out_fds_n = fds_n;
	buffer_free(&tail);
}

void channel_end(struct channel *c, size_t mark, int fd)
{
	channel_end_fds(c, mark, &fd, fd >= 0 ? 1 : 0);
}

void channel_end_fds(struct channel *c, size_t mark, const int *fds, size_t fds_n)
{
	if (c->dead || !buffer_ok(&c->out)) {
		close_fds(fds, fds_n);
		if (!c->dead) {
			c->out.n = mark;
			fail_later(c);
		}
		return;
	}
	store_u32(c->out.at + mark + 4, (uint32_t)(c->out.n - mark - HEADER));
	c->out.at[mark + 3] = (char)fds_n;
	for (size_t i = 0; i < fds_n; i++)
		c->out_fds[c->out_fds_n++] = fds[i];
	if (mark > 0 && c->out.n > IPC_PACKET)
		split_off(c, mark, fds_n);
	if (c->out.n >= IPC_PACKET) {
		channel_flush(c);
	} else if (c->lazy && c->out.n < LAZY_BYTES) {
		struct timeval tv = {.tv_usec = LAZY_US};
		if (!c->later_due && !c->flush_due)
			(void)event_add(c->later, &tv);
		c->later_due = true;
	} else if (!c->flush_due) {
		c->flush_due = true;
		event_active(c->flush, 0, 0);
	}
}

void channel_lazy(struct channel *c, bool on)
{
	c->lazy = on;
}

/* ---- in ---- */

static ssize_t receive(int fd, char *bytes, size_t size, int *fds, size_t *fds_n, int flags)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int) * IPC_FDS)];
	} control;
	struct iovec iov = {.iov_base = bytes, .iov_len = size};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
	ssize_t n;
	do
		n = recvmsg(fd, &m, flags | MSG_CMSG_CLOEXEC);
	while (n < 0 && (errno == EINTR || errno == ECONNRESET)); /* a peer that ended with our words unread: its own last ones come after this, once */
	*fds_n = 0;
	if (n < 0)
		return n;
	for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h != NULL; h = CMSG_NXTHDR(&m, h)) {
		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		*fds_n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(h), *fds_n * sizeof(int));
	}
	if ((m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
		close_fds(fds, *fds_n);
		*fds_n = 0;
		errno = EMSGSIZE;
		return -1;
	}
	return n;
}

/* Takes one message off the packet; 0, EBADMSG, EPERM. */
static int next_message(struct span *packet, enum role from, enum role to, struct message *out)
{
	uint32_t head, n;
	if (!take_u32(packet, &head) || !take_u32(packet, &n) || packet->n < n)
		return EBADMSG;
	size_t fds = head >> 24;
	int error = msg_admit(head & 0xffff, head >> 16 & 0xff, fds, from, to);
	if (error != 0)
		return error;
	*out = (struct message){.type = (enum msg_type)(head & 0xffff), .payload = {packet->at, n}, .fds_n = fds};
	packet->at += n;
	packet->n -= n;
	return 0;
}

static int take_packet(struct channel *c, struct span packet, int *fds, size_t fds_n)
{
	size_t used = 0;
	int error = 0;
	while (packet.n > 0 && error == 0 && !c->dead) {
		struct message m;
		error = next_message(&packet, c->peer, c->me, &m);
		if (error != 0)
			break;
		if (m.fds_n > fds_n - used) {
			error = EBADMSG;
			break;
		}
		m.fds = &fds[used];
		used += m.fds_n;
		message_handler *const *place = &c->owner->handlers[m.type];
		message_handler *run = *place;
		error = run == NULL ? EPERM : run(c, &m);
	}
	close_fds(fds, fds_n);
	return error;
}

static void on_readable(int fd, short what, void *context)
{
	struct channel *c = context;
	char *bytes = malloc(RECEIVE);
	int fds[IPC_FDS], error = bytes == NULL ? ENOMEM : 0;
	bool end = false;
	(void)what;
	c->in_handler = true;
	for (int i = 0; i < PACKETS_A_TURN && error == 0 && !c->dead; i++) {
		size_t fds_n;
		ssize_t n = receive(fd, bytes, RECEIVE, fds, &fds_n, MSG_DONTWAIT);
		if (n < 0) {
			error = errno == EAGAIN ? 0 : errno;
			break;
		}
		if (n == 0) {
			end = true;
			break;
		}
		error = take_packet(c, (struct span){bytes, (size_t)n}, fds, fds_n);
		if (n < IPC_PACKET / 8)
			break; /* probably the last one: level-triggered, saves the read that says EAGAIN */
	}
	free(bytes);
	c->in_handler = false;
	if (c->dead)
		destroy(c);
	else if (end || error != 0)
		lose(c, error);
}

void channel_drain(struct channel *c)
{
	char *bytes = malloc(RECEIVE);
	int fds[IPC_FDS], error = bytes == NULL ? ENOMEM : 0;
	bool within = c->in_handler;
	c->in_handler = true;
	while (error == 0 && !c->dead) {
		size_t fds_n;
		ssize_t n = receive(c->fd, bytes, RECEIVE, fds, &fds_n, MSG_DONTWAIT);
		if (n <= 0)
			break;
		error = take_packet(c, (struct span){bytes, (size_t)n}, fds, fds_n);
	}
	free(bytes);
	c->in_handler = within;
}

int channel_pair(int ends[2])
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
		return errno;
	for (int i = 0; i < 2; i++) {
		int size = 1024 * 1024;
		if (setsockopt(ends[i], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) != 0)
			(void)setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	}
	return 0;
}

int channel_read_first(int fd, struct buffer *packet, int *fds, size_t *fds_n, struct message *out)
{
	if (buffer_reserve(packet, RECEIVE) != 0)
		return ENOMEM;
	ssize_t n = receive(fd, packet->at, RECEIVE, fds, fds_n, 0);
	if (n <= 0)
		return n == 0 ? EPIPE : errno;
	struct span rest = {packet->at, (size_t)n};
	int error = next_message(&rest, R_MASTER, R_SMTPD, out);
	if (error == 0 && (rest.n != 0 || out->type != MSG_hello))
		error = EBADMSG;
	out->fds = fds;
	out->fds_n = *fds_n;
	return error;
}
