/* Connections: sockets, TLS, buffers, time limits. */
#include "smtp_agent.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void on_event(int fd, short what, void *context);
static void on_timer(int fd, short what, void *context);

void conn_arm(struct conn *c, int64_t seconds)
{
	int64_t cap = hop_out(c->hop)->outbound_timeout;
	struct timeval tv = {.tv_sec = seconds < cap ? seconds : cap};
	(void)event_add(c->timer, &tv);
}

void conn_state(struct conn *c, enum conn_state state, int64_t seconds)
{
	c->state = state;
	conn_arm(c, seconds);
}

static void want_write(struct conn *c, bool want)
{
	if (want == c->want_write)
		return;
	c->want_write = want;
	if (want)
		(void)event_add(c->writable, NULL);
	else
		(void)event_del(c->writable);
}

static void describe(struct conn *c, struct job *j)
{
	if (c->hop->turned) {
		(void)snprintf(c->peer, sizeof c->peer, "atrn[%s]", c->hop->turned_peer);
	} else if (c->peer[0] == '\0') {
		(void)snprintf(c->peer, sizeof c->peer, "%s", c->hop->lmtp ? "lmtp/" : "");
		lookup_format_target(&c->target, c->peer + strlen(c->peer));
	}
	memcpy(j->peer, c->peer, strlen(c->peer) + 1);
}

static void set_reason(struct job *j, const char *reason)
{
	char text[600];
	(void)snprintf(text, sizeof text, "%s: %s", j->peer, reason);
	free(j->last_reason);
	j->last_reason = span_dup(span_of(text));
	j->last_status = NULL;
}

static int begin_connect(struct conn *c)
{
	int on = 1;
	c->fd = socket(c->target.addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		return errno;
	if (c->target.addr.ss_family != AF_UNIX)
		(void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (connect(c->fd, (const struct sockaddr *)&c->target.addr, c->target.addr_n) == 0 || errno == EINPROGRESS)
		return 0;
	return errno;
}

static struct conn *make_conn(struct job *j, size_t target)
{
	struct conn *c = calloc(1, sizeof *c);
	if (c == NULL)
		return NULL;
	*c = (struct conn){.agent = j->agent, .hop = j->hop, .target_index = target, .fd = -1, .job = j, .generation = j->agent->proc.generation};
	if (!j->hop->turned)
		c->target = j->hop->lookup.targets[target];
	(void)tlsa_hold(c->target.tlsa);
	c->hop->users++;
	buffer_init(&c->in, INPUT_MOST);
	buffer_init(&c->out, 16 * 1024 * 1024);
	peer_reply_init(&c->reply);
	return c;
}

static int watch(struct conn *c)
{
	struct event_base *b = c->agent->proc.base;
	c->readable = event_new(b, c->fd, EV_READ | EV_PERSIST, on_event, c);
	c->writable = event_new(b, c->fd, EV_WRITE | EV_PERSIST, on_event, c);
	c->timer = event_new(b, -1, 0, on_timer, c);
	return c->readable == NULL || c->writable == NULL || c->timer == NULL ? ENOMEM : 0;
}

/* ---- several addresses at once (RFC 8305 5): the first that takes the connection wins ---- */

static void on_race(int fd, short what, void *context);

static void stop_race(struct job *j)
{
	if (j->race != NULL)
		event_free(j->race);
	j->race = NULL;
	while (j->racing != NULL) {
		struct conn *c = j->racing;
		j->racing = c->next_racing;
		c->job = NULL;
		conn_close(c);
	}
}

static void leave_race(struct conn *c)
{
	struct conn **p = &c->job->racing;
	while (*p != NULL && *p != c)
		p = &(*p)->next_racing;
	if (*p == c)
		*p = c->next_racing;
	c->next_racing = NULL;
}

static bool has_address(const struct job *j)
{
	const struct lookup *l = &j->hop->lookup;
	return j->target_at < l->targets_n && !(j->heard && l->targets[j->target_at].fallback);
}

static void arm_race(struct job *j)
{
	struct timeval tv = {.tv_usec = NEXT_ADDRESS_MS * 1000};
	if (!has_address(j))
		return;
	if (j->race == NULL)
		j->race = event_new(j->agent->proc.base, -1, 0, on_race, j);
	if (j->race != NULL)
		(void)event_add(j->race, &tv);
}

/* Begins with the job's next address.  False: none is left that could be begun with. */
static bool try_next(struct job *j)
{
	while (has_address(j)) {
		struct conn *c = make_conn(j, j->target_at++);
		if (c == NULL)
			return false;
		describe(c, j);
		if (policy_of(c) == LEVEL_REFUSED) {
			set_reason(j, policy_text(LEVEL_REFUSED));
			report_session(c, RESULT_DANE_REQUIRED, "");
			j->last_status = "4.7.5";
			c->job = NULL;
			conn_close(c);
			continue;
		}
		int error = begin_connect(c);
		if (error == 0)
			error = watch(c);
		if (error == 0) {
			c->next_racing = j->racing;
			j->racing = c;
			want_write(c, true);
			conn_state(c, CONN_CONNECTING, hop_out(c->hop)->outbound_connect_timeout);
			arm_race(j);
			return true;
		}
		set_reason(j, strerror(error));
		c->job = NULL;
		conn_close(c);
	}
	return false;
}

static void on_race(int fd, short what, void *context)
{
	(void)fd;
	(void)what;
	(void)try_next(context);
}

/* No address left: deferred, and the destination counts as down when none of them answered. */
static void go_on(struct job *j)
{
	if (try_next(j) || j->racing != NULL)
		return;
	stop_race(j);
	job_finish(j, !j->connected);
}

void conn_open(struct job *j)
{
	if (job_is_left(j))
		return;
	if (!has_address(j) || slot_take(j))
		go_on(j);
}

void conn_take(struct conn *c, struct job *j)
{
	slot_remove_idle(c);
	c->job = j;
	j->reused = j->connected = true;
	describe(c, j);
	dialog_begin(c);
}

void conn_close(struct conn *c)
{
	struct event *events[] = {c->readable, c->writable, c->timer};
	slot_remove_idle(c);
	for (size_t i = 0; i < COUNT_OF(events); i++)
		if (events[i] != NULL)
			event_free(events[i]);
	auth_forget(c);
	tls_free(c->ssl);
	if (c->fd >= 0)
		(void)close(c->fd);
	buffer_free(&c->in);
	buffer_free(&c->out);
	peer_reply_free(&c->reply);
	free(c->expect);
	slot_free(c);
	hop_release(c->agent, c->hop);
	tlsa_drop(c->target.tlsa);
	c->target.tlsa = NULL;
	c->closed = true;
	if (!c->stepping)
		free(c);
}

static enum tls_result write_some(struct conn *c, size_t *n)
{
	const char *at = c->out.at + c->out_at;
	size_t size = c->out.n - c->out_at;
	if (c->ssl != NULL)
		return tls_write(c->ssl, at, size, n);
	ssize_t done = send(c->fd, at, size, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (done < 0)
		return errno == EAGAIN || errno == EINTR ? TLS_WANT_WRITE : TLS_FAILED;
	*n = (size_t)done;
	return TLS_OK;
}

/* 0: all written, EAGAIN, EPIPE. */
static int write_all_out(struct conn *c)
{
	while (c->out_at < c->out.n) {
		size_t n = 0;
		enum tls_result r = write_some(c, &n);
		if (r == TLS_WANT_WRITE || r == TLS_WANT_READ)
			return EAGAIN;
		if (r != TLS_OK)
			return EPIPE;
		c->out_at += n;
		if (c->state == CONN_BODY) /* each block that leaves has its own time */
			conn_arm(c, hop_out(c->hop)->outbound_data_block_timeout);
	}
	buffer_clear(&c->out);
	c->out_at = 0;
	return 0;
}

void conn_flush(struct conn *c)
{
	for (;;) {
		int error = write_all_out(c);
		if (error == EAGAIN) {
			want_write(c, true);
			return;
		}
		if (error != 0) {
			dialog_broken(c, "the connection broke while sending");
			return;
		}
		if (c->state != CONN_BODY)
			break;
		int more = body_more(c);
		if (more < 0)
			return;
		if (more == 0)
			break;
	}
	want_write(c, false);
	if (c->state == CONN_IDLE && c->out.size > BLOCK)
		buffer_free(&c->out);
}

/* This address took no connection. */
static void connect_failed(struct conn *c, const char *reason)
{
	struct job *j = c->job;
	describe(c, j);
	set_reason(j, reason);
	leave_race(c);
	c->job = NULL;
	conn_close(c);
	if (fate_of_reply(STAGE_CONNECT, 0) == FATE_TRY_NEXT)
		go_on(j);
	else
		job_finish(j, !j->connected);
}

static void connected(struct conn *c)
{
	int error = 0;
	socklen_t n = sizeof error;
	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &n) != 0)
		error = errno;
	if (error != 0) {
		connect_failed(c, strerror(error));
		return;
	}
	leave_race(c);
	stop_race(c->job);
	slot_pass(c->job, c);
	describe(c, c->job);
	want_write(c, false);
	(void)event_add(c->readable, NULL);
	conn_state(c, CONN_GREETING, hop_out(c->hop)->outbound_greeting_timeout);
}

void conn_adopt(struct job *j, int fd)
{
	struct conn *c = make_conn(j, 0);
	if (c != NULL)
		c->fd = fd;
	else
		(void)close(fd);
	if (c == NULL || watch(c) != 0 || event_add(c->readable, NULL) != 0) {
		if (c != NULL) {
			c->job = NULL;
			conn_close(c);
		}
		job_set_all(j, OUTCOME_DEFERRED, 0, SPAN_LIT("4.3.0"), SPAN_LIT("not enough memory"));
		job_finish(j, false);
		return;
	}
	slot_pass(j, c);
	describe(c, j);
	conn_state(c, CONN_GREETING, hop_out(c->hop)->outbound_greeting_timeout);
}

/* False: c is gone. */
static bool read_some(struct conn *c)
{
	char block[16384];
	size_t n = 0;
	enum tls_result r = TLS_OK;
	do {
		if (c->ssl != NULL) {
			r = tls_read(c->ssl, block, sizeof block, &n);
		} else {
			ssize_t done = recv(c->fd, block, sizeof block, MSG_DONTWAIT);
			r = done > 0 ? TLS_OK : done == 0 ? TLS_CLOSED : errno == EAGAIN || errno == EINTR ? TLS_WANT_READ : TLS_FAILED;
			n = done > 0 ? (size_t)done : 0;
		}
		buffer_put(&c->in, block, n);
		if (!buffer_ok(&c->in)) {
			dialog_broken(c, "the peer sends without end");
			return false;
		}
	} while (c->ssl != NULL && r == TLS_OK && SSL_pending(c->ssl) > 0);
	if (r == TLS_CLOSED || r == TLS_FAILED) {
		dialog_broken(c, "the peer closed the connection");
		return false;
	}
	return true;
}

static void on_event(int fd, short what, void *context)
{
	struct conn *c = context;
	(void)fd;
	if (c->state == CONN_CONNECTING) {
		connected(c);
	} else if (c->state == CONN_HANDSHAKE) {
		dialog_handshake(c);
	} else if ((what & EV_READ) != 0) {
		if (read_some(c))
			dialog_input(c);
	} else {
		conn_flush(c);
	}
}

static void prepare_quit(struct conn *c)
{
	buffer_puts(&c->out, "QUIT\r\n");
	conn_state(c, CONN_QUIT, 5);
	slot_leaving(c);
}

void conn_say_quit(struct conn *c)
{
	prepare_quit(c);
	conn_flush(c);
}

/* In a later turn: whoever makes room for itself is not overtaken by what the end of c sets going. */
void conn_quit_soon(struct conn *c)
{
	prepare_quit(c);
	want_write(c, true);
}

static void on_timer(int fd, short what, void *context)
{
	struct conn *c = context;
	(void)fd;
	(void)what;
	if (c->state == CONN_IDLE) {
		conn_say_quit(c);
	} else if (c->state == CONN_CONNECTING) {
		connect_failed(c, "connect timed out");
	} else {
		dialog_broken(c, "the peer did not answer in time");
	}
}
