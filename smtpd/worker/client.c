/* What is known of a client beside its address: its names in the DNS, and how much it has sent. */
#include "worker.h"

#include <stdlib.h>
#include <string.h>

enum { DNS_MS = 10000 }; /* for one question of several */

static const struct span no_detail = {"", 0};

/* ---- names ---- */

static void close_names(struct client_names *n)
{
	struct client_names **p = &n->session->worker->naming;
	while (*p != NULL && *p != n)
		p = &(*p)->next;
	if (*p != NULL)
		*p = n->next;
}

/* Without a resolver it is asked again when there is one. */
static bool ask(struct reverse *r, enum dns_kind kind, const char *name)
{
	struct client_names *n = r->context;
	struct worker *w = n->session->worker;
	n->serial = ++w->questions;
	if (w->resolver != NULL)
		send_dns_query(w->resolver, (struct msg_dns_query){.serial = n->serial, .kind = (uint32_t)kind, .limit_ms = DNS_MS, .name = span_of(name)}, -1);
	return true;
}

/* May free the session. */
static void go_on(struct session *s)
{
	enum names_for why = s->names_for;
	enum reply r = REPLY_COUNT;
	s->names_for = NAMES_FOR_NOTHING;
	if (why == NAMES_FOR_NOTHING)
		return;
	s->state = ST_COMMAND;
	session_arm(s);
	switch (why) {
	case NAMES_FOR_ACCESS:
		client_check_access(s);
		return;
	case NAMES_FOR_RELAY:
		r = mail_route_recipient(s);
		break;
	case NAMES_FOR_DATA:
		data_begin(s);
		break;
	case NAMES_FOR_CHUNK:
		chunk_go_on(s);
		break;
	case NAMES_FOR_NOTHING:
		break;
	}
	if (r != REPLY_COUNT)
		session_put(s, r, no_detail);
	session_run(s);
}

static void named(struct reverse *r)
{
	struct client_names *n = r->context;
	close_names(n);
	go_on(n->session);
}

static bool look_up(struct session *s)
{
	struct worker *w = s->worker;
	struct client_names *n = calloc(1, sizeof *n);
	if (n == NULL)
		return false;
	*n = (struct client_names){.session = s, .asked_ms = clock_mono_ms(), .next = w->naming,
		.reverse = {.context = n, .ask = ask, .done = named}};
	s->names = n;
	if (!reverse_begin(&n->reverse, (const struct sockaddr *)&s->client))
		return false;
	w->naming = n;
	return true;
}

bool client_names_wait(struct session *s, enum names_for why)
{
	if (s->names == NULL && !look_up(s))
		return false;
	if (s->names->reverse.state != REVERSE_OPEN)
		return false;
	s->names_for = why;
	s->state = ST_ASKING;
	return true;
}

void client_names_early(struct session *s)
{
	if (s->names == NULL)
		(void)look_up(s);
}

int client_on_answer(struct channel *c, struct message *m)
{
	HANDLE(c, m, dns_answer, got);
	struct worker *w = c->program;
	struct client_names *n = w->naming;
	while (n != NULL && n->serial != got.serial)
		n = n->next;
	if (n != NULL)
		reverse_answer(&n->reverse, (enum dns_status)got.status, got.records);
	return 0;
}

static void begin_again(struct client_names *n)
{
	reverse_free(&n->reverse);
	if (!reverse_begin(&n->reverse, (const struct sockaddr *)&n->session->client))
		named(&n->reverse);
}

void client_ask_again(struct worker *w)
{
	struct client_names *next;
	for (struct client_names *n = w->naming; n != NULL; n = next) {
		next = n->next;
		begin_again(n);
	}
}

void client_late(struct worker *w, int64_t now_ms)
{
	struct client_names *next;
	for (struct client_names *n = w->naming; n != NULL; n = next) {
		next = n->next;
		if (now_ms - n->asked_ms < ASK_MS)
			continue;
		n->reverse.state = REVERSE_FAILED;
		named(&n->reverse);
	}
}

/* ---- what they decide ---- */

void client_check_access(struct session *s)
{
	struct worker_server *ws = &s->worker->servers[s->server];
	bool allow = session_params(s)->access == 0;
	enum listed listed = reverse_listed(&ws->access, (const struct sockaddr *)&s->client, s->names == NULL ? NULL : &s->names->reverse);
	if (listed == LISTED_NEEDS_NAMES && client_names_wait(s, NAMES_FOR_ACCESS))
		return;
	if (listed == LISTED_UNKNOWN || listed == LISTED_NEEDS_NAMES) {
		session_end(s, REPLY_ACCESS_UNCHECKED);
		session_run(s);
	} else if ((listed == LISTED_YES) == allow) {
		session_reply(s, REPLY_ACCESS_DENIED, no_detail);
		s->quit = true;
		session_run(s);
	} else {
		session_welcome(s);
	}
}

const char *client_remark(const struct session *s)
{
	struct span helo = span_of(s->helo);
	struct sockaddr_storage sa;
	socklen_t n;
	unsigned char said[16], real[16];
	if (session_params(s)->reverse_dns_lookup == 0)
		return "";
	if (literal_to_sockaddr(helo, 0, &sa, &n) == 0 && sockaddr_to_v6((struct sockaddr *)&sa, said) == 0 &&
		sockaddr_to_v6((const struct sockaddr *)&s->client, real) == 0 && memcmp(said, real, 16) == 0)
		return "";
	if (s->names == NULL)
		return "RDNS failed";
	const struct reverse *r = &s->names->reverse;
	for (size_t i = 0; i < r->names_n; i++)
		if (span_case_is(helo, r->names[i]))
			return "";
	return r->state != REVERSE_NAMED || r->uncertain ? "RDNS failed" : "unverified";
}

/* ---- rates ---- */

bool client_rate(struct session *s, enum rate_kind kind)
{
	struct worker *w = s->worker;
	if (s->trusted || w->servers[s->server].rates[kind].n == PARAM_UNLIMITED || w->front == NULL || s->fronts != w->fronts)
		return false;
	send_rate_query(w->front, (struct msg_rate_query){.session = s->number, .kind = kind}, -1);
	s->is_rated = true;
	s->rated = kind;
	s->state = ST_ASKING;
	s->next_rated = w->rated;
	w->rated = s;
	return true;
}

static void leave_rated(struct session *s)
{
	struct session **p = &s->worker->rated;
	if (!s->is_rated)
		return;
	while (*p != s)
		p = &(*p)->next_rated;
	*p = s->next_rated;
	s->is_rated = false;
}

static enum reply counted(struct session *s, bool over)
{
	bool mail = s->rated == RATE_MESSAGES;
	enum reply r = mail ? REPLY_RATE_MESSAGES : REPLY_RATE_RECIPIENTS;
	if (!over)
		return mail ? mail_screen_sender(s) : mail_screen_recipient(s);
	LOG(&s->worker->proc.log, refused_command, NO_ID, F("client", span_of(s->address)), F("from", s->t->sender), F("reply", span_of(reply_row(r)->text)));
	if (mail)
		session_reset(s);
	return r;
}

/* May free s. */
static void take_count(struct session *s, bool over)
{
	leave_rated(s);
	s->state = ST_COMMAND;
	session_arm(s);
	enum reply r = counted(s, over);
	if (r != REPLY_COUNT)
		session_put(s, r, no_detail);
	session_run(s);
}

int client_on_rate(struct channel *c, struct message *m)
{
	HANDLE(c, m, rate_answer, got);
	struct worker *w = c->program;
	struct session *s = w->rated;
	while (s != NULL && s->number != got.session)
		s = s->next_rated;
	if (s != NULL)
		take_count(s, got.over != 0);
	return 0;
}

/* Its counts are gone with it: what was asked goes on. */
void client_front_gone(struct worker *w)
{
	while (w->rated != NULL)
		take_count(w->rated, false);
	xclient_front_gone(w);
}

void client_front_new(struct worker *w)
{
	w->fronts++;
	for (uint32_t i = 0; i < w->proc.config.servers_n; i++) {
		w->servers[i].held = 0;
		for (const struct session *s = w->servers[i].oldest; s != NULL; s = s->newer)
			w->servers[i].held++;
		send_sessions_held(w->front, (struct msg_sessions_held){.server = i, .n = w->servers[i].held}, -1);
	}
}

void client_forget(struct session *s)
{
	leave_rated(s);
	if (s->names != NULL) {
		close_names(s->names);
		reverse_free(&s->names->reverse);
		free(s->names);
		s->names = NULL;
	}
}

int client_read_lists(struct worker *w)
{
	for (size_t i = 0; i < w->proc.config.servers_n; i++) {
		const struct server_params *p = &w->proc.config.servers[i].p;
		struct worker_server *ws = &w->servers[i];
		ws->rates[RATE_CONNECTIONS] = (struct rate){.n = PARAM_UNLIMITED}; /* front's alone */
		if (client_list_replace(&ws->access, p->access_exceptions) != 0 || client_list_replace(&ws->relay_exceptions, p->relay_exceptions) != 0 ||
			client_list_replace(&ws->etrn_clients, p->etrn_clients) != 0 || client_list_replace(&ws->xclients, p->xclient_clients) != 0 || rate_parse(span_of(p->client_message_rate), &ws->rates[RATE_MESSAGES]) != 0 ||
			rate_parse(span_of(p->client_recipient_rate), &ws->rates[RATE_RECIPIENTS]) != 0)
			return ENOMEM;
	}
	return 0;
}
