/* XCLIENT, as Postfix's XCLIENT_README has it: a front end says whose connection it is.  front decides, since it counts clients and names
 * them to authd; names are looked up here, not believed. */
#include "worker.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

static const struct span no_detail = {"", 0};

/* One that front has been asked about. */
struct session_xclient {
	struct session *session;
	struct sockaddr_storage addr;
	socklen_t addr_n;
	struct session_xclient *next;
};

bool xclient_is_offered(const struct session *s)
{
	return s->may_xclient;
}

void xclient_forget(struct session *s)
{
	struct session_xclient **p = &s->worker->xclients;
	if (s->xclient == NULL)
		return;
	while (*p != s->xclient)
		p = &(*p)->next;
	*p = s->xclient->next;
	free(s->xclient);
	s->xclient = NULL;
}

/* ADDR=192.0.2.1, ADDR=IPV6:2001:db8::1; the port is of no matter. */
static bool take_address(struct span text, struct sockaddr_storage *out, socklen_t *n)
{
	char literal[80];
	int used = snprintf(literal, sizeof literal, "[%.*s]", SPAN_ARG(text));
	return used > 2 && (size_t)used < sizeof literal && literal_to_sockaddr(span_of(literal), 0, out, n) == 0;
}

/* false: what it says can't be taken; out->addr_n 0: nothing of the address. */
static bool take_attributes(struct span args, struct session_xclient *out)
{
	static const char *const others[] = {"NAME", "PORT", "PROTO", "HELO", "REVERSE_NAME", "DESTADDR", "DESTPORT"};
	bool any = false;
	for (struct span word; (word = span_word(&args, " ")).n > 0; any = true) {
		struct span value = word, key = span_until(&value, '=');
		bool known = false;
		for (size_t i = 0; i < COUNT_OF(others); i++)
			known = known || span_case_is(key, others[i]);
		if (key.n == word.n || value.n == 0 || !xtext_is_valid(value))
			return false;
		if (span_case_is(key, "ADDR") ? !take_address(value, &out->addr, &out->addr_n) && !span_case_is(value, "[UNAVAILABLE]") : !known)
			return false; /* LOGIN too: a login is authd's to say */
	}
	return any;
}

/* As if it had just connected. */
static void forget_all(struct session *s)
{
	client_forget(s);
	auth_forget(s);
	session_reset(s);
	free(s->helo);
	s->helo = NULL;
	s->phase = PHASE_START;
	s->hold = s->discard = false;
	s->state = ST_COMMAND;
}

void xclient_command(struct session *s, struct span args)
{
	struct worker *w = s->worker;
	struct session_xclient said = {.session = s}, *x;
	if (!s->may_xclient) {
		session_reply(s, REPLY_XCLIENT_REFUSED, no_detail);
	} else if (!take_attributes(args, &said)) {
		session_reply(s, REPLY_SYNTAX, no_detail);
	} else if (said.addr_n == 0) {
		forget_all(s);
		session_put_greeting(s);
	} else if (w->front == NULL || s->fronts != w->fronts || (x = malloc(sizeof *x)) == NULL) {
		session_reply(s, REPLY_LOCAL_ERROR, no_detail);
	} else {
		*x = said;
		x->next = w->xclients;
		w->xclients = s->xclient = x;
		s->state = ST_ASKING;
		send_session_client(w->front, (struct msg_session_client){.session = s->number, .client = {(const char *)&x->addr, x->addr_n}}, -1);
	}
}

static void take_answer(struct session *s, const struct msg_session_client_answer *got)
{
	static const enum reply refusals[] = {[CLIENT_DENIED] = REPLY_ACCESS_DENIED, [CLIENT_OVER] = REPLY_TOO_MANY, [CLIENT_NOT_HERE] = REPLY_XCLIENT_REFUSED};
	struct session_xclient x = *s->xclient;
	xclient_forget(s);
	s->state = ST_COMMAND;
	session_arm(s);
	if (got->status == CLIENT_TAKEN) {
		s->client = x.addr;
		s->trusted = (got->flags & SESSION_TRUSTED) != 0;
		s->decide_by_name = (got->flags & SESSION_NAME_DECIDES) != 0;
		session_name_client(s);
		forget_all(s);
		session_begin(s); /* access by name, tables, the greeting */
		return;
	}
	session_reply(s, got->status < COUNT_OF(refusals) ? refusals[got->status] : REPLY_LOCAL_ERROR, no_detail);
	s->quit = got->status != CLIENT_NOT_HERE;
	session_run(s);
}

int xclient_on_answer(struct channel *c, struct message *m)
{
	HANDLE(c, m, session_client_answer, got);
	struct worker *w = c->program;
	struct session_xclient *x = w->xclients;
	while (x != NULL && x->session->number != got.session)
		x = x->next;
	if (x != NULL)
		take_answer(x->session, &got);
	return 0;
}

void xclient_front_gone(struct worker *w)
{
	while (w->xclients != NULL) {
		struct session *s = w->xclients->session;
		xclient_forget(s);
		s->state = ST_COMMAND;
		session_reply(s, REPLY_LOCAL_ERROR, no_detail);
		session_run(s);
	}
}
