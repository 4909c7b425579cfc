/* A login from its first word to its answer. */
#include "authd.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct span nothing = {"", 0};

/* ---- the list ---- */

static void leave_turns(struct login *l)
{
	struct authd *a = l->authd;
	struct login **p = &a->turns;
	while (*p != NULL && *p != l)
		p = &(*p)->next_turn;
	if (*p == NULL)
		return;
	*p = l->next_turn;
	if (a->turns_end == &l->next_turn)
		a->turns_end = p;
}

static void end_login(struct login *l)
{
	struct authd *a = l->authd;
	struct login **p = &a->logins;
	while (*p != l)
		p = &(*p)->next;
	*p = l->next;
	leave_turns(l);
	if (!l->settled && integrated_is(l))
		integrated_forget(l);
	else if (!l->settled)
		dovecot_forget(l);
	if (l->delay != NULL)
		event_free(l->delay);
	if (l->gsasl != NULL)
		gsasl_finish(l->gsasl);
	buffer_wipe(&l->response);
	buffer_free(&l->certificates);
	table_forget(l);
	free(l);
	a->logins_n--;
}

struct login *login_by_number(const struct authd *a, uint64_t number)
{
	struct login *l = a->logins;
	while (l != NULL && l->number != number)
		l = l->next;
	return l;
}

static struct login *find(struct authd *a, const struct channel *worker, uint64_t serial)
{
	struct login *l = a->logins;
	while (l != NULL && (l->worker != worker || l->serial != serial))
		l = l->next;
	return l;
}

static void take_turn(struct login *l)
{
	static const struct timeval now = {0};
	struct authd *a = l->authd;
	l->wait = WAITS_TURN;
	l->next_turn = NULL;
	*a->turns_end = l;
	a->turns_end = &l->next_turn;
	(void)event_add(a->turn, &now);
}

/* ---- answers ---- */

static void answer(const struct login *l, enum login_status status, struct span text, struct span proof)
{
	send_auth_answer(l->worker, (struct msg_auth_answer){.serial = l->serial, .status = status, .text = text, .proof = proof}, -1);
}

static const char *word_of(const struct login *l)
{
	return sasl_word(l->mechanism);
}

static struct span said_name(const struct login *l)
{
	const char *said = l->gsasl == NULL ? NULL : gsasl_property_fast(l->gsasl, GSASL_AUTHID);
	return span_of(l->name[0] != '\0' ? l->name : said);
}

void login_put_client(const struct login *l, struct buffer *b)
{
	struct sockaddr_in6 sa = {.sin6_family = AF_INET6};
	static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
	struct endpoint e = {.addr_n = sizeof sa};
	if (!l->client_known) {
		buffer_puts(b, "unknown");
	} else if (memcmp(l->client, mapped, sizeof mapped) == 0) {
		buffer_printf(b, "%u.%u.%u.%u", l->client[12], l->client[13], l->client[14], l->client[15]);
	} else {
		memcpy(&sa.sin6_addr, l->client, 16);
		memcpy(&e.addr, &sa, sizeof sa);
		endpoint_format(b, &e);
		b->n -= b->n >= 2 ? 2 : 0; /* ":0" */
	}
}

static void log_login(const struct login *l, enum program_event event, const char *key, const char *value)
{
	struct buffer client;
	buffer_init(&client, 100);
	login_put_client(l, &client);
	const struct log_field fields[] = {F("client", buffer_span(&client)), F("sasl_method", span_of(word_of(l))), F("sasl_username", said_name(l)), F(key, span_of(value))};
	log_write(&l->authd->proc.log, &log_events[event], NO_ID, fields, COUNT_OF(fields));
	buffer_free(&client);
}

static void on_delay(int fd, short what, void *context)
{
	struct login *l = context;
	(void)fd;
	(void)what;
	answer(l, l->answer, nothing, nothing);
	end_login(l);
}

/* After a while, whatever was wrong with it. */
static void answer_late(struct login *l, enum login_status status)
{
	struct timeval tv = {.tv_sec = (time_t)l->authd->proc.config.servers[l->server].p.auth_failure_delay};
	l->answer = status;
	l->wait = WAITS_DELAY;
	l->settled = true;
	buffer_wipe(&l->response);
	if (l->delay != NULL)
		event_free(l->delay);
	l->delay = event_new(l->authd->proc.base, -1, 0, on_delay, l);
	if (l->delay == NULL || event_add(l->delay, &tv) != 0)
		on_delay(-1, 0, l);
}

void login_refuse(struct login *l, const char *why)
{
	l->settled = true;
	failures_count(l);
	log_login(l, EV_login_failed, "reason", why);
	answer_late(l, LOGIN_BAD);
}

static void limit(struct login *l, const char *which)
{
	log_login(l, EV_login_limited, "limit", which);
	answer_late(l, LOGIN_LIMITED);
}

void login_accept(struct login *l)
{
	unsigned char proof[LOGIN_PROOF];
	const char *which;
	l->settled = true;
	if (l->name[0] != '\0' && failures_over(l, &which)) {
		limit(l, which);
		return;
	}
	if (l->name[0] == '\0') {
		login_refuse(l, "no name");
		return;
	}
	failures_good(l);
	log_login(l, EV_login, "status", "good");
	if (login_prove(l->authd->key, l->worker->instance, l->authd->proc.config.servers[l->server].name, span_of(l->name), proof))
		answer(l, LOGIN_GOOD, span_of(l->name), (struct span){(const char *)proof, sizeof proof});
	else
		answer(l, LOGIN_FAILED, nothing, nothing);
	end_login(l);
}

/* ---- back ends that answer later ---- */

void login_failed(struct login *l)
{
	l->settled = true;
	answer(l, LOGIN_FAILED, nothing, nothing);
	end_login(l);
}

static void on_silence(int fd, short what, void *context)
{
	struct login *l = context;
	(void)fd;
	(void)what;
	log_login(l, EV_login_unanswered, "reason", "the back end does not answer");
	answer(l, LOGIN_FAILED, nothing, nothing);
	end_login(l);
}

void login_wait_for_backend(struct login *l, int seconds)
{
	struct timeval tv = {.tv_sec = seconds};
	l->wait = WAITS_BACKEND;
	buffer_wipe(&l->response);
	if (l->delay != NULL)
		event_free(l->delay);
	l->delay = event_new(l->authd->proc.base, -1, 0, on_silence, l);
	if (l->delay != NULL)
		(void)event_add(l->delay, &tv);
}

void login_take_name(struct login *l, struct span said)
{
	char text[sizeof l->name];
	(void)snprintf(text, sizeof text, "%.*s", SPAN_ARG(said));
	(void)!sasl_take_name(l, text);
}

void login_resume(struct login *l)
{
	if (l->delay != NULL)
		event_free(l->delay);
	l->delay = NULL;
	take_turn(l);
}

void login_challenge(struct login *l, struct span bytes)
{
	if (l->delay != NULL)
		event_free(l->delay);
	l->delay = NULL;
	l->wait = WAITS_CLIENT;
	answer(l, LOGIN_GOES_ON, bytes, nothing);
}

/* ---- turns ---- */

static const struct auth_server *a_server(const struct login *l)
{
	return &l->authd->servers[l->server];
}

static void go_on(struct login *l)
{
	char *out;
	size_t n;
	const char *which;
	if (l->last) { /* the client has seen that the server knows it (RFC 5802 3); it has nothing more to say */
		if (l->response.n > 0)
			login_refuse(l, "words after the last");
		else
			login_accept(l);
		return;
	}
	if (failures_over(l, &which)) {
		limit(l, which);
		return;
	}
	if (a_server(l)->dovecot != NULL && l->mechanism != MECHANISM_EXTERNAL) {
		dovecot_step(l);
		return;
	}
	if (integrated_is(l)) {
		integrated_step(l);
		return;
	}
	if (l->mechanism == MECHANISM_CRAM_MD5) {
		cram_step(l);
		return;
	}
	if (table_asks_first(l))
		return;
	int r = sasl_step(l, &out, &n);
	if (pam_is(l->authd, l->server) ? pam_waits(l) : table_is(l->authd, l->server) && table_waits(l)) {
		gsasl_free(out);
		return;
	}
	buffer_wipe(&l->response);
	l->first = false;
	l->last = r == GSASL_OK && n > 0;
	if (r == GSASL_NEEDS_MORE || l->last) {
		l->wait = WAITS_CLIENT;
		answer(l, LOGIN_GOES_ON, (struct span){out, n}, nothing);
	} else if (r == GSASL_OK) {
		login_accept(l);
	} else if (l->name[0] != '\0' && failures_over(l, &which)) { /* known only now */
		limit(l, which);
	} else {
		login_refuse(l, gsasl_strerror_name(r));
	}
	gsasl_free(out);
}

void login_run(int fd, short what, void *context)
{
	static const struct timeval now = {0};
	struct authd *a = context;
	struct login *l = a->turns;
	(void)fd;
	(void)what;
	users_tell(a); /* what was read before there was a log */
	outward_run(a);
	if (l != NULL) {
		leave_turns(l);
		go_on(l);
	}
	if (a->turns != NULL || a->outward_turns != NULL)
		(void)event_add(a->turn, &now);
}

/* ---- what comes ---- */

static struct login *make_login(struct authd *a, struct channel *c, const struct msg_auth_begin *m)
{
	/* a worker that takes another mechanism than it was offered wants another back end's users */
	bool may = sasl_word(m->mechanism)[0] != '\0' && (users_offered(a, m->server) & m->mechanism) != 0;
	struct login *l = !may || a->logins_n >= LOGINS_MOST ? NULL : calloc(1, sizeof *l);
	if (l == NULL)
		return NULL;
	*l = (struct login){.authd = a, .worker = c, .serial = m->serial, .number = ++a->numbers, .server = m->server, .mechanism = m->mechanism,
		.first = m->initial == 0, .next = a->logins};
	buffer_init(&l->response, LOGIN_RESPONSE);
	buffer_put_span(&l->response, m->response);
	buffer_init(&l->certificates, 64 * 1024);
	buffer_put_span(&l->certificates, m->certificates);
	a->logins = l;
	a->logins_n++;
	if (buffer_ok(&l->response) && (a->servers[l->server].dovecot != NULL || integrated_is(l) || l->mechanism == MECHANISM_CRAM_MD5))
		return l;
	if (buffer_ok(&l->response) && sasl_begin(l) == 0) {
		sasl_bind(l->gsasl, m->exporter, m->unique);
		return l;
	}
	end_login(l);
	return NULL;
}

int login_on_begin(struct channel *c, struct message *m)
{
	HANDLE(c, m, auth_begin, begin);
	struct authd *a = c->program;
	if (begin.server >= a->proc.config.servers_n || find(a, c, begin.serial) != NULL)
		return EBADMSG;
	struct login *l = make_login(a, c, &begin);
	if (l == NULL) {
		send_auth_answer(c, (struct msg_auth_answer){.serial = begin.serial, .status = LOGIN_FAILED}, -1);
		return 0;
	}
	l->wait = WAITS_FRONT;
	if (a->front == NULL)
		take_turn(l);
	else
		send_client_query(a->front, (struct msg_client_query){.serial = l->number, .worker = c->instance, .session = begin.session}, -1);
	return 0;
}

int login_on_client(struct channel *c, struct message *m)
{
	HANDLE(c, m, client_answer, got);
	struct login *l = login_by_number(c->program, got.serial);
	if (l == NULL || l->wait != WAITS_FRONT)
		return 0;
	l->client_known = got.client.n == sizeof l->client;
	l->trusted = got.trusted != 0;
	if (l->client_known)
		memcpy(l->client, got.client.at, sizeof l->client);
	take_turn(l);
	return 0;
}

int login_on_step(struct channel *c, struct message *m)
{
	HANDLE(c, m, auth_step, step);
	struct login *l = find(c->program, c, step.serial);
	if (l == NULL) { /* begun with the authd before this one */
		send_auth_answer(c, (struct msg_auth_answer){.serial = step.serial, .status = LOGIN_FAILED}, -1);
		return 0;
	}
	if (l->wait != WAITS_CLIENT)
		return EBADMSG;
	buffer_put_span(&l->response, step.response);
	if (!buffer_ok(&l->response))
		return EBADMSG;
	take_turn(l);
	return 0;
}

int login_on_end(struct channel *c, struct message *m)
{
	HANDLE(c, m, auth_end, end);
	struct login *l = find(c->program, c, end.serial);
	if (l != NULL)
		end_login(l);
	return 0;
}

void login_worker_gone(struct authd *a, const struct channel *worker)
{
	struct login *next;
	for (struct login *l = a->logins; l != NULL; l = next) {
		next = l->next;
		if (l->worker == worker)
			end_login(l);
	}
}

/* Without it nobody knows the client: the limits of names hold all the same. */
void login_front_gone(struct authd *a)
{
	for (struct login *l = a->logins; l != NULL; l = l->next)
		if (l->wait == WAITS_FRONT)
			take_turn(l);
}
