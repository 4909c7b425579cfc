/* The conversation outside the envelope: greeting, EHLO, TLS, the end of a session. */
#include "smtp_agent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct server_params *params(const struct conn *c)
{
	return agent_params(c->agent, c->hop->server);
}

static void say(struct conn *c, enum conn_state next, const char *verb, const char *argument)
{
	buffer_printf(&c->out, "%s%s%s\r\n", verb, argument[0] == '\0' ? "" : " ", argument);
	conn_state(c, next, hop_out(c->hop)->outbound_command_timeout);
	conn_flush(c);
}

static void say_hello(struct conn *c)
{
	if (c->hop->lmtp) /* RFC 2033 4.1 */
		say(c, CONN_EHLO, "LHLO", params(c)->fqdn);
	else if (c->hop->helo_only)
		say(c, CONN_HELO, "HELO", params(c)->fqdn);
	else
		say(c, CONN_EHLO, "EHLO", params(c)->fqdn);
}

static void keep_reason(struct job *j, const char *what, int code, struct span text)
{
	char all[900];
	if (code > 0)
		(void)snprintf(all, sizeof all, "%s said: %d %.*s (%s)", j->peer, code, SPAN_ARG(text), what);
	else
		(void)snprintf(all, sizeof all, "%s: %.*s (%s)", j->peer, SPAN_ARG(text), what);
	free(j->last_reason);
	j->last_reason = span_dup(span_of(all));
	j->last_status = NULL;
}

static const char *stage_text(enum conn_state s)
{
	static const char *const texts[] = {"connecting", "greeting", "EHLO", "HELO", "STARTTLS", "TLS handshake", "AUTH", "idle",
		"envelope", "sending the message", "end of the message", "RSET", "QUIT"};
	return texts[s];
}

/* What a break in this state says about the address (the rows with code 0 of fates.def). */
static enum smtp_stage stage_of(enum conn_state s)
{
	static const enum smtp_stage stages[] = {[CONN_CONNECTING] = STAGE_CONNECT, [CONN_GREETING] = STAGE_GREETING, [CONN_EHLO] = STAGE_HELO,
		[CONN_HELO] = STAGE_HELO, [CONN_STARTTLS] = STAGE_HELO, [CONN_HANDSHAKE] = STAGE_HELO, [CONN_AUTH] = STAGE_AUTH, [CONN_IDLE] = STAGE_MAIL,
		[CONN_ENVELOPE] = STAGE_RCPT, [CONN_BODY] = STAGE_DATA, [CONN_DOT] = STAGE_DOT, [CONN_RSET] = STAGE_MAIL, [CONN_QUIT] = STAGE_MAIL};
	return stages[s];
}

/* The connection is of no more use.  Before the final dot nothing is lost by trying elsewhere;
 * after it the message may or may not have been taken: it waits for its time. */
void dialog_broken(struct conn *c, const char *reason)
{
	struct job *j = c->job;
	bool early = fate_of_reply(stage_of(c->state), 0) == FATE_TRY_NEXT, unanswered = c->expect_at == 0 && c->state == CONN_ENVELOPE, tls = c->state == CONN_HANDSHAKE || c->state == CONN_STARTTLS;
	if (j == NULL) {
		conn_close(c);
		return;
	}
	char what[120];
	bool due = tls && policy_of(c) > LEVEL_OPPORTUNISTIC;
	(void)snprintf(what, sizeof what, "%s%s%s", stage_text(c->state), due ? "; TLS " : "", due ? policy_text(policy_of(c)) : "");
	keep_reason(j, what, 0, span_of(reason));
	if (due)
		j->last_status = "4.7.5";
	if (tls && policy_of(c) == LEVEL_OPPORTUNISTIC) {
		LOG(&c->agent->proc.log, tls_failed, qid_span(&j->id), F("peer", span_of(j->peer)), F("reason", span_of(reason)));
		c->hop->no_tls_until_ms = clock_mono_ms() + NO_TLS_MS;
		j->target_at = c->target_index; /* the same address again, in clear */
	}
	bool again = j->reused && unanswered && !j->fresh_only, plainer = adapt_after_break(c);
	c->job = NULL;
	conn_close(c);
	if (again) { /* the peer had closed an idle connection: not its fault, nor the message's */
		j->fresh_only = true;
		j->reused = false;
		j->target_at = 0;
		job_start(j);
	} else if (early || plainer) {
		conn_open(j);
	} else {
		job_finish(j, false);
	}
}

/* status: of the mail when no address is left; NULL: the usual one. */
static void leave_address(struct conn *c, const char *what, int code, struct span text, const char *status)
{
	struct job *j = c->job;
	keep_reason(j, what, code, text);
	j->last_status = status;
	c->job = NULL;
	conn_say_quit(c);
	conn_open(j);
}

void dialog_next_address(struct conn *c, const char *what)
{
	leave_address(c, what, c->reply.code, buffer_span(&c->reply.text), NULL);
}

static void take_extension(struct conn *c, struct span line)
{
	static const struct { const char *word; unsigned bit; } known[] = {
		{"PIPELINING", PEER_PIPELINING}, {"SIZE", PEER_SIZE}, {"8BITMIME", PEER_8BITMIME}, {"CHUNKING", PEER_CHUNKING}, {"DSN", PEER_DSN},
		{"STARTTLS", PEER_STARTTLS}, {"SMTPUTF8", PEER_SMTPUTF8}, {"BINARYMIME", PEER_BINARYMIME},
		{"REQUIRETLS", PEER_REQUIRETLS}};
	if (line.n < 4)
		return;
	line.at += 4;
	line.n -= 4;
	struct span word = span_word(&line, " ");
	for (size_t i = 0; i < COUNT_OF(known); i++)
		if (span_case_is(word, known[i].word))
			c->offers |= known[i].bit;
	if (span_case_is(word, "SIZE") && parse_u64(span_word(&line, " "), UINT64_MAX, &c->peer_size) != 0)
		c->peer_size = 0;
	if (span_case_is(word, "AUTH"))
		auth_take_extension(c, line);
	else if (word.n > 5 && span_case_is((struct span){word.at, 5}, "AUTH=")) /* as old servers write it */
		auth_take_extension(c, (struct span){word.at + 5, word.n - 5 + line.n + (line.n > 0 ? 1 : 0)});
}

static void start_tls(struct conn *c)
{
	if (c->in.n > 0) { /* RFC 3207 6: what came before the handshake is nobody's word */
		dialog_broken(c, "data after the STARTTLS reply");
		return;
	}
	c->ssl = tls_session(c->agent->tls[c->hop->server], c->fd, false, c);
	if (c->ssl == NULL) {
		dialog_broken(c, "no memory for TLS");
		return;
	}
	const struct tlsa_set *tlsa = policy_of(c) == LEVEL_DANE ? c->target.tlsa : NULL;
	const char *host = tlsa != NULL ? tlsa->base : c->target.name;
	if (!name_looks_like_address(span_of(host)) && strchr(host, ':') == NULL) /* RFC 6066 3: no addresses */
		(void)SSL_set_tlsext_host_name(c->ssl, host);
	if (policy_demand(c) != 0) {
		dialog_broken(c, "its certificate can't be checked");
		return;
	}
	conn_state(c, CONN_HANDSHAKE, hop_out(c->hop)->outbound_command_timeout);
	dialog_handshake(c);
}

void dialog_handshake(struct conn *c)
{
	switch (tls_handshake(c->ssl)) {
	case TLS_OK:
		(void)event_del(c->writable);
		c->want_write = false;
		c->offers = c->mechanisms = 0;
		report_handshake(c, true);
		say_hello(c);
		return;
	case TLS_WANT_WRITE:
		(void)event_add(c->writable, NULL);
		c->want_write = true;
		return;
	case TLS_WANT_READ:
		(void)event_del(c->writable);
		c->want_write = false;
		return;
	case TLS_CLOSED:
	case TLS_FAILED:
	case TLS_WANT_KEY:
	case TLS_WANT_JOB:
		report_handshake(c, false);
		dialog_broken(c, tls_failure_text(c->ssl));
	}
}

static bool wants_tls(const struct conn *c)
{
	enum tls_level level = policy_of(c);
	return c->ssl == NULL && !c->hop->turned && level != LEVEL_NONE && (level > LEVEL_OPPORTUNISTIC || clock_mono_ms() >= c->hop->no_tls_until_ms);
}

/* Of a connection that was turned the configuration alone says it. */
static enum tls_level level_due(const struct conn *c)
{
	return c->hop->turned ? (!c->hop->turned_tls && hop_out(c->hop)->outbound_tls == OUT_TLS_REQUIRE ? LEVEL_REQUIRE : LEVEL_NONE) : policy_of(c);
}

static void established(struct conn *c)
{
	adapt_offers(c);
	if (wants_tls(c) && (c->offers & PEER_STARTTLS) != 0) {
		say(c, CONN_STARTTLS, "STARTTLS", "");
		return;
	}
	enum tls_level due = level_due(c);
	if (wants_tls(c) && c->state != CONN_STARTTLS)
		report_session(c, RESULT_STARTTLS_NOT_SUPPORTED, "");
	if (c->ssl == NULL && due > LEVEL_OPPORTUNISTIC) {
		char what[100];
		(void)snprintf(what, sizeof what, "TLS %s", policy_text(due));
		leave_address(c, what, 0, SPAN_LIT("the peer offers no TLS"), "4.7.5");
	} else if (c->hop->demand == DEMAND_TLS && (c->offers & PEER_REQUIRETLS) == 0) { /* RFC 8689 4.2.1 (4) */
		leave_address(c, "the message requires it", 0, SPAN_LIT("the peer does not offer REQUIRETLS"), "5.7.30");
	} else if (auth_is_due(c)) {
		auth_begin(c);
	} else {
		dialog_established(c);
	}
}

void dialog_established(struct conn *c)
{
	c->greeted = true;
	dialog_begin(c);
}

void dialog_begin(struct conn *c)
{
	c->job->connected = true;
	if (c->agent->stopping) {
		c->job = NULL;
		conn_say_quit(c);
		return;
	}
	c->job->sending = true;
	if (!envelope_fits(c)) {
		struct job *j = c->job;
		c->job = NULL;
		job_finish(j, false);
		slot_idle(c);
		return;
	}
	envelope_send(c);
}

/* A reply outside the envelope is complete. */
static void step(struct conn *c)
{
	enum conn_state state = c->state;
	int code = c->reply.code;
	if (c->job != NULL)
		c->job->heard = true;
	switch (state) {
	case CONN_GREETING:
		if (fate_of_reply(STAGE_GREETING, code) == FATE_GO_ON)
			say_hello(c);
		else
			dialog_next_address(c, "greeting");
		return;
	case CONN_EHLO:
	case CONN_HELO:
		if (fate_of_reply(STAGE_HELO, code) == FATE_GO_ON)
			established(c);
		else if (state == CONN_EHLO && code / 100 == 5 && code != 521 && !c->hop->lmtp) /* RFC 5321 4.1.4: an old server */
			say(c, CONN_HELO, "HELO", params(c)->fqdn);
		else
			dialog_next_address(c, state == CONN_EHLO ? "EHLO" : "HELO");
		return;
	case CONN_STARTTLS:
		if (code == 220) {
			start_tls(c);
			return;
		}
		report_session(c, RESULT_STARTTLS_NOT_SUPPORTED, "STARTTLS was refused");
		if (code == 421 || policy_of(c) > LEVEL_OPPORTUNISTIC) {
			leave_address(c, "STARTTLS", code, buffer_span(&c->reply.text), policy_of(c) > LEVEL_OPPORTUNISTIC ? "4.7.5" : NULL);
			return;
		}
		c->hop->no_tls_until_ms = clock_mono_ms() + NO_TLS_MS;
		established(c);
		return;
	case CONN_IDLE: /* a word nobody asked for, most often 421 */
	case CONN_QUIT:
		conn_close(c);
		return;
	case CONN_CONNECTING: case CONN_HANDSHAKE: case CONN_BODY:
		dialog_broken(c, "an answer out of step");
		return;
	case CONN_AUTH:
		auth_reply(c);
		return;
	case CONN_ENVELOPE: case CONN_DOT: case CONN_RSET:
		envelope_reply(c);
		return;
	}
}

/* Takes one line off the input; false: none is complete. */
static bool next_line(struct conn *c, struct span *line, size_t *used)
{
	const char *lf = c->in.n > 0 ? memchr(c->in.at, '\n', c->in.n) : NULL;
	if (lf == NULL)
		return false;
	*used = (size_t)(lf - c->in.at) + 1;
	*line = (struct span){c->in.at, *used - 1};
	if (line->n > 0 && line->at[line->n - 1] == '\r')
		line->n--;
	return true;
}

/* step() may close the connection: while stepping, conn_close leaves the struct itself for us. */
void dialog_input(struct conn *c)
{
	struct span line;
	size_t used;
	while (next_line(c, &line, &used)) {
		int result = line.n > (c->state == CONN_AUTH ? LINE_AUTH : LINE_MOST) ? EBADMSG : peer_reply_line(&c->reply, line);
		if (result != EBADMSG && (c->state == CONN_EHLO) && c->reply.lines > 1)
			take_extension(c, line);
		buffer_drop(&c->in, used);
		if (result == EBADMSG) {
			if (c->job != NULL)
				LOG(&c->agent->proc.log, peer_broken, qid_span(&c->job->id), F("peer", span_of(c->job->peer)));
			dialog_broken(c, "the peer's answer is not SMTP");
			return;
		}
		if (result == EAGAIN)
			continue;
		c->stepping = true;
		step(c);
		c->stepping = false;
		if (c->closed) {
			free(c);
			return;
		}
		peer_reply_clear(&c->reply);
	}
	if (c->in.n > (c->state == CONN_AUTH ? 2 * LINE_AUTH : 2 * LINE_MOST))
		dialog_broken(c, "the peer's line does not end");
}
