#include "qmgr.h"

#include <stdlib.h>
#include <string.h>

static const char *status_word(uint32_t outcome)
{
	switch (outcome) {
	case OUTCOME_SENT: case OUTCOME_PASSED: return "sent";
	case OUTCOME_FAILED: return "bounced";
	case OUTCOME_EXPANDED: return "expanded";
	default: return "deferred";
	}
}

static void log_result(struct qmgr *q, const struct qmsg *m, const struct result *r, int64_t total_ms)
{
	struct buffer delay, status;
	int64_t ms = q_now(q) * 1000 - m->e.arrived_us / 1000;
	buffer_init(&delay, 64);
	buffer_init(&status, 2048);
	if (ms < total_ms)
		ms = total_ms;
	buffer_put_decimal(&delay, (uint64_t)(ms / 1000), 1);
	buffer_putc(&delay, '.');
	buffer_put_decimal(&delay, (uint64_t)(ms % 1000 / 10), 2);
	if (r->outcome == OUTCOME_EXPANDED)
		buffer_printf(&status, "expanded (it goes on to %u address%s)", r->code, r->code == 1 ? "" : "es");
	else {
		buffer_puts(&status, status_word(r->outcome));
		buffer_puts(&status, " (");
		buffer_put_span(&status, r->text);
		buffer_putc(&status, ')');
	}
	LOG(&q->proc.log, delivered, qid_span(&m->id), F("to", m->rcpts[r->index].address), F("from", m->e.sender),
		F("relay", r->peer.n > 0 ? r->peer : SPAN_LIT("none")), F("delay", buffer_span(&delay)),
		F("dsn", r->enhanced.n > 0 ? r->enhanced : r->outcome == OUTCOME_FAILED ? SPAN_LIT("5.0.0") : r->outcome == OUTCOME_DEFERRED ? SPAN_LIT("4.0.0") : SPAN_LIT("2.0.0")),
		F("status", buffer_span(&status)));
	buffer_free(&delay);
	buffer_free(&status);
}

/* The verdict's results by what follows from them. */
struct sorted {
	struct buffer closed, failed, success, badmail, expanded;
	bool delivered, down, plain;
};

static void sort_sent(struct qmsg *m, const struct result *r, struct sorted *out)
{
	const struct qrcpt *rcpt = &m->rcpts[r->index];
	if (r->outcome == OUTCOME_SENT && (rcpt->notify & NOTIFY_SUCCESS) != 0 && m->e.sender.n > 0)
		result_put(&out->success, r);
	else
		result_put(&out->closed, r);
	out->delivered = true;
}

static void sort_failed(struct qmsg *m, const struct result *r, struct sorted *out)
{
	unsigned notify = m->rcpts[r->index].notify;
	if (m->e.sender.n == 0)
		result_put(&out->badmail, r);
	else if (notify != 0 && (notify & NOTIFY_FAILURE) == 0) /* NEVER, or only others: RFC 3461 4.1 */
		result_put(&out->closed, r);
	else
		result_put(&out->failed, r);
}

/* RFC 3461 5.2.7.2: an alias for one address is as a relay, for several "expanded" is said where success is asked for. */
static void sort_expanded(struct qmsg *m, const struct result *r, struct sorted *out)
{
	bool list = r->code != 1 || r->peer.n > 0;
	result_put(&out->expanded, r);
	if (list && (m->rcpts[r->index].notify & NOTIFY_SUCCESS) != 0 && m->e.sender.n > 0) {
		struct result said = *r;
		said.text = SPAN_LIT("it goes on to the addresses of a list");
		said.peer = (struct span){"", 0};
		said.code = 0;
		result_put(&out->success, &said);
	}
	out->delivered = true;
}

static void sort_plain(struct qmgr *q, struct qrcpt *r, struct sorted *out)
{
	dest_release(q, r->dest);
	r->dest = NULL;
	r->plain = true;
	r->state = RCPT_DUE;
	out->plain = out->delivered = true;
}

static void sort_result(struct qmgr *q, struct qmsg *m, const struct result *r, struct sorted *out, int64_t total_ms)
{
	struct qrcpt *rcpt = &m->rcpts[r->index];
	if (r->outcome != OUTCOME_PLAIN)
		log_result(q, m, r, total_ms);
	switch (r->outcome) {
	case OUTCOME_EXPANDED:
		sort_expanded(m, r, out);
		break;
	case OUTCOME_PLAIN:
		sort_plain(q, rcpt, out);
		break;
	case OUTCOME_SENT:
	case OUTCOME_PASSED:
		sort_sent(m, r, out);
		break;
	case OUTCOME_FAILED:
		sort_failed(m, r, out);
		break;
	default:
		rcpt->state = RCPT_DEFERRED;
		rcpt_set_reason(rcpt, r->text);
	}
}

static void close_results(struct qmgr *q, struct qmsg *m, struct span results)
{
	struct result r;
	struct span rest = results;
	if (results.n == 0)
		return;
	struct fate f = {.kind = FATE_CLOSED, .id = m->id, .results = results};
	fates_line(q, m, &f);
	while (result_take(&rest, &r))
		m->rcpts[r.index].state = RCPT_CLOSED;
}

static void send_to_badmail(struct qmgr *q, struct qmsg *m, struct span results)
{
	struct buffer reason;
	struct result r;
	size_t n = 0;
	uint32_t *indexes = calloc(m->e.rcpts_n, sizeof *indexes);
	buffer_init(&reason, 1024 * 1024);
	while (indexes != NULL && result_take(&results, &r)) {
		indexes[n++] = r.index;
		buffer_printf(&reason, "<%.*s>: %.*s (%.*s)\n", SPAN_ARG(m->rcpts[r.index].address), SPAN_ARG(r.text), SPAN_ARG(r.peer));
	}
	if (n > 0)
		task_badmail(q, m, indexes, n, buffer_span(&reason));
	buffer_free(&reason);
	free(indexes);
}

static void apply(struct qmgr *q, struct qmsg *m, const struct sorted *s)
{
	close_results(q, m, buffer_span(&s->closed));
	if (s->expanded.n > 0)
		report_expand(q, m, buffer_span(&s->expanded));
	if (s->failed.n > 0)
		report_owe(q, m, REPORT_FAILURE, buffer_span(&s->failed));
	if (s->success.n > 0)
		report_owe(q, m, REPORT_SUCCESS, buffer_span(&s->success));
	if (s->badmail.n > 0)
		send_to_badmail(q, m, buffer_span(&s->badmail));
}

/* Only local may lead mail elsewhere. */
static bool may_say(const struct task *t, uint32_t outcome)
{
	return (outcome != OUTCOME_EXPANDED && outcome != OUTCOME_PLAIN) || (t->dest != NULL && t->dest->kind == AGENT_LOCAL);
}

static void read_results(struct qmgr *q, const struct task *t, const struct msg_verdict *v, struct sorted *s, struct span *reason)
{
	struct qmsg *m = t->m;
	struct result r;
	struct span rest = v->results;
	while (result_take(&rest, &r)) {
		if (r.index >= m->e.rcpts_n || m->rcpts[r.index].state != RCPT_OUT || !may_say(t, r.outcome))
			continue;
		if (t->badmail && r.outcome == OUTCOME_SENT)
			r.outcome = OUTCOME_PASSED;
		if (r.outcome == OUTCOME_DEFERRED)
			*reason = r.text;
		sort_result(q, m, &r, s, v->total_ms);
	}
	/* what the agent forgot to say is tried again */
}

static void init_sorted(struct sorted *s)
{
	*s = (struct sorted){.down = false};
	buffer_init(&s->closed, 4 * 1024 * 1024);
	buffer_init(&s->failed, 4 * 1024 * 1024);
	buffer_init(&s->success, 4 * 1024 * 1024);
	buffer_init(&s->badmail, 4 * 1024 * 1024);
	buffer_init(&s->expanded, 4 * 1024 * 1024);
}

static void free_sorted(struct sorted *s)
{
	buffer_free(&s->closed);
	buffer_free(&s->failed);
	buffer_free(&s->success);
	buffer_free(&s->badmail);
	buffer_free(&s->expanded);
}

static void unsaid_is_deferred(struct task *t)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->m->rcpts[t->indexes[i]].state == RCPT_OUT)
			t->m->rcpts[t->indexes[i]].state = RCPT_DEFERRED;
}

static void note_destination(struct qmgr *q, struct task *t, const struct msg_verdict *v, const struct sorted *s, struct span reason)
{
	struct dest *d = t->dest;
	dest_ended(q, t);
	d->last_ms = v->total_ms;
	d->users++;
	if (v->down != 0)
		dest_down(q, d, reason);
	else if (s->delivered || d->probing)
		dest_success(q, d);
	dest_wake(q, d);
	d->users--;
}

void verdict_apply(struct qmgr *q, struct channel *ch, struct task *t, const struct msg_verdict *v)
{
	struct qmsg *m = t->m;
	struct sorted s;
	struct span reason = {"", 0};
	for (struct agent *a = *q_agents_of(q, ch->peer); a != NULL; a = a->next)
		if (a->channel == ch && a->tasks > 0)
			a->tasks--;
	init_sorted(&s);
	read_results(q, t, v, &s, &reason);
	unsaid_is_deferred(t);
	m->tasks++;
	apply(q, m, &s);
	if (t->dest != NULL)
		note_destination(q, t, v, &s, reason);
	fates_confirm(q, ch, v->delivery);
	task_end(q, t);
	if (s.plain)
		msg_go_on(q, m);
	m->tasks--;
	msg_settle(q, m);
	free_sorted(&s);
}

void verdict_fail(struct qmgr *q, struct qmsg *m, struct span results)
{
	struct sorted s;
	struct result r;
	init_sorted(&s);
	while (result_take(&results, &r))
		sort_failed(m, &r, &s);
	apply(q, m, &s);
	free_sorted(&s);
}

int verdict_on_verdict(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, verdict, v);
	struct qmgr *q = ch->program;
	struct task *t = task_find(q, v.delivery);
	if (t != NULL && t->agent != ch)
		return EPERM;
	if (t != NULL)
		verdict_apply(q, ch, t, &v);
	else if (q->pass_dir < 256)
		return start_keep_verdict(q, ch, &v); /* of a delivery that a qmgr before this one began */
	else
		fates_confirm(q, ch, v.delivery);
	return 0;
}

/* An attempt that ends without an agent: the destination is down. */
void verdict_defer(struct qmgr *q, struct task *t, struct span reason)
{
	for (size_t i = 0; i < t->n; i++) {
		struct qrcpt *rcpt = &t->m->rcpts[t->indexes[i]];
		struct result r = {.index = t->indexes[i], .outcome = OUTCOME_DEFERRED, .text = reason};
		rcpt->state = RCPT_DEFERRED;
		rcpt_set_reason(rcpt, reason);
		log_result(q, t->m, &r, 0);
	}
	task_end(q, t);
}
