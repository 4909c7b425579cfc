/* Destinations: concurrency, fairness, what is down. */
#include "qmgr.h"

#include <stdlib.h>
#include <string.h>

static struct dest **bucket_of(struct qmgr *q, struct span nexthop)
{
	return &q->dests[crc32c(0, nexthop.at, nexthop.n) % BUCKETS];
}

static struct dest *find_or_make(struct qmgr *q, struct span nexthop, bool local)
{
	struct dest **bucket = bucket_of(q, nexthop);
	for (struct dest *d = *bucket; d != NULL; d = d->next_hash)
		if (d->local == local && span_case_is(nexthop, d->nexthop))
			return d;
	struct dest *d = calloc(1, sizeof *d);
	if (d == NULL)
		return NULL;
	*d = (struct dest){.nexthop = span_dup(nexthop), .local = local, .window = local ? 200 : WINDOW_FIRST, .next_hash = *bucket};
	if (d->nexthop == NULL) {
		free(d);
		return NULL;
	}
	*bucket = d;
	return d;
}

struct dest *dest_get(struct qmgr *q, const struct qmsg *m, size_t i)
{
	struct address a;
	struct route r;
	struct span nexthop = {"", 0};
	bool local = true;
	if (address_parse(m->rcpts[i].address, ADDRESS_UTF8 | ADDRESS_NO_DOMAIN, &a) == 0) {
		route_find(q->server, &a, &r);
		local = r.kind == ROUTE_LOCAL;
		nexthop = r.nexthop;
	}
	struct dest *d = find_or_make(q, nexthop, local);
	if (d != NULL)
		d->users++;
	return d;
}

void dest_release(struct qmgr *q, struct dest *d)
{
	/* a destination that is down is remembered until its probe is due */
	if (d == NULL || --d->users > 0 || d->queued > 0 || d->out > 0 || d->ready || (d->down && d->probe_ms > clock_mono_ms()))
		return;
	struct dest **p = bucket_of(q, span_of(d->nexthop));
	while (*p != d)
		p = &(*p)->next_hash;
	*p = d->next_hash;
	free(d->nexthop);
	free(d->reason);
	free(d);
}

void dest_wake(struct qmgr *q, struct dest *d)
{
	if (d->ready || d->queued == 0)
		return;
	d->ready = true;
	struct dest **end = &q->ready;
	while (*end != NULL)
		end = &(*end)->next_ready;
	*end = d;
	d->next_ready = NULL;
	q_turn_soon(q);
}

static void unqueue(struct task *t)
{
	struct dest *d = t->dest;
	*(t->prev != NULL ? &t->prev->next : &d->first) = t->next;
	*(t->next != NULL ? &t->next->prev : &d->last) = t->prev;
	t->next = t->prev = NULL;
	d->queued--;
}

void dest_add(struct qmgr *q, struct task *t)
{
	struct dest *d = t->dest;
	if (d->down && !d->probing && clock_mono_ms() < d->probe_ms) {
		/* one probe speaks for all that are due: an attempt without a connection */
		verdict_defer(q, t, span_of(d->reason));
		return;
	}
	if (d->queued >= PARK_LIMIT && q->active > ACTIVE_LIMIT / 2 && !t->m->in_wait) {
		/* too much for one destination: a file keeps it, so that others' mail is not held up */
		t->m->park = true;
		for (size_t i = 0; i < t->n; i++)
			t->m->rcpts[t->indexes[i]].state = RCPT_DUE;
		task_end(q, t);
		return;
	}
	t->prev = d->last;
	*(d->last != NULL ? &d->last->next : &d->first) = t;
	d->last = t;
	d->queued++;
	dest_wake(q, d);
}

static bool may_send(const struct qmgr *q, const struct dest *d, size_t total_out)
{
	const struct server_params *p = q_params(q);
	if (d->down)
		return !d->probing && clock_mono_ms() >= d->probe_ms;
	if (d->local)
		return d->out < 200;
	return (double)d->out < d->window && (int64_t)d->out < p->outbound_connection_limit_per_domain &&
		(int64_t)total_out < p->outbound_connection_limit;
}

static size_t smtp_tasks(const struct qmgr *q)
{
	size_t n = 0;
	for (const struct agent *a = q->smtp; a != NULL; a = a->next)
		n += a->tasks;
	return n;
}

/* One task of a destination, then the next destination's turn. */
static bool send_one(struct qmgr *q, struct dest *d)
{
	struct task *t = d->first;
	struct agent *a = agent_pick(q, d->local);
	if (t == NULL || a == NULL || !may_send(q, d, smtp_tasks(q)))
		return false;
	unqueue(t);
	d->out++;
	d->probing = d->down;
	int error = task_send(q, t, a);
	if (error == 0)
		return true;
	d->out--;
	d->probing = false;
	if (error == EBADMSG || error == ENOENT) { /* its bytes are damaged or gone: set aside */
		damage_message(q, t->m, error);
		t->m->gone = t->m->damaged = true;
		task_end(q, t);
	} else {
		verdict_defer(q, t, SPAN_LIT("the message could not be read"));
	}
	return true;
}

void dest_dispatch(struct qmgr *q)
{
	if (!q->started || q->stopping)
		return;
	bool progress = true;
	while (progress && q->ready != NULL) {
		struct dest *round = q->ready;
		q->ready = NULL;
		progress = false;
		while (round != NULL) {
			struct dest *d = round;
			round = d->next_ready;
			d->next_ready = NULL;
			d->users++; /* it outlives the sending of its last task */
			if (send_one(q, d))
				progress = true;
			d->ready = false;
			if (d->queued > 0 && may_send(q, d, 0))
				dest_wake(q, d);
			d->users--;
			if (d->users == 0) {
				d->users = 1;
				dest_release(q, d);
			}
		}
		if (agent_pick(q, true) == NULL && agent_pick(q, false) == NULL)
			break;
	}
}

void dest_success(struct dest *d, const struct server_params *p)
{
	d->down = d->probing = false;
	if (!d->local && d->window < (double)p->outbound_connection_limit_per_domain)
		d->window += 1 / d->window;
}

void dest_down(struct qmgr *q, struct dest *d, struct span reason)
{
	if (!d->down)
		LOG(&q->proc.log, destination_down, NO_ID, F("destination", span_of(d->nexthop)), F("reason", reason));
	d->down = true;
	d->probing = false;
	d->probe_ms = clock_mono_ms() + q_params(q)->destination_probe * 1000;
	d->window = d->window > 2 ? d->window / 2 : 1;
	free(d->reason);
	d->reason = span_dup(reason);
	struct task *list = d->first;
	d->first = d->last = NULL;
	d->queued = 0;
	while (list != NULL) {
		struct task *t = list;
		list = t->next;
		t->next = t->prev = NULL;
		verdict_defer(q, t, span_of(d->reason));
	}
}

void dest_drop_queued(struct qmgr *q, struct qmsg *m)
{
	for (size_t b = 0; b < BUCKETS; b++) {
		struct task *next;
		for (struct task *t = q->tasks[b]; t != NULL; t = next) {
			next = t->next_hash;
			if (t->m != m || t->agent != NULL)
				continue;
			unqueue(t);
			for (size_t i = 0; i < t->n; i++)
				m->rcpts[t->indexes[i]].state = RCPT_DUE;
			m->tasks++; /* keeps m until the caller has dealt with it */
			task_end(q, t);
			m->tasks--;
		}
	}
}
