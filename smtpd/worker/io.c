#include "worker.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void want_write(struct session *s, bool want)
{
	if (want == s->want_write)
		return;
	s->want_write = want;
	if (s->writable == NULL)
		s->writable = event_new(s->worker->proc.base, s->fd, EV_WRITE | EV_PERSIST, session_on_event, s);
	if (s->writable == NULL)
		s->dead = true;
	else if (want)
		(void)event_add(s->writable, NULL);
	else
		(void)event_del(s->writable);
}

void session_rest(struct session *s)
{
	want_write(s, false);
	s->paused = true;
	(void)event_del(s->readable);
}

/* 0: some bytes were taken; EAGAIN; else the peer is gone. */
static int write_some(struct session *s, size_t *n)
{
	if (s->ssl != NULL) {
		switch (tls_write(s->ssl, s->out.at, s->out.n, n)) {
		case TLS_OK: return 0;
		case TLS_WANT_READ: case TLS_WANT_WRITE: return EAGAIN;
		case TLS_CLOSED: case TLS_FAILED: case TLS_WANT_KEY: case TLS_WANT_JOB: break;
		}
		return EPIPE;
	}
	ssize_t done = send(s->fd, s->out.at, s->out.n, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (done < 0)
		return errno == EINTR ? EAGAIN : errno;
	*n = (size_t)done;
	return 0;
}

bool session_write(struct session *s)
{
	if (s->state == ST_HANDSHAKE)
		return true;
	if (!buffer_ok(&s->out))
		return false;
	while (s->out.n > 0) {
		size_t n = 0;
		int error = write_some(s, &n);
		if (error == EAGAIN) {
			want_write(s, true);
			return !s->dead;
		}
		if (error != 0)
			return false;
		buffer_drop(&s->out, n);
	}
	want_write(s, false);
	return !s->dead;
}

void session_start_tls(struct session *s)
{
	s->ssl = tls_session(s->worker->servers[s->server].tls, s->fd, true, s);
	if (s->ssl == NULL) {
		s->dead = true;
		return;
	}
	s->state = ST_HANDSHAKE;
}

static void handshake(struct session *s)
{
	switch (tls_handshake(s->ssl)) {
	case TLS_OK:
		want_write(s, false);
		s->state = ST_COMMAND;
		s->phase = PHASE_START; /* RFC 3207 4.2: all that was learned before is forgotten */
		auth_forget(s);
		free(s->helo);
		s->helo = NULL;
		session_arm(s);
		return;
	case TLS_WANT_WRITE:
		want_write(s, true);
		return;
	case TLS_WANT_READ:
		want_write(s, false);
		return;
	case TLS_WANT_JOB:
		keys_queue(s);
		session_rest(s);
		return;
	case TLS_WANT_KEY:
		session_rest(s); /* nothing of it matters before the answer */
		return;
	case TLS_CLOSED:
	case TLS_FAILED:
		LOG(&s->worker->proc.log, tls_failed, NO_ID, F("client", span_of(s->address)), F("reason", span_of(tls_error_text())));
		s->dead = true;
	}
}

void session_handshake(struct session *s)
{
	if (s->paused) {
		s->paused = false;
		(void)event_add(s->readable, NULL);
	}
	handshake(s);
	bool begins = s->early_tls && s->state == ST_COMMAND;
	s->early_tls = s->early_tls && !begins;
	if (s->dead)
		session_free(s);
	else if (begins)
		session_begin(s);
}

/* Reads once; false: the peer is gone.  *n 0: nothing there now. */
static bool read_some(struct session *s, char *bytes, size_t size, size_t *n)
{
	*n = 0;
	if (s->ssl != NULL) {
		enum tls_result r = tls_read(s->ssl, bytes, size, n);
		return r != TLS_CLOSED && r != TLS_FAILED;
	}
	ssize_t done = recv(s->fd, bytes, size, MSG_DONTWAIT);
	if (done < 0)
		return errno == EAGAIN || errno == EINTR;
	*n = (size_t)done;
	return done > 0;
}

static void peer_gone(struct session *s)
{
	if (s->state == ST_COMMITTING) {
		/* the message may be durable and is then ours (RFC 1047): the answer is awaited, then told to nobody */
		s->quit = true;
		buffer_free(&s->out);
		(void)event_del(s->readable);
		s->paused = true;
		return;
	}
	if (s->phase != PHASE_START || s->t != NULL)
		LOG(&s->worker->proc.log, session_lost, NO_ID, F("client", span_of(s->address)));
	session_free(s);
}

static void read_input(struct session *s)
{
	struct worker *w = s->worker;
	do {
		size_t n;
		if (!read_some(s, w->scratch, sizeof w->scratch, &n)) {
			peer_gone(s);
			return;
		}
		if (n == 0)
			break;
		buffer_put(&s->in, w->scratch, n);
		if (!buffer_ok(&s->in)) { /* does not happen while reading pauses in time */
			session_free(s);
			return;
		}
	} while (s->ssl != NULL && SSL_pending(s->ssl) > 0 && s->in.n < INPUT_LIMIT / 2);
	session_run(s);
}

void session_on_event(int fd, short what, void *context)
{
	struct session *s = context;
	(void)fd;
	if (s->state == ST_HANDSHAKE) {
		session_handshake(s);
		return;
	}
	if ((what & EV_WRITE) != 0) {
		session_run(s);
		return;
	}
	read_input(s);
}
