#include "smtp_agent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct job *make_job(struct agent *a, struct channel *qmgr, uint64_t delivery)
{
	struct job *j = calloc(1, sizeof *j);
	if (j == NULL)
		return NULL;
	*j = (struct job){.delivery = delivery, .agent = a, .qmgr = qmgr, .server = qmgr->server, .body_fd = -1, .began_ms = clock_mono_ms()};
	buffer_init(&j->content, 4 * 1024 * 1024);
	buffer_init(&j->indexes, 4 * 1024 * 1024);
	buffer_init(&j->results, 16 * 1024 * 1024);
	j->next_all = a->jobs;
	a->jobs = j;
	return j;
}

static void free_job(struct agent *a, struct job *j)
{
	struct job **p = &a->jobs;
	while (*p != j)
		p = &(*p)->next_all;
	*p = j->next_all;
	for (size_t i = 0; j->rcpts != NULL && i < j->e.rcpts_n; i++)
		free(j->rcpts[i].text);
	free(j->rcpts);
	free(j->envelope);
	free(j->last_reason);
	arena_free(&j->arena);
	buffer_free(&j->content);
	buffer_free(&j->indexes);
	buffer_free(&j->results);
	if (j->body_fd >= 0)
		(void)close(j->body_fd);
	free(j);
}

static struct job *find_job(struct agent *a, const struct channel *qmgr, uint64_t delivery)
{
	struct job *j = a->jobs;
	while (j != NULL && (j->delivery != delivery || j->server != qmgr->server))
		j = j->next_all;
	return j;
}

int job_on_part(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, content_part, part);
	struct agent *a = ch->program;
	struct job *j = find_job(a, ch, part.delivery);
	if (j == NULL)
		j = make_job(a, ch, part.delivery);
	if (j == NULL)
		return ENOMEM;
	buffer_put_span(&j->content, part.content);
	return buffer_ok(&j->content) ? 0 : EBADMSG;
}

static int read_envelope(struct job *j, struct span bytes)
{
	j->envelope = malloc(bytes.n + 1);
	if (j->envelope == NULL)
		return ENOMEM;
	memcpy(j->envelope, bytes.at, bytes.n);
	int error = envelope_parse((struct span){j->envelope, bytes.n}, &j->arena, &j->e);
	if (error != 0)
		return error;
	j->rcpts = calloc(j->e.rcpts_n, sizeof *j->rcpts);
	return j->rcpts == NULL ? ENOMEM : j->indexes.n == j->e.rcpts_n * 4 ? 0 : EBADMSG;
}

int job_on_deliver(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, deliver, deliver);
	struct agent *a = ch->program;
	struct job *j = find_job(a, ch, deliver.delivery);
	if (j == NULL)
		j = make_job(a, ch, deliver.delivery);
	if (j == NULL)
		return ENOMEM;
	buffer_put_span(&j->content, deliver.content);
	buffer_put_span(&j->indexes, deliver.indexes);
	if (m->fds_n == 1) {
		j->body_fd = m->fds[0];
		m->fds[0] = -1;
	}
	int error = qid_parse(deliver.id, &j->id);
	if (error == 0)
		error = read_envelope(j, deliver.envelope);
	if (error != 0 || !buffer_ok(&j->content)) {
		free_job(a, j);
		return EBADMSG;
	}
	j->size = j->content.n;
	off_t end = j->body_fd >= 0 ? lseek(j->body_fd, 0, SEEK_END) : -1;
	if (end >= 0)
		j->size = (uint64_t)end;
	j->hop = hop_get(a, j->server, deliver.nexthop, deliver.domain);
	if (j->hop == NULL) {
		job_set_all(j, OUTCOME_DEFERRED, 0, SPAN_LIT("4.3.0"), SPAN_LIT("not enough memory"));
		job_finish(j, false);
		return 0;
	}
	j->hop->allowed = deliver.connections;
	a->shares[j->server].most = deliver.most;
	job_start(j);
	return 0;
}

bool job_is_left(struct job *j)
{
	j->sending = false;
	if (!j->agent->stopping)
		return false;
	job_stop_if_idle(j->agent);
	return true;
}

void job_stop_if_idle(struct agent *a)
{
	struct timeval tv = {.tv_usec = 50000};
	for (const struct job *j = a->jobs; j != NULL; j = j->next_all)
		if (j->sending || (j->done && j->qmgr != NULL)) /* a verdict that is not confirmed could be told to nobody any more */
			return;
	if (a->stopping && a->stopped != NULL)
		(void)event_add(a->stopped, &tv);
}

void job_start(struct job *j)
{
	struct hop *h = j->hop;
	if (job_is_left(j))
		return;
	if (h->idle != NULL && !j->fresh_only) {
		conn_take(h->idle, j);
		return;
	}
	if (h->turned) {
		turn_start(j);
		return;
	}
	bool fresh = clock_mono_ms() < h->fresh_until_ms || j->target_at > 0; /* what was begun with is gone through */
	const struct lookup *l = &h->lookup;
	if (fresh && l->state == LOOKUP_READY) {
		conn_open(j);
	} else if (fresh && l->state != LOOKUP_NEW) {
		bool failed = l->state == LOOKUP_FAILED;
		job_set_all(j, failed ? OUTCOME_FAILED : OUTCOME_DEFERRED, 0, span_of(l->enhanced), span_of(l->reason));
		job_finish(j, !failed);
	} else {
		j->next = h->waiting;
		h->waiting = j;
		hop_resolve(j->agent, h);
	}
}

void job_set_rcpt(struct job *j, uint32_t rcpt, uint32_t outcome, int code, struct span enhanced, struct span text)
{
	struct rcpt_result *r = &j->rcpts[rcpt];
	if (r->decided)
		return;
	r->decided = true;
	r->outcome = outcome;
	r->code = (uint32_t)code;
	size_t n = enhanced.n < sizeof r->enhanced ? enhanced.n : sizeof r->enhanced - 1;
	memcpy(r->enhanced, enhanced.at, n);
	r->enhanced[n] = '\0';
	free(r->text);
	r->text = span_dup(text.n > REASON_MOST ? (struct span){text.at, REASON_MOST} : text);
}

void job_set_all(struct job *j, uint32_t outcome, int code, struct span enhanced, struct span text)
{
	for (uint32_t i = 0; i < j->e.rcpts_n; i++)
		job_set_rcpt(j, i, outcome, code, enhanced, text);
}

static void tell(struct job *j, bool down)
{
	send_verdict(j->qmgr, (struct msg_verdict){.delivery = j->delivery, .id = qid_span(&j->id), .results = buffer_span(&j->results),
		.peer = span_of(j->peer), .down = down, .total_ms = (uint32_t)(clock_mono_ms() - j->began_ms)}, -1);
}

/* One speaks for all that stand in line for a connection to a destination that is down. */
static void finish_line(struct hop *h, const char *reason, const char *status)
{
	struct job *list = h->ready;
	h->ready = NULL;
	h->ready_end = &h->ready;
	while (list != NULL) {
		struct job *j = list;
		list = j->next;
		j->next = NULL;
		free(j->last_reason);
		j->last_reason = span_dup(span_of(reason));
		j->last_status = status;
		job_finish(j, true);
	}
}

/* The verdict is kept until qmgr has written it down. */
void job_finish(struct job *j, bool down)
{
	struct span rest = buffer_span(&j->indexes);
	bool for_good = j->last_status != NULL && j->last_status[0] == '5';
	job_set_all(j, for_good ? OUTCOME_FAILED : OUTCOME_DEFERRED, 0, span_of(j->last_status == NULL ? "4.4.0" : j->last_status), span_of(j->last_reason == NULL ? "no reason known" : j->last_reason));
	for (uint32_t i = 0; i < j->e.rcpts_n; i++) {
		const struct rcpt_result *x = &j->rcpts[i];
		struct result r = {.outcome = x->outcome, .code = x->code, .enhanced = span_of(x->enhanced), .text = span_of(x->text), .peer = span_of(j->peer)};
		if (take_u32(&rest, &r.index))
			result_put(&j->results, &r);
	}
	j->done = true;
	j->sending = false;
	buffer_free(&j->content);
	if (j->body_fd >= 0) {
		(void)close(j->body_fd);
		j->body_fd = -1;
	}
	struct hop *h = j->hop;
	if (h != NULL && down && h->ready != NULL)
		finish_line(h, j->last_reason == NULL ? "the destination is down" : j->last_reason, j->last_status);
	if (h != NULL)
		slot_free_job(j);
	j->hop = NULL;
	if (h != NULL)
		hop_release(j->agent, h);
	if (j->qmgr != NULL)
		tell(j, down);
	if (j->agent->stopping)
		job_stop_if_idle(j->agent);
}

int job_on_confirm(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, confirm, confirm);
	struct agent *a = ch->program;
	struct job *j = find_job(a, ch, confirm.delivery);
	if (j != NULL && j->done)
		free_job(a, j);
	if (a->stopping)
		job_stop_if_idle(a);
	return 0;
}

/* A new qmgr learns what is under way and every verdict that was not confirmed. */
void job_tell_again(struct agent *a, struct channel *qmgr, uint32_t server)
{
	struct buffer list;
	buffer_init(&list, 16 * 1024 * 1024);
	for (struct job *j = a->jobs; j != NULL; j = j->next_all) {
		if (j->server != server || j->rcpts == NULL)
			continue;
		j->qmgr = qmgr;
		if (j->done) {
			tell(j, false);
			continue;
		}
		if (list.n > IPC_INLINE) {
			send_holds(qmgr, (struct msg_holds){.more = 1, .deliveries = buffer_span(&list)}, -1);
			buffer_clear(&list);
		}
		buffer_put_u64(&list, j->delivery);
		buffer_put_lspan(&list, qid_span(&j->id));
		buffer_put_lspan(&list, buffer_span(&j->indexes));
	}
	send_holds(qmgr, (struct msg_holds){.deliveries = buffer_span(&list)}, -1);
	buffer_free(&list);
}
