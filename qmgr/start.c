/* The start: facts, journal, what agents hold; only then is work due. */
#include "qmgr.h"

#include <stdlib.h>
#include <string.h>

/* A report that is on disk already must not be asked for again. */
static int note_closes(struct qmgr *q, const struct record *r)
{
	struct arena arena = {0};
	struct envelope e;
	int error = 0;
	if (envelope_parse(r->envelope, &arena, &e) == 0 && e.closes.text[0] != '\0') {
		struct recovered *parent = fates_recovered(q, &e.closes, true);
		struct fate f = {.kind = FATE_REPORTED, .id = e.closes, .report = r->id, .report_kind = e.closes_kind};
		if (parent == NULL)
			error = ENOMEM;
		else
			fate_put(&parent->lines, &f);
	}
	arena_free(&arena);
	return error;
}

static int scan_closes(struct qmgr *q)
{
	for (size_t i = 0; i < q->segs_n; i++) {
		struct segment_reader reader;
		struct record r;
		int error = segment_reader_open(q->journal_fd, q->segs[i].seq, &reader);
		if (error != 0)
			continue;
		uint64_t end = q->segs[i].end == 0 ? UINT64_MAX : q->segs[i].end;
		while ((error = segment_reader_next(&reader, end, &r)) != ENOENT && (error == 0 || error == EBADMSG))
			if (error == 0 && note_closes(q, &r) != 0)
				break;
		segment_reader_close(&reader);
		if (error != 0 && error != ENOENT)
			return error;
	}
	return 0;
}

int start_recover(struct qmgr *q, struct complaint *why)
{
	int error = fates_recover(q);
	if (error != 0) {
		complain(why, "fates", 0, "cannot be read: %s", strerror(error));
		return error;
	}
	error = journal_list(q);
	if (error == 0)
		error = scan_closes(q);
	if (error != 0)
		complain(why, "journal", 0, "cannot be read: %s", strerror(error));
	uint64_t n = 0;
	if (index_count(&q->index, &n) == 0)
		q->waiting = n;
	return error;
}

/* ---- what agents still carry for the qmgr before this one: nothing of it starts again ---- */

static int add_phantom(struct qmgr *q, struct channel *ch, uint64_t delivery, struct span id, struct phantom **out)
{
	struct phantom *p = calloc(1, sizeof *p);
	if (p == NULL)
		return ENOMEM;
	if (qid_parse(id, &p->id) != 0) {
		free(p);
		return EBADMSG;
	}
	p->delivery = delivery;
	p->agent = ch;
	buffer_init(&p->indexes, 4 * 1024 * 1024);
	buffer_init(&p->results, 16 * 1024 * 1024);
	p->next = q->phantoms;
	q->phantoms = p;
	*out = p;
	return 0;
}

static void free_phantom(struct phantom **p)
{
	struct phantom *gone = *p;
	*p = gone->next;
	buffer_free(&gone->indexes);
	buffer_free(&gone->results);
	free(gone);
}

int start_keep_verdict(struct qmgr *q, struct channel *ch, const struct msg_verdict *v)
{
	struct phantom *p;
	struct result r;
	struct span rest = v->results;
	for (struct phantom **old = &q->phantoms; *old != NULL; old = &(*old)->next) {
		if ((*old)->delivery == v->delivery && (*old)->agent == ch) {
			free_phantom(old);
			break;
		}
	}
	int error = add_phantom(q, ch, v->delivery, v->id, &p);
	if (error != 0)
		return error;
	p->has_verdict = true;
	p->down = v->down;
	p->total_ms = v->total_ms;
	buffer_put_span(&p->results, v->results);
	while (result_take(&rest, &r))
		buffer_put_u32(&p->indexes, r.index);
	return 0;
}

static struct task *task_of_phantom(struct qmgr *q, struct qmsg *m, const struct phantom *p)
{
	struct span rest = buffer_span(&p->indexes);
	uint32_t index, *list = calloc(m->e.rcpts_n, sizeof *list);
	size_t n = 0;
	while (list != NULL && n < m->e.rcpts_n && take_u32(&rest, &index))
		if (index < m->e.rcpts_n && m->rcpts[index].state == RCPT_DUE)
			list[n++] = index;
	struct task *t = n == 0 ? NULL : task_make(q, m, NULL, list, n);
	for (size_t i = 0; t != NULL && i < n; i++)
		m->rcpts[list[i]].state = RCPT_OUT;
	if (t != NULL)
		t->agent = p->agent;
	free(list);
	return t;
}

/* Called for each message that comes into memory after a start; the caller holds m by m->tasks. */
void start_adopt(struct qmgr *q, struct qmsg *m)
{
	for (struct phantom **at = &q->phantoms; *at != NULL;) {
		struct phantom *p = *at;
		if (!qid_same(&p->id, &m->id)) {
			at = &p->next;
			continue;
		}
		struct task *t = task_of_phantom(q, m, p);
		if (t != NULL) {
			task_renumber(q, t, p->delivery);
			for (struct agent *a = *q_agents_of(q, p->agent->peer); a != NULL; a = a->next)
				a->tasks += a->channel == p->agent;
		}
		struct msg_verdict v = {.delivery = p->delivery, .id = qid_span(&m->id), .results = buffer_span(&p->results), .down = 0, .total_ms = p->total_ms};
		if (t != NULL && p->has_verdict)
			verdict_apply(q, p->agent, t, &v);
		else if (p->has_verdict)
			fates_confirm(q, p->agent, p->delivery);
		free_phantom(at);
	}
}

/* The whole queue is known: what nobody asked for is about messages that are gone. */
void start_forget(struct qmgr *q, const struct channel *ch)
{
	for (struct phantom **at = &q->phantoms; *at != NULL;) {
		if (ch != NULL && (*at)->agent != ch) {
			at = &(*at)->next;
			continue;
		}
		if (ch == NULL && (*at)->has_verdict)
			fates_confirm(q, (*at)->agent, (*at)->delivery);
		free_phantom(at);
	}
}

static int hold_one(struct qmgr *q, struct channel *ch, uint64_t delivery, struct span id, struct span indexes)
{
	struct phantom *p;
	int error = add_phantom(q, ch, delivery, id, &p);
	if (error == 0)
		buffer_put_span(&p->indexes, indexes);
	return error;
}

int start_on_holds(struct channel *ch, struct message *msg)
{
	HANDLE(ch, msg, holds, holds);
	struct qmgr *q = ch->program;
	struct span rest = holds.deliveries, id, indexes;
	uint64_t delivery;
	int error = 0;
	while (error == 0 && take_u64(&rest, &delivery) && take_lspan(&rest, &id) && take_lspan(&rest, &indexes))
		error = q->pass_dir >= 256 ? 0 : hold_one(q, ch, delivery, id, indexes);
	for (struct agent *a = *q_agents_of(q, ch->peer); a != NULL; a = a->next)
		if (a->channel == ch && holds.more == 0)
			a->told = true;
	start_when_told(q, false);
	return error;
}

void start_when_told(struct qmgr *q, bool timed_out)
{
	if (q->started)
		return;
	if (q->segs_n > 0 && q->segs[q->segs_n - 1].end == 0)
		return; /* cleanup has not said yet where the journal ends */
	for (size_t kind = 0; kind < AGENT_KINDS; kind++) {
		for (struct agent *a = q->agents[kind]; a != NULL; a = a->next) {
			if (a->told)
				continue;
			if (!timed_out)
				return;
			LOG(&q->proc.log, agent_silent, NO_ID, F("role", span_of(role_name(a->channel->peer))));
			if (q->proc.control != NULL)
				send_kill_peer(q->proc.control, (struct msg_kill_peer){.role = (uint32_t)a->channel->peer, .instance = a->channel->instance}, -1);
		}
	}
	q->started = true;
	LOG(&q->proc.log, queue_open, NO_ID, F("server", span_of(q->proc.server)));
	q_turn_soon(q);
}
