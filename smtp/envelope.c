/* MAIL, RCPT, DATA or BDAT; the replies to them, in order. */
#include "smtp_agent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void expect(struct conn *c, enum expected what, uint32_t rcpt)
{
	if (c->expect_n == c->expect_size) {
		size_t n = c->expect_size == 0 ? 8 : c->expect_size * 2;
		void *more = realloc(c->expect, n * sizeof *c->expect);
		if (more == NULL) {
			c->out.failed = true;
			return;
		}
		c->expect = more;
		c->expect_size = n;
	}
	c->expect[c->expect_n].what = what;
	c->expect[c->expect_n++].rcpt = rcpt;
}

static void put_mail(struct conn *c)
{
	const struct job *j = c->job;
	struct buffer *b = &c->out;
	buffer_puts(b, "MAIL FROM:<");
	buffer_put_span(b, j->e.sender);
	buffer_putc(b, '>');
	if ((c->offers & PEER_SIZE) != 0) {
		buffer_puts(b, " SIZE=");
		buffer_put_decimal(b, j->size, 1);
	}
	if ((j->e.flags & ENV_BINARY) != 0)
		buffer_puts(b, " BODY=BINARYMIME");
	else if ((j->e.flags & ENV_8BIT) != 0)
		buffer_puts(b, " BODY=8BITMIME");
	if ((j->e.flags & ENV_UTF8) != 0 && (c->offers & PEER_SMTPUTF8) != 0)
		buffer_puts(b, " SMTPUTF8");
	if (c->hop->demand == DEMAND_TLS)
		buffer_puts(b, " REQUIRETLS");
	if ((c->offers & PEER_DSN) != 0) {
		if (j->e.ret != RET_NONE)
			buffer_printf(b, " RET=%s", j->e.ret == RET_FULL ? "FULL" : "HDRS");
		if (j->e.envid.n > 0)
			buffer_printf(b, " ENVID=%.*s", SPAN_ARG(j->e.envid));
	}
	buffer_puts(b, "\r\n");
	expect(c, EXPECT_MAIL, 0);
}

static void put_notify(struct buffer *b, unsigned notify)
{
	static const struct { unsigned bit; const char *word; } kinds[] = {
		{NOTIFY_NEVER, "NEVER"}, {NOTIFY_SUCCESS, "SUCCESS"}, {NOTIFY_FAILURE, "FAILURE"}, {NOTIFY_DELAY, "DELAY"}};
	const char *separator = " NOTIFY=";
	for (size_t i = 0; i < COUNT_OF(kinds); i++) {
		if ((notify & kinds[i].bit) == 0)
			continue;
		buffer_printf(b, "%s%s", separator, kinds[i].word);
		separator = ",";
	}
}

static void put_rcpt(struct conn *c, uint32_t i)
{
	const struct envelope_rcpt *r = &c->job->e.rcpts[i];
	struct buffer *b = &c->out;
	buffer_puts(b, "RCPT TO:<");
	buffer_put_span(b, r->address);
	buffer_putc(b, '>');
	if ((c->offers & PEER_DSN) != 0) {
		put_notify(b, r->notify);
		if (r->orcpt.n > 0)
			buffer_printf(b, " ORCPT=%.*s", SPAN_ARG(r->orcpt));
	}
	buffer_puts(b, "\r\n");
	expect(c, EXPECT_RCPT, i);
}

static void put_data(struct conn *c)
{
	buffer_puts(&c->out, "DATA\r\n");
	expect(c, EXPECT_DATA, 0);
}

/* A whole small message behind its envelope: one round trip (RFC 3030 4.2 allows it). */
static void put_chunk(struct conn *c)
{
	buffer_printf(&c->out, "BDAT %zu LAST\r\n", c->job->content.n);
	buffer_put_span(&c->out, buffer_span(&c->job->content));
	expect(c, EXPECT_DOT, 0);
}

static bool sends_chunk_at_once(const struct conn *c)
{
	return (c->offers & PEER_CHUNKING) != 0 && (c->offers & PEER_PIPELINING) != 0 && c->job->body_fd < 0;
}

void envelope_send(struct conn *c)
{
	struct job *j = c->job;
	if (!lease_holds(proc_lease(&j->agent->proc, j->server))) {
		dialog_broken(c, "the queue is another node's now");
		return;
	}
	c->expect_n = c->expect_at = c->accepted = 0;
	c->data_refused = false;
	c->body_at = 0;
	c->line_start = true;
	c->chunked = (c->offers & PEER_CHUNKING) != 0 && (j->body_fd >= 0 || sends_chunk_at_once(c));
	for (size_t i = 0; i < j->e.rcpts_n; i++)
		j->rcpts[i].accepted = false;
	put_mail(c);
	if ((c->offers & PEER_PIPELINING) != 0) {
		for (uint32_t i = 0; i < j->e.rcpts_n; i++)
			if (!j->rcpts[i].decided)
				put_rcpt(c, i);
		if (sends_chunk_at_once(c))
			put_chunk(c);
		else if (!c->chunked)
			put_data(c);
	}
	conn_state(c, CONN_ENVELOPE, hop_out(c->hop)->outbound_command_timeout);
	conn_flush(c);
}

static void reply_text(const struct conn *c, struct buffer *b)
{
	buffer_init(b, 4096);
	buffer_printf(b, "%s said: %d %.*s", c->job->peer, c->reply.code, SPAN_ARG(buffer_span(&c->reply.text)));
}

/* The fate of recipients by a reply; rcpt UINT32_MAX: all that are undecided. */
static void decide(struct conn *c, enum smtp_stage stage, uint32_t rcpt)
{
	struct buffer text;
	struct job *j = c->job;
	enum reply_fate fate = fate_of_reply(stage, c->reply.code);
	uint32_t outcome = fate == FATE_RETURN ? OUTCOME_FAILED : OUTCOME_DEFERRED;
	struct span enhanced = c->reply.enhanced;
	if (enhanced.n == 0)
		enhanced = outcome == OUTCOME_FAILED ? SPAN_LIT("5.0.0") : SPAN_LIT("4.0.0");
	reply_text(c, &text);
	if (rcpt != UINT32_MAX)
		job_set_rcpt(j, rcpt, outcome, c->reply.code, enhanced, buffer_span(&text));
	else
		job_set_all(j, outcome, c->reply.code, enhanced, buffer_span(&text));
	buffer_free(&text);
}

static void delivered(struct conn *c)
{
	struct buffer text;
	struct job *j = c->job;
	buffer_init(&text, 4096);
	buffer_put_decimal(&text, (uint64_t)c->reply.code, 3);
	buffer_putc(&text, ' ');
	buffer_put_span(&text, buffer_span(&c->reply.text));
	uint32_t outcome = (c->offers & PEER_DSN) != 0 ? OUTCOME_PASSED : OUTCOME_SENT;
	struct span enhanced = c->reply.enhanced.n > 0 ? c->reply.enhanced : SPAN_LIT("2.0.0");
	for (uint32_t i = 0; i < j->e.rcpts_n; i++)
		if (j->rcpts[i].accepted)
			job_set_rcpt(j, i, outcome, c->reply.code, enhanced, buffer_span(&text));
	buffer_free(&text);
}

static void say_rset(struct conn *c)
{
	c->expect_n = c->expect_at = 0;
	expect(c, EXPECT_RSET, 0);
	buffer_puts(&c->out, "RSET\r\n");
	conn_state(c, CONN_RSET, hop_out(c->hop)->outbound_command_timeout);
	conn_flush(c);
}

/* The transaction is over: verdict first, then the connection waits for the next message. */
static void end_transaction(struct conn *c, bool clean)
{
	struct job *j = c->job;
	c->job = NULL;
	c->messages++;
	job_finish(j, false);
	bool spent = (c->messages >= hop_out(c->hop)->messages_per_connection && !c->hop->turned) || c->agent->stopping;
	if (!clean && !spent) {
		say_rset(c);
		return;
	}
	if (spent) {
		conn_say_quit(c);
		return;
	}
	slot_idle(c);
}

/* 421: the peer ends the session; what is undecided goes to its next address, or waits (fates.def). */
static void session_ends(struct conn *c, enum smtp_stage stage)
{
	struct job *j = c->job;
	struct buffer text;
	if (fate_of_reply(stage, c->reply.code) != FATE_TRY_NEXT) {
		decide(c, stage, UINT32_MAX);
		c->job = NULL;
		conn_close(c);
		job_finish(j, false);
		return;
	}
	reply_text(c, &text);
	free(j->last_reason);
	j->last_reason = span_dup(buffer_span(&text));
	buffer_free(&text);
	c->job = NULL;
	conn_close(c);
	conn_open(j);
}

/* Without pipelining: the next command, when the reply to the one before has come. */
static void say_next(struct conn *c)
{
	struct job *j = c->job;
	uint32_t next = 0;
	if (c->expect_n > 0 && c->expect[c->expect_n - 1].what == EXPECT_RCPT)
		next = c->expect[c->expect_n - 1].rcpt + 1;
	while (next < j->e.rcpts_n && j->rcpts[next].decided)
		next++;
	if (next < j->e.rcpts_n) {
		put_rcpt(c, next);
	} else if (c->accepted == 0) {
		end_transaction(c, false);
		return;
	} else if (c->chunked) {
		body_begin(c);
		return;
	} else {
		put_data(c);
	}
	conn_arm(c, hop_out(c->hop)->outbound_command_timeout);
	conn_flush(c);
}

/* All replies of a pipelined group have come. */
static void group_done(struct conn *c)
{
	enum expected last = c->expect[c->expect_n - 1].what;
	if ((c->offers & PEER_PIPELINING) == 0 && last != EXPECT_DATA) {
		say_next(c);
		return;
	}
	if (c->in.n > 0) { /* more was said than was asked for: an answer to the dot must not be there yet */
		dialog_broken(c, "more answers than commands");
		return;
	}
	if (last == EXPECT_DATA ? c->data_refused : c->accepted == 0)
		end_transaction(c, false);
	else
		body_begin(c);
}

static void take_mail_reply(struct conn *c)
{
	if (fate_of_reply(STAGE_MAIL, c->reply.code) != FATE_GO_ON)
		decide(c, STAGE_MAIL, UINT32_MAX);
}

static void take_rcpt_reply(struct conn *c, uint32_t rcpt)
{
	if (fate_of_reply(STAGE_RCPT, c->reply.code) == FATE_GO_ON && !c->job->rcpts[rcpt].decided) {
		c->job->rcpts[rcpt].accepted = true;
		c->accepted++;
	} else {
		decide(c, STAGE_RCPT, rcpt);
	}
}

static void take_data_reply(struct conn *c)
{
	if (fate_of_reply(STAGE_DATA, c->reply.code) == FATE_GO_ON)
		return;
	c->data_refused = true;
	decide(c, STAGE_DATA, UINT32_MAX);
}

/* RFC 2033 4.2: a reply to the dot for each recipient that was accepted. */
static void take_lmtp_reply(struct conn *c, uint32_t rcpt)
{
	struct buffer text;
	struct job *j = c->job;
	if (fate_of_reply(STAGE_DOT, c->reply.code) == FATE_DELIVERED) {
		reply_text(c, &text);
		job_set_rcpt(j, rcpt, (c->offers & PEER_DSN) != 0 ? OUTCOME_PASSED : OUTCOME_SENT, c->reply.code,
			c->reply.enhanced.n > 0 ? c->reply.enhanced : SPAN_LIT("2.0.0"), buffer_span(&text));
		buffer_free(&text);
	} else {
		decide(c, STAGE_DOT, rcpt);
	}
	if (c->expect_at == c->expect_n)
		end_transaction(c, c->in.n == 0);
	else
		conn_arm(c, hop_out(c->hop)->outbound_data_done_timeout);
}

void envelope_expect_dot(struct conn *c)
{
	const struct job *j = c->job;
	c->expect_n = c->expect_at = 0;
	if (!c->hop->lmtp || c->accepted == 0)
		expect(c, EXPECT_DOT, 0);
	for (uint32_t i = 0; c->hop->lmtp && i < j->e.rcpts_n; i++)
		if (j->rcpts[i].accepted)
			expect(c, EXPECT_DOT, i);
}

static void take_dot_reply(struct conn *c)
{
	if (adapt_to_refused_chunk(c)) { /* the same message once more, by DATA */
		say_rset(c);
		return;
	}
	if (fate_of_reply(STAGE_DOT, c->reply.code) == FATE_DELIVERED && c->accepted > 0)
		delivered(c);
	else
		decide(c, STAGE_DOT, UINT32_MAX);
	if (c->in.n > 0)
		LOG(&c->agent->proc.log, peer_broken, qid_span(&c->job->id), F("peer", span_of(c->job->peer)));
	end_transaction(c, c->reply.code / 100 == 2 && c->in.n == 0);
}

static const enum smtp_stage stage_of[] = {[EXPECT_MAIL] = STAGE_MAIL, [EXPECT_RCPT] = STAGE_RCPT, [EXPECT_DATA] = STAGE_DATA,
	[EXPECT_DOT] = STAGE_DOT, [EXPECT_RSET] = STAGE_MAIL};

void envelope_reply(struct conn *c)
{
	if (c->expect_at >= c->expect_n) {
		dialog_broken(c, "an answer that nothing was asked for");
		return;
	}
	enum expected what = c->expect[c->expect_at].what;
	uint32_t rcpt = c->expect[c->expect_at++].rcpt;
	if (what == EXPECT_RSET) {
		if (c->job != NULL) {
			envelope_send(c); /* as far as a refused RSET allows: the replies say */
			return;
		}
		if (c->reply.code / 100 != 2 || c->in.n > 0) {
			conn_close(c);
			return;
		}
		slot_idle(c);
		return;
	}
	if (c->reply.code == 421) {
		session_ends(c, stage_of[what]);
		return;
	}
	conn_arm(c, hop_out(c->hop)->outbound_command_timeout);
	switch (what) {
	case EXPECT_MAIL: take_mail_reply(c); break;
	case EXPECT_RCPT: take_rcpt_reply(c, rcpt); break;
	case EXPECT_DATA: take_data_reply(c); break;
	case EXPECT_DOT: (c->hop->lmtp && c->accepted > 0 ? take_lmtp_reply(c, rcpt) : take_dot_reply(c)); return;
	case EXPECT_RSET: return;
	}
	if (c->expect_at == c->expect_n)
		group_done(c);
	else if (c->expect[c->expect_at].what == EXPECT_DOT) /* the message left with its envelope */
		conn_state(c, CONN_DOT, hop_out(c->hop)->outbound_data_done_timeout);
}
