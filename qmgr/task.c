/* Deliveries on their way to an agent. */
#include "qmgr.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct task *task_make(struct qmgr *q, struct qmsg *m, struct dest *d, const uint32_t *indexes, size_t n)
{
	struct task *t = calloc(1, sizeof *t);
	uint32_t *copy = malloc(n * sizeof *copy);
	if (t == NULL || copy == NULL) {
		free(t);
		free(copy);
		return NULL;
	}
	memcpy(copy, indexes, n * sizeof *copy);
	*t = (struct task){.delivery = ++q->next_delivery, .m = m, .dest = d, .indexes = copy, .n = n};
	struct task **bucket = &q->tasks[t->delivery % BUCKETS];
	t->next_hash = *bucket;
	*bucket = t;
	m->tasks++;
	return t;
}

static void unhash(struct qmgr *q, struct task *t)
{
	struct task **p = &q->tasks[t->delivery % BUCKETS];
	while (*p != t)
		p = &(*p)->next_hash;
	*p = t->next_hash;
}

void task_renumber(struct qmgr *q, struct task *t, uint64_t delivery)
{
	unhash(q, t);
	t->delivery = delivery;
	struct task **bucket = &q->tasks[delivery % BUCKETS];
	t->next_hash = *bucket;
	*bucket = t;
}

struct task *task_find(struct qmgr *q, uint64_t delivery)
{
	struct task *t = q->tasks[delivery % BUCKETS];
	while (t != NULL && t->delivery != delivery)
		t = t->next_hash;
	return t;
}

void task_end(struct qmgr *q, struct task *t)
{
	struct qmsg *m = t->m;
	unhash(q, t);
	free(t->indexes);
	free(t);
	m->tasks--;
	msg_settle(q, m);
}

/* The agent of that channel, else the one with the least; NULL: none has room. */
static struct agent *pick(const struct qmgr *q, enum agent_kind kind, const struct channel *bound)
{
	struct agent *best = NULL;
	size_t seen = 0;
	for (struct agent *a = q->agents[kind]; a != NULL; a = a->next) {
		if (bound != NULL && a->channel == bound)
			return a->told && a->tasks < AGENT_TASKS ? a : NULL;
		if (kind == AGENT_SMTP && a->told && seen++ >= dest_agents(q))
			break;
		if (a->told && a->tasks < AGENT_TASKS && (best == NULL || a->tasks < best->tasks))
			best = a;
	}
	return best;
}

struct agent *agent_pick_smtp(struct qmgr *q)
{
	return pick(q, AGENT_SMTP, NULL);
}

/* A destination stays with its agent, which counts the connections there; a new one goes to the agent with the least. */
struct agent *agent_pick(struct qmgr *q, struct dest *d)
{
	struct agent *a = d == NULL ? pick(q, AGENT_DROP, NULL) : pick(q, d->kind, d->agent);
	if (d != NULL && a != NULL)
		d->agent = a->channel;
	return a;
}

/* Mail for an alias domain is stamped with the default domain (MISSION E2). */
static struct span stamped(const struct qmgr *q, struct span address, struct arena *arena)
{
	struct address a;
	struct route r;
	if (address_parse(address, ADDRESS_UTF8 | ADDRESS_NO_DOMAIN, &a) != 0)
		return address;
	route_find(q->server, &a, &r);
	if (r.reason != ROUTE_BY_ALIAS_DOMAIN)
		return address;
	return span_of(arena_printf(arena, "%.*s@%s", SPAN_ARG(a.local), q_params(q)->default_domain));
}

static void put_envelope(const struct qmgr *q, struct buffer *b, const struct task *t)
{
	struct envelope e = t->m->e;
	struct arena arena = {0};
	bool local = t->dest != NULL && t->dest->local;
	e.rcpts = calloc(t->n, sizeof *e.rcpts);
	e.rcpts_n = 0;
	for (size_t i = 0; e.rcpts != NULL && i < t->n; i++) {
		const struct qrcpt *r = &t->m->rcpts[t->indexes[i]];
		struct span address = local ? stamped(q, r->address, &arena) : r->address;
		e.rcpts[e.rcpts_n++] = (struct envelope_rcpt){
			.address = address, .notify = r->notify | (r->plain ? RCPT_PLAIN : 0u), .orcpt = r->orcpt};
	}
	if (e.rcpts == NULL || arena.failed)
		b->failed = true;
	else
		envelope_put(b, &e);
	free(e.rcpts);
	arena_free(&arena);
}

static void put_indexes(struct buffer *b, const uint32_t *indexes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		buffer_put_u32(b, indexes[i]);
}

/* What does not fit into one message goes ahead in parts; *content is left with the rest. */
void task_send_parts(struct channel *ch, uint64_t delivery, struct span *content)
{
	while (content->n > IPC_INLINE) {
		send_content_part(ch, (struct msg_content_part){.delivery = delivery, .content = {content->at, IPC_INLINE}}, -1);
		content->at += IPC_INLINE;
		content->n -= IPC_INLINE;
	}
}

/* Reads the content (or takes it from the record that just came) and hands it over. */
int task_send(struct qmgr *q, struct task *t, struct agent *a)
{
	struct buffer envelope, indexes;
	struct span content = t->m->fresh;
	int body_fd = -1, error = 0;
	bool truncated;
	if (content.at == NULL && (t->m->e.flags & ENV_BODY_FILE) == 0)
		error = content_read(q, t->m, &q->content, &content, 0, &truncated);
	if (error == 0 && (t->m->e.flags & ENV_BODY_FILE) != 0) {
		content = (struct span){"", 0};
		body_fd = content_body_fd(q, t->m);
		error = body_fd < 0 ? ENOENT : 0;
	}
	if (error != 0)
		return error;
	buffer_init(&envelope, 16 * 1024 * 1024);
	buffer_init(&indexes, 16 * 1024 * 1024);
	put_envelope(q, &envelope, t);
	put_indexes(&indexes, t->indexes, t->n);
	t->agent = a->channel;
	t->sent_ms = clock_mono_ms();
	a->tasks++;
	for (size_t i = 0; i < t->n; i++)
		t->m->rcpts[t->indexes[i]].state = RCPT_OUT;
	task_send_parts(a->channel, t->delivery, &content);
	send_deliver(a->channel, (struct msg_deliver){.delivery = t->delivery, .id = qid_span(&t->m->id),
		.connections = t->dest->kind != AGENT_SMTP || dest_out(q, t->dest)->messages_per_connection == PARAM_UNLIMITED ? 0 : dest_connections(q, t->dest),
		.most = dest_share(q), .nexthop = span_of(t->dest->nexthop), .domain = span_of(t->dest->domain), .envelope = buffer_span(&envelope),
		.indexes = buffer_span(&indexes), .content = content}, body_fd);
	buffer_free(&envelope);
	buffer_free(&indexes);
	return 0;
}

/* A message from <> that can't be delivered: it is kept for people to look at (MISSION D12). */
void task_badmail(struct qmgr *q, struct qmsg *m, const uint32_t *indexes, size_t n, struct span reason)
{
	struct agent *a = agent_pick(q, NULL);
	struct task *t = a == NULL ? NULL : task_make(q, m, NULL, indexes, n);
	struct buffer envelope, list;
	struct span content = {"", 0};
	bool truncated;
	if (t == NULL) {
		for (size_t i = 0; i < n; i++)
			m->rcpts[indexes[i]].state = RCPT_DEFERRED;
		return;
	}
	int body_fd = (m->e.flags & ENV_BODY_FILE) != 0 ? content_body_fd(q, m) : -1;
	if (body_fd < 0)
		(void)!content_read(q, m, &q->content, &content, 0, &truncated);
	buffer_init(&envelope, 16 * 1024 * 1024);
	buffer_init(&list, 16 * 1024 * 1024);
	put_envelope(q, &envelope, t);
	put_indexes(&list, indexes, n);
	t->badmail = true;
	t->agent = a->channel;
	a->tasks++;
	for (size_t i = 0; i < n; i++)
		m->rcpts[indexes[i]].state = RCPT_OUT;
	task_send_parts(a->channel, t->delivery, &content);
	send_badmail(a->channel, (struct msg_badmail){.delivery = t->delivery, .id = qid_span(&m->id), .envelope = buffer_span(&envelope),
		.indexes = buffer_span(&list), .reason = reason, .content = content}, body_fd);
	buffer_free(&envelope);
	buffer_free(&list);
}

static void take_back(struct qmgr *q, struct task *t)
{
	t->agent = NULL;
	for (size_t i = 0; i < t->n; i++)
		t->m->rcpts[t->indexes[i]].state = t->dest == NULL ? RCPT_DEFERRED : RCPT_QUEUED;
	if (t->dest == NULL) {
		task_end(q, t);
		return;
	}
	dest_ended(q, t);
	t->dest->probing = false;
	dest_add(q, t);
}

/* Its deliveries may have happened or not: SMTP allows no better than to try again. */
void agent_gone(struct qmgr *q, const struct channel *ch)
{
	for (size_t kind = 0; kind < AGENT_KINDS; kind++) {
		for (struct agent **p = &q->agents[kind]; *p != NULL; p = &(*p)->next) {
			if ((*p)->channel == ch) {
				struct agent *a = *p;
				*p = a->next;
				free(a);
				break;
			}
		}
	}
	for (size_t b = 0; b < BUCKETS; b++)
		for (struct dest *d = q->dests[b]; d != NULL; d = d->next_hash)
			if (d->agent == ch)
				d->agent = NULL;
	for (size_t b = 0; b < BUCKETS; b++) {
		struct task *t = q->tasks[b];
		while (t != NULL) {
			if (t->agent != ch) {
				t = t->next_hash;
				continue;
			}
			take_back(q, t);
			t = q->tasks[b]; /* one end may end others: from the bucket's start again */
		}
	}
}
