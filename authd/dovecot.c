/* auth_backend = dovecot:SOCKET.  Dovecot's auth protocol, as a client of it: mechanisms, challenges and responses are Dovecot's, and
 * pass through here (https://doc.dovecot.org, "Dovecot Authentication Protocol", version 1). */
#include "authd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { LINE_MOST = 16 * 1024, AGAIN_S = 1, ANSWER_S = 30, PENDING_MOST = 1024 * 1024 };

struct dovecot {
	struct authd *authd;
	uint32_t server;
	int fd;                /* -1: not connected */
	struct event *readable, *writable, *again;
	struct buffer in, out;
	uint32_t mechanisms, coming; /* offered; in the greeting that is being read */
	bool greeted, told;    /* told: that it is away, in the log */
};

static const char *socket_of(const struct dovecot *d)
{
	return d->authd->proc.config.servers[d->server].p.auth_backend + strlen("dovecot:");
}

uint32_t dovecot_offers(const struct authd *a, size_t server)
{
	const struct dovecot *d = a->servers[server].dovecot;
	return d == NULL ? 0 : d->mechanisms;
}

static void fail_all(struct dovecot *d)
{
	struct login *l = d->authd->logins;
	while (l != NULL) {
		struct login *next = l->next;
		if (l->server == d->server && l->wait == WAITS_BACKEND)
			login_failed(l);
		else if (l->server == d->server)
			l->lost = true;
		l = next;
	}
}

static void disconnect(struct dovecot *d, const char *why)
{
	static const struct timeval later = {.tv_sec = AGAIN_S};
	if (!d->told)
		LOG(&d->authd->proc.log, backend_away, NO_ID, F("server", span_of(d->authd->proc.config.servers[d->server].name)), F("socket", span_of(socket_of(d))), F("reason", span_of(why)));
	d->told = true;
	if (d->readable != NULL)
		event_free(d->readable);
	if (d->writable != NULL)
		event_free(d->writable);
	d->readable = d->writable = NULL;
	if (d->fd >= 0)
		(void)close(d->fd);
	d->fd = -1;
	d->mechanisms = d->coming = 0;
	d->greeted = false;
	buffer_free(&d->in);
	buffer_free(&d->out);
	fail_all(d);
	users_offer_all(d->authd, d->server);
	(void)event_add(d->again, &later);
}

static void flush(struct dovecot *d)
{
	while (d->out.n > 0) {
		ssize_t n = write(d->fd, d->out.at, d->out.n);
		if (n < 0 && errno == EAGAIN) {
			(void)event_add(d->writable, NULL);
			return;
		}
		if (n <= 0) {
			disconnect(d, strerror(errno));
			return;
		}
		buffer_drop(&d->out, (size_t)n);
	}
}

static void on_writable(int fd, short what, void *context)
{
	(void)fd;
	(void)what;
	flush(context);
}

/* ---- what it says ---- */

static void put_base64(struct buffer *b, struct span bytes)
{
	char *text = NULL;
	size_t n = 0;
	if (bytes.n > 0 && gsasl_base64_to(bytes.at, bytes.n, &text, &n) == GSASL_OK) {
		buffer_put(b, text, n);
		explicit_bzero(text, n);
	}
	gsasl_free(text);
}

static struct login *login_of(const struct dovecot *d, struct span id)
{
	uint64_t number = 0;
	if (parse_u64(id, UINT32_MAX, &number) != 0)
		return NULL;
	struct login *l = login_by_number(d->authd, number);
	return l != NULL && l->server == d->server && l->wait == WAITS_BACKEND ? l : NULL;
}

static void on_fail(struct login *l, struct span words)
{
	bool temporary = false;
	for (struct span word; (word = span_until(&words, '\t')).n > 0 || words.n > 0;) {
		temporary = temporary || span_is(word, "temp") || span_is(word, "code=temp_fail");
		if (word.n > 5 && memcmp(word.at, "user=", 5) == 0)
			login_take_name(l, span_from(word, 5));
	}
	if (temporary)
		login_failed(l);
	else
		login_refuse(l, "Dovecot says no");
}

static void on_ok(struct login *l, struct span words)
{
	for (struct span word; (word = span_until(&words, '\t')).n > 0 || words.n > 0;)
		if (word.n > 5 && memcmp(word.at, "user=", 5) == 0)
			login_take_name(l, span_from(word, 5));
	login_accept(l);
}

static void on_challenge(struct login *l, struct span text)
{
	char *bytes = NULL;
	size_t n = 0;
	if (text.n > 0 && gsasl_base64_from(text.at, text.n, &bytes, &n) != GSASL_OK)
		login_failed(l);
	else
		login_challenge(l, (struct span){bytes, n});
	gsasl_free(bytes);
}

static void on_line(struct dovecot *d, struct span line)
{
	struct span word = span_until(&line, '\t');
	if (span_is(word, "MECH")) {
		struct span name = span_until(&line, '\t');
#define MECHANISM(m, bit, text) if (span_is(name, text)) d->coming |= 1u << (bit);
		MECHANISMS(MECHANISM)
#undef MECHANISM
	} else if (span_is(word, "DONE")) {
		d->greeted = true;
		d->told = false;
		d->mechanisms = d->coming & ~(uint32_t)MECHANISM_SCRAM_SHA_256_PLUS; /* Dovecot is not told the channel's binding */
		users_offer_all(d->authd, d->server);
	} else if (span_is(word, "OK") || span_is(word, "FAIL") || span_is(word, "CONT")) {
		struct login *l = login_of(d, span_until(&line, '\t'));
		if (l != NULL)
			(span_is(word, "OK") ? on_ok : span_is(word, "FAIL") ? on_fail : on_challenge)(l, line);
	}
}

static void on_readable(int fd, short what, void *context)
{
	struct dovecot *d = context;
	char block[4096];
	(void)what;
	ssize_t n = read(fd, block, sizeof block);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		buffer_put(&d->in, block, (size_t)n);
	if (n <= 0 || !buffer_ok(&d->in)) {
		disconnect(d, n == 0 ? "it has closed the connection" : n < 0 ? strerror(errno) : "a line without end");
		return;
	}
	for (const char *lf; d->in.n > 0 && (lf = memchr(d->in.at, '\n', d->in.n)) != NULL;) {
		size_t used = (size_t)(lf - d->in.at) + 1;
		on_line(d, (struct span){d->in.at, used - 1});
		buffer_drop(&d->in, used);
	}
}

/* ---- the connection ---- */

static int connect_to(struct dovecot *d)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	(void)snprintf(sa.sun_path, sizeof sa.sun_path, "%s", socket_of(d));
	d->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (d->fd < 0 || connect(d->fd, (const struct sockaddr *)&sa, sizeof sa) != 0)
		return errno;
	d->readable = event_new(d->authd->proc.base, d->fd, EV_READ | EV_PERSIST, on_readable, d);
	d->writable = event_new(d->authd->proc.base, d->fd, EV_WRITE, on_writable, d);
	return d->readable == NULL || d->writable == NULL || event_add(d->readable, NULL) != 0 ? ENOMEM : 0;
}

static void on_again(int fd, short what, void *context)
{
	struct dovecot *d = context;
	(void)fd;
	(void)what;
	buffer_init(&d->in, LINE_MOST);
	buffer_init(&d->out, PENDING_MOST);
	int error = connect_to(d);
	if (error != 0) {
		disconnect(d, strerror(error));
		return;
	}
	buffer_printf(&d->out, "VERSION\t1\t1\nCPID\t%d\n", (int)getpid());
	flush(d);
}

int dovecot_begin(struct authd *a)
{
	static const struct timeval now = {0};
	for (uint32_t i = 0; i < a->proc.config.servers_n; i++) {
		if (strncmp(a->proc.config.servers[i].p.auth_backend, "dovecot:", 8) != 0)
			continue;
		struct dovecot *d = calloc(1, sizeof *d);
		if (d == NULL)
			return ENOMEM;
		*d = (struct dovecot){.authd = a, .server = i, .fd = -1};
		d->again = event_new(a->proc.base, -1, 0, on_again, d);
		if (d->again == NULL || event_add(d->again, &now) != 0)
			return ENOMEM;
		a->servers[i].dovecot = d;
	}
	return 0;
}

/* ---- logins ---- */

void dovecot_step(struct login *l)
{
	struct dovecot *d = l->authd->servers[l->server].dovecot;
	if (d == NULL || !d->greeted || l->lost) {
		login_failed(l);
		return;
	}
	if (!l->begun) {
		buffer_printf(&d->out, "AUTH\t%u\t%s\tservice=smtp\tsecured", (unsigned)l->number, sasl_word(l->mechanism));
		if (l->client_known) {
			buffer_puts(&d->out, "\trip=");
			login_put_client(l, &d->out);
		}
		buffer_puts(&d->out, l->first ? "" : "\tresp=");
	} else {
		buffer_printf(&d->out, "CONT\t%u\t", (unsigned)l->number);
	}
	l->begun = true;
	put_base64(&d->out, buffer_span(&l->response));
	buffer_puts(&d->out, "\n");
	login_wait_for_backend(l, ANSWER_S);
	if (buffer_ok(&d->out))
		flush(d);
	else
		disconnect(d, "it does not read what it is told");
}

void dovecot_forget(const struct login *l)
{
	struct dovecot *d = l->authd->servers[l->server].dovecot;
	if (d == NULL || !d->greeted || !l->begun || l->lost)
		return;
	buffer_printf(&d->out, "CANCEL\t%u\n", (unsigned)l->number);
	if (d->writable != NULL)
		(void)event_add(d->writable, NULL);
}
