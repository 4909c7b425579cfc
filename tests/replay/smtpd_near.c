/* The neighbours of an smtpd worker that is played. */
#include "smtpd.h"

#include <string.h>

struct side side = {.client = "127.0.0.1"};

void answer_submission(void)
{
	send_submitted(side.cleanup, (struct msg_submitted){.id = qid_span(&side.id), .status = side.status}, -1);
}

static int on_part(struct channel *c, struct message *m)
{
	HANDLE(c, m, submit_part, part);
	buffer_put_span(&side.parts, part.content);
	return 0;
}

static void put_rcpt(struct buffer *b, const struct envelope_rcpt *r)
{
	static const struct { unsigned bit; const char *word; } kinds[] = {
		{NOTIFY_NEVER, "NEVER"}, {NOTIFY_SUCCESS, "SUCCESS"}, {NOTIFY_FAILURE, "FAILURE"}, {NOTIFY_DELAY, "DELAY"}};
	buffer_printf(b, " to=<%.*s>", SPAN_ARG(r->address));
	for (size_t i = 0; i < COUNT_OF(kinds); i++)
		if ((r->notify & kinds[i].bit) != 0)
			buffer_printf(b, ",%s", kinds[i].word);
	if (r->orcpt.n > 0)
		buffer_printf(b, ",ORCPT=%.*s", SPAN_ARG(r->orcpt));
}

static void describe(struct span text)
{
	struct arena arena = {0};
	struct envelope e;
	struct buffer *b = &side.envelope;
	static const struct { uint32_t bit; const char *word; } flags[] = {
		{ENV_8BIT, "8bit"}, {ENV_UTF8, "utf8"}, {ENV_BINARY, "binary"}, {ENV_BODY_FILE, "file"}, {ENV_LOCAL, "local"}};
	buffer_clear(b);
	if (envelope_parse(text, &arena, &e) != 0) {
		buffer_puts(b, "an envelope that is not good");
		return;
	}
	buffer_printf(b, "from=<%.*s>", SPAN_ARG(e.sender));
	for (size_t i = 0; i < e.rcpts_n; i++)
		put_rcpt(b, &e.rcpts[i]);
	if (e.ret != RET_NONE)
		buffer_printf(b, " ret=%s", e.ret == RET_FULL ? "FULL" : "HDRS");
	if (e.envid.n > 0)
		buffer_printf(b, " envid=%.*s", SPAN_ARG(e.envid));
	for (size_t i = 0; i < COUNT_OF(flags); i++)
		if ((e.flags & flags[i].bit) != 0)
			buffer_printf(b, " %s", flags[i].word);
	if (e.login.n > 0)
		buffer_printf(b, " login=%.*s", SPAN_ARG(e.login));
	buffer_printf(b, " hops=%u size=%llu client=%.*s helo=%.*s protocol=%.*s", e.hops, (unsigned long long)e.size,
		SPAN_ARG(e.client), SPAN_ARG(e.helo), SPAN_ARG(e.protocol));
	arena_free(&arena);
}

static int on_submit(struct channel *c, struct message *m)
{
	HANDLE(c, m, submit, s);
	if (qid_parse(s.id, &side.id) != 0)
		return EBADMSG;
	buffer_clear(&side.content);
	buffer_put_span(&side.content, buffer_span(&side.parts));
	buffer_put_span(&side.content, s.content);
	buffer_clear(&side.parts);
	describe(s.envelope);
	if (s.proof.n > 0)
		buffer_printf(&side.envelope, " proof=%.*s", SPAN_ARG(s.proof));
	side.submissions++;
	if (side.mood == CLEANUP_ANSWERS)
		answer_submission();
	return 0;
}

static int on_body_begin(struct channel *c, struct message *m)
{
	HANDLE(c, m, body_begin, begin);
	buffer_clear(&side.body);
	return qid_parse(begin.id, &side.id);
}

static int on_body_data(struct channel *c, struct message *m)
{
	HANDLE(c, m, body_data, data);
	buffer_put_span(&side.body, data.content);
	if (!side.mover_holds)
		send_body_credit(c, (struct msg_body_credit){.id = data.id, .n = 1}, -1);
	return 0;
}

static int on_body_end(struct channel *c, struct message *m)
{
	HANDLE(c, m, body_end, end);
	send_body_done(c, (struct msg_body_done){.id = end.id, .status = side.body_status, .bytes = side.body.n}, -1);
	return 0;
}

static int on_body_drop(struct channel *c, struct message *m)
{
	HANDLE(c, m, body_drop, drop);
	(void)drop;
	buffer_clear(&side.body);
	return 0;
}

static int on_session_closed(struct channel *c, struct message *m)
{
	HANDLE(c, m, session_closed, closed);
	(void)closed;
	side.sessions_closed++;
	return 0;
}

static int on_etrn(struct channel *c, struct message *m)
{
	HANDLE(c, m, etrn, asked);
	(void)snprintf(side.etrn, sizeof side.etrn, "%.*s", SPAN_ARG(asked.node));
	return 0;
}

static int on_map_query(struct channel *c, struct message *m)
{
	HANDLE(c, m, map_query, query);
	static const char *const names[ASK_COUNT] = {[ASK_RELAY] = "relay", [ASK_LOGINS] = "logins", [ASK_RECIPIENT] = "recipient", [ASK_CLIENT] = "client", [ASK_SENDER] = "sender",
		[ASK_RECIPIENT_ACCESS] = "access", [ASK_HEADER] = "header", [ASK_EXPANSION] = "expansion", [ASK_SENDER_NAME] = "name", [ASK_RECIPIENT_NAME] = "name"};
	side.question = query.serial;
	side.asked++;
	(void)snprintf(side.about, sizeof side.about, "%s %.*s", names[query.question], SPAN_ARG(query.address));
	for (char *p = side.about; *p != '\0'; p++)
		*p = *p == '\r' || *p == '\n' ? '/' : *p;
	return 0;
}

static int on_dns_query(struct channel *c, struct message *m)
{
	HANDLE(c, m, dns_query, query);
	const char *kind = query.kind == DNS_PTR ? "PTR" : query.kind == DNS_A ? "A" : query.kind == DNS_AAAA ? "AAAA" : "?";
	side.dns = query.serial;
	side.dns_kind = query.kind;
	(void)snprintf(side.dns_about, sizeof side.dns_about, "%s %.*s", kind, SPAN_ARG(query.name));
	return 0;
}

static int on_rate_query(struct channel *c, struct message *m)
{
	HANDLE(c, m, rate_query, query);
	side.rated = query.session;
	(void)snprintf(side.rate_about, sizeof side.rate_about, "%s", query.kind == RATE_MESSAGES ? "messages" : query.kind == RATE_RECIPIENTS ? "recipients" : "?");
	return 0;
}

static int on_turn(struct channel *c, struct message *m)
{
	HANDLE(c, m, turn, asked);
	side.turn = asked.serial;
	side.turn_fd = m->fds[0];
	m->fds[0] = -1;
	(void)snprintf(side.turn_about, sizeof side.turn_about, "%.*s%s", SPAN_ARG(asked.nodes), asked.tls != 0 ? " tls" : "");
	return 0;
}

static int on_turn_over(struct channel *c, struct message *m)
{
	HANDLE(c, m, turn_over, over);
	(void)snprintf(side.turn_about, sizeof side.turn_about, "over");
	return 0;
}

static void put_response(const char *what, struct span bytes)
{
	size_t at = (size_t)snprintf(side.login_about, sizeof side.login_about, "%s ", what);
	for (size_t i = 0; i < bytes.n && at + 1 < sizeof side.login_about; i++)
		side.login_about[at++] = bytes.at[i] == '\0' ? '|' : bytes.at[i];
	side.login_about[at] = '\0';
}

static int on_auth_begin(struct channel *c, struct message *m)
{
	HANDLE(c, m, auth_begin, begin);
	char what[100];
	(void)snprintf(what, sizeof what, "begin %u%s%s%s", begin.mechanism, begin.initial != 0 ? " initial" : "", begin.exporter.n > 0 ? " exporter" : "", begin.unique.n > 0 ? " unique" : "");
	side.login = begin.serial;
	put_response(what, begin.response);
	return 0;
}

static int on_auth_step(struct channel *c, struct message *m)
{
	HANDLE(c, m, auth_step, step);
	put_response("step", step.response);
	return 0;
}

static int on_auth_end(struct channel *c, struct message *m)
{
	HANDLE(c, m, auth_end, end);
	(void)snprintf(side.login_about, sizeof side.login_about, "end");
	return 0;
}

static int on_session_client(struct channel *c, struct message *m)
{
	HANDLE(c, m, session_client, said);
	send_session_client_answer(c, (struct msg_session_client_answer){.session = said.session, .status = side.client_status, .flags = side.client_flags}, -1);
	return 0;
}

static int on_sign(struct channel *c, struct message *m)
{
	HANDLE(c, m, sign, s);
	unsigned char out[TLS_SIGNATURE];
	size_t n = 0;
	if (side.keyd_mood == KEYD_HOLDS)
		return 0;
	if (side.keyd_mood == KEYD_SIGNS && tls_sign(side.key, (uint16_t)s.scheme, s.text, out, &n) != 0)
		return EBADMSG;
	send_signed(c, (struct msg_signed){.serial = s.serial, .signature = {(const char *)out, n}}, -1);
	return 0;
}

static void far_gone(struct channel *c, int reason)
{
	struct channel **far[] = {&side.cleanup, &side.mover, &side.front, &side.maps, &side.qmgr, &side.resolver, &side.authd, &side.keyd};
	(void)reason;
	for (size_t i = 0; i < COUNT_OF(far); i++)
		if (*far[i] == c)
			*far[i] = NULL;
}

static const struct channel_owner far_owner = {
	.handlers = {[MSG_submit] = on_submit, [MSG_submit_part] = on_part, [MSG_body_begin] = on_body_begin, [MSG_body_data] = on_body_data,
		[MSG_body_end] = on_body_end, [MSG_body_drop] = on_body_drop, [MSG_session_closed] = on_session_closed,
		[MSG_map_query] = on_map_query, [MSG_etrn] = on_etrn, [MSG_dns_query] = on_dns_query, [MSG_rate_query] = on_rate_query,
		[MSG_auth_begin] = on_auth_begin, [MSG_auth_step] = on_auth_step, [MSG_auth_end] = on_auth_end,
		[MSG_turn] = on_turn, [MSG_turn_over] = on_turn_over, [MSG_sign] = on_sign, [MSG_session_client] = on_session_client},
	.gone = far_gone,
};

static void near_gone(struct channel *c, int reason)
{
	struct worker_server *s = &side.worker.servers[0];
	(void)reason;
	if (side.worker.front == c) {
		side.worker.front = NULL;
		client_front_gone(&side.worker);
	}
	if (side.worker.resolver == c)
		side.worker.resolver = NULL;
	if (side.worker.authd == c)
		auth_gone(&side.worker);
	if (side.worker.keyd == c)
		side.worker.keyd = NULL;
	if (side.worker.maps == c)
		side.worker.maps = NULL;
	if (s->cleanup == c)
		s->cleanup = NULL;
	if (s->qmgr == c) {
		s->qmgr = NULL;
		turn_qmgr_gone(&side.worker, 0);
	}
	if (s->mover == c) {
		submit_mover_gone(&side.worker, c);
		s->mover = NULL;
	}
}

static const struct channel_owner near_owner = {
	.handlers = {[MSG_submitted] = submit_on_submitted, [MSG_body_credit] = submit_on_credit, [MSG_body_done] = submit_on_body_done,
		[MSG_map_answer] = screen_on_answer, [MSG_rate_answer] = client_on_rate, [MSG_dns_answer] = client_on_answer,
		[MSG_session_client_answer] = xclient_on_answer, [MSG_auth_offer] = auth_on_offer, [MSG_auth_answer] = auth_on_answer, [MSG_turn_answer] = turn_on_answer,
		[MSG_key_offer] = keys_on_offer, [MSG_key_offers_end] = keys_on_offers_end, [MSG_ticket_keys] = keys_on_tickets, [MSG_signed] = keys_on_signed},
	.gone = near_gone,
};

struct channel *link_to(struct replay *r, enum role role, struct channel **far)
{
	struct replay_link l = {.me = R_SMTPD, .peer = role, .near_owner = &near_owner, .far_owner = &far_owner, .near_program = &side.worker, .far_program = &side};
	replay_link(r, &l);
	*far = l.far;
	return l.near;
}

/* "state WORD SERIAL": what master says of the server; "front-serial N": the state by which front lets sessions in. */
void replay_state(struct replay *r, struct span args)
{
	static const char *const words[] = {[SERVER_RUNS] = "runs", [SERVER_PAUSED] = "paused", [SERVER_STOPPED] = "stopped", [SERVER_CUT] = "cut"};
	struct process p = {.program = &side.worker};
	struct channel c = {.program = &p};
	struct buffer b;
	struct span word = span_word(&args, " ");
	uint64_t serial = 0;
	struct msg_server_state said = {.state = COUNT_OF(words)};
	for (uint32_t i = 0; i < COUNT_OF(words); i++)
		if (span_is(word, words[i]))
			said.state = i;
	if (said.state == COUNT_OF(words) || parse_u64(span_word(&args, " "), UINT32_MAX, &serial) != 0)
		replay_fail(r, "state runs|paused|stopped|cut SERIAL");
	said.serial = (uint32_t)serial;
	buffer_init(&b, 100);
	msg_server_state_put(&b, &said);
	struct message m = {.type = MSG_server_state, .payload = buffer_span(&b)};
	if (worker_on_server_state(&c, &m) != 0)
		replay_fail(r, "it is not taken");
	buffer_free(&b);
	replay_settle(r);
}

void replay_front_serial(struct replay *r, struct span args)
{
	uint64_t serial;
	if (parse_u64(span_trim(args), UINT32_MAX, &serial) != 0)
		replay_fail(r, "front-serial N");
	side.front_serial = (uint32_t)serial;
}
