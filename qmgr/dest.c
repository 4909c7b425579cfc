/* Destinations: concurrency, fairness, what is down. */
#include "qmgr.h"

#include <stdlib.h>
#include <string.h>

static struct dest **bucket_of(struct qmgr *q, struct span nexthop)
{
	return &q->dests[crc32c(0, nexthop.at, nexthop.n) % BUCKETS];
}

static struct dest *find_or_make(struct qmgr *q, struct span nexthop, struct span domain, enum agent_kind kind, bool local)
{
	struct dest **bucket = bucket_of(q, nexthop);
	for (struct dest *d = *bucket; d != NULL; d = d->next_hash)
		if (d->kind == kind && d->local == local && span_case_is(nexthop, d->nexthop) && span_is(domain, d->domain))
			return d;
	struct dest *d = calloc(1, sizeof *d);
	if (d == NULL)
		return NULL;
	*d = (struct dest){.nexthop = span_dup(nexthop), .domain = span_dup(domain), .kind = kind, .local = local, .window = kind != AGENT_SMTP ? 200 : WINDOW_FIRST, .next_hash = *bucket};
	if (d->nexthop == NULL || d->domain == NULL) {
		free(d->nexthop);
		free(d->domain);
		free(d);
		return NULL;
	}
	*bucket = d;
	return d;
}

/* A way of local delivery, and the section whose parameters and directory hold. */
static enum agent_kind local_kind(const struct qmgr *q, const struct route *r, bool plain, struct buffer *text, struct span *domain)
{
	const struct local_params *p = local_of(q->server, r->domain);
	struct delivery how;
	if (r->domain != NULL && r->domain->p.type == DOMAIN_LOCAL)
		*domain = span_of(r->domain->name);
	buffer_puts(text, p->local_delivery);
	if (!plain && local_is_expanded(p))
		return AGENT_LOCAL;
	if (delivery_parse(span_of(p->local_delivery), &how) != 0 || how.kind == DELIVERY_DROP)
		return AGENT_DROP;
	return how.kind == DELIVERY_LMTP ? AGENT_SMTP : AGENT_LOCAL;
}

/* A destination: the route, and the section whose parameters hold for it. */
struct dest *dest_get(struct qmgr *q, const struct qmsg *m, size_t i)
{
	struct address a;
	struct route r;
	struct buffer text;
	struct span domain = {"", 0};
	enum agent_kind kind = AGENT_DROP;
	bool local = true, etrn = false;
	buffer_init(&text, 64 * 1024);
	if (address_parse(m->rcpts[i].address, ADDRESS_UTF8 | ADDRESS_NO_DOMAIN, &a) == 0) {
		route_find(q->server, &a, &r);
		local = r.kind == ROUTE_LOCAL;
		kind = local ? local_kind(q, &r, m->rcpts[i].plain, &text, &domain) : AGENT_SMTP;
		if (!local)
			buffer_puts(&text, demand_prefix((m->e.flags & ENV_REQUIRETLS) != 0 ? DEMAND_TLS : (m->e.flags & ENV_TLS_OPTIONAL) != 0 ? DEMAND_LESS : DEMAND_NONE));
		if (!local)
			route_put_text(&text, &r);
		etrn = !local && r.domain != NULL && r.domain->p.type == DOMAIN_REMOTE && r.domain->p.etrn == 1;
		if (!local && r.domain != NULL && (r.domain->has_own || etrn))
			domain = span_of(r.domain->name);
	}
	/* whose connection was turned is known by its login, not by a certificate: what requires TLS waits for ETRN (RFC 8689 4.2.1) */
	const struct turn *turn = etrn && (m->e.flags & ENV_REQUIRETLS) == 0 ? turn_of(q, a.domain) : NULL;
	if (turn != NULL) {
		buffer_clear(&text);
		buffer_printf(&text, "turn:%llu", (unsigned long long)turn->number);
	}
	struct dest *d = buffer_ok(&text) ? find_or_make(q, buffer_span(&text), domain, kind, local) : NULL;
	if (d != NULL) {
		d->users++;
		d->etrn = etrn && turn == NULL;
		d->turn = turn == NULL ? 0 : turn->number;
		if (turn != NULL)
			d->agent = turn->agent;
	}
	buffer_free(&text);
	return d;
}

const struct outbound_params *dest_out(const struct qmgr *q, const struct dest *d)
{
	const struct domain *section = d->domain[0] == '\0' ? NULL : server_domain(q->server, span_of(d->domain));
	return outbound_of(q->server, section);
}

void dest_release(struct qmgr *q, struct dest *d)
{
	/* a destination that is down is remembered until its probe is due */
	if (d == NULL || --d->users > 0 || d->queued > 0 || d->out > 0 || d->ready || d->blocked || (d->down && d->probe_ms > clock_mono_ms()))
		return;
	struct dest **p = bucket_of(q, span_of(d->nexthop));
	while (*p != d)
		p = &(*p)->next_hash;
	*p = d->next_hash;
	free(d->nexthop);
	free(d->domain);
	free(d->reason);
	free(d);
}

void dest_wake(struct qmgr *q, struct dest *d)
{
	if (d->ready || d->queued == 0)
		return;
	if (q->ready == NULL)
		q->ready_end = &q->ready;
	d->ready = true;
	d->next_ready = NULL;
	*q->ready_end = d;
	q->ready_end = &d->next_ready;
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

/* Its server has not asked for it. */
static bool is_held(const struct qmgr *q, const struct task *t)
{
	struct address a;
	if (t->dest->over || !t->dest->etrn)
		return t->dest->over;
	return address_parse(t->m->rcpts[t->indexes[0]].address, ADDRESS_UTF8 | ADDRESS_NO_DOMAIN, &a) != 0 || !etrn_is_open(q, a.domain);
}

void dest_add(struct qmgr *q, struct task *t)
{
	struct dest *d = t->dest;
	if (is_held(q, t)) {
		verdict_defer(q, t, ETRN_HELD);
		return;
	}
	if (t->m->forced)
		d->probe_ms = 0; /* asked for by a person: it is really tried */
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
	d->splits += t->split;
	t->prev = d->last;
	*(d->last != NULL ? &d->last->next : &d->first) = t;
	d->last = t;
	d->queued++;
	dest_wake(q, d);
}

/* One connection for each messages_per_connection that wait, one more for each further part of a message; never more than
 * the window that success opens, nor than the parameter (MISSION B3, D8, D9, D15).  Without that limit the window rules. */
uint32_t dest_connections(const struct qmgr *q, const struct dest *d)
{
	const struct outbound_params *p = dest_out(q, d);
	if (d->turn != 0)
		return 1;
	uint64_t n = d->window < 1 ? 1 : (uint64_t)d->window, waiting = d->queued + d->out;
	if (p->messages_per_connection != PARAM_UNLIMITED) {
		uint64_t each = (uint64_t)p->messages_per_connection, wanted = waiting / each + (waiting % each != 0) + d->splits;
		n = wanted < n ? wanted : n;
	}
	if (n > (uint64_t)p->outbound_connection_limit_per_domain)
		n = (uint64_t)p->outbound_connection_limit_per_domain;
	return n < 1 ? 1 : (uint32_t)n;
}

/* So many agents are used that each one's share of the server's connections is enough for a whole destination. */
size_t dest_agents(const struct qmgr *q)
{
	size_t n = 0;
	int64_t all = q_params(q)->outbound_connection_limit, each = q_params(q)->out.outbound_connection_limit_per_domain;
	for (const struct agent *a = q->agents[AGENT_SMTP]; a != NULL; a = a->next)
		n += a->told;
	if (all != PARAM_UNLIMITED && (int64_t)n > all / each)
		n = (size_t)(all / each);
	return n < 1 ? 1 : n;
}

uint32_t dest_share(const struct qmgr *q)
{
	int64_t limit = q_params(q)->outbound_connection_limit, each = limit / (int64_t)dest_agents(q);
	if (limit == PARAM_UNLIMITED || each > UINT32_MAX)
		return 0;
	return each < 1 ? 1 : (uint32_t)each;
}

/* Keeps the count of connections: as many as there are deliveries, up to what the destination may have. */
static void recount(struct qmgr *q, struct dest *d)
{
	size_t most = d->kind != AGENT_SMTP ? 0 : dest_connections(q, d), n = d->out < most ? d->out : most;
	q->conns += n;
	q->conns -= d->conns;
	d->conns = n;
}

/* ---- what all destinations share: whoever could not send for want of it stands in line ---- */

static void stand_in_line(struct qmgr *q, struct dest *d)
{
	if (d->blocked)
		return;
	if (q->blocked == NULL)
		q->blocked_end = &q->blocked;
	d->blocked = true;
	d->next_blocked = NULL;
	*q->blocked_end = d;
	q->blocked_end = &d->next_blocked;
}

/* A delivery has ended: the first in line has its turn. */
static void next_in_line(struct qmgr *q)
{
	struct dest *d = q->blocked;
	if (d == NULL)
		return;
	q->blocked = d->next_blocked;
	d->blocked = false;
	d->users++;
	dest_wake(q, d);
	dest_release(q, d);
}

static bool has_connection_left(const struct qmgr *q)
{
	return (int64_t)q->conns < q_params(q)->outbound_connection_limit;
}

/* More deliveries than connections where the peer is quick: its agent has the next one at hand. */
static bool may_send(const struct qmgr *q, const struct dest *d)
{
	const struct outbound_params *p = dest_out(q, d);
	if (d->down)
		return !d->probing && clock_mono_ms() >= d->probe_ms;
	if (d->kind == AGENT_LOCAL)
		return (int64_t)d->out < q_params(q)->local_process_limit;
	if (d->kind == AGENT_DROP)
		return d->out < 200;
	size_t n = dest_connections(q, d);
	bool ahead = p->messages_per_connection != PARAM_UNLIMITED && d->last_ms < AHEAD_MS && d->splits == 0;
	if (d->out >= (ahead ? n * AHEAD : n))
		return false;
	return d->out >= n || has_connection_left(q);
}

void dest_ended(struct qmgr *q, struct task *t)
{
	struct dest *d = t->dest;
	d->out--;
	d->splits -= t->split;
	recount(q, d);
	next_in_line(q);
}

/* One task of a destination, then the next destination's turn. */
static bool send_one(struct qmgr *q, struct dest *d)
{
	struct task *t = d->first;
	if (t == NULL)
		return false;
	bool may = may_send(q, d);
	struct agent *a = may ? agent_pick(q, d) : NULL;
	if (may && a == NULL)
		stand_in_line(q, d);
	if (a == NULL)
		return false;
	unqueue(t);
	d->out++;
	recount(q, d);
	d->probing = d->down;
	int error = task_send(q, t, a);
	if (error == 0)
		return true;
	dest_ended(q, t);
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

/* It has more to send: in the next round, or when one of what all share is free. */
static void go_on_later(struct qmgr *q, struct dest *d)
{
	if (may_send(q, d))
		dest_wake(q, d);
	else if (d->kind == AGENT_SMTP && !d->down && !has_connection_left(q))
		stand_in_line(q, d);
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
			if (d->queued > 0 && !d->blocked)
				go_on_later(q, d);
			d->users--;
			if (d->users == 0) {
				d->users = 1;
				dest_release(q, d);
			}
		}
	}
}

void dest_success(struct qmgr *q, struct dest *d)
{
	d->down = d->probing = false;
	if (d->kind == AGENT_SMTP && d->window < (double)dest_out(q, d)->outbound_connection_limit_per_domain)
		d->window += 1 / d->window;
}

void dest_defer_queued(struct qmgr *q, struct dest *d, struct span reason)
{
	struct task *list = d->first;
	d->first = d->last = NULL;
	d->queued = 0;
	while (list != NULL) {
		struct task *t = list;
		list = t->next;
		t->next = t->prev = NULL;
		d->splits -= t->split;
		verdict_defer(q, t, reason);
	}
}

void dest_down(struct qmgr *q, struct dest *d, struct span reason)
{
	if (!d->down)
		LOG(&q->proc.log, destination_down, NO_ID, F("destination", span_of(d->nexthop)), F("reason", reason));
	d->down = true;
	d->probing = false;
	d->probe_ms = clock_mono_ms() + dest_out(q, d)->destination_probe * 1000;
	d->window = d->window > 2 ? d->window / 2 : 1;
	free(d->reason);
	d->reason = span_dup(reason);
	dest_defer_queued(q, d, span_of(d->reason));
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
			t->dest->splits -= t->split;
			for (size_t i = 0; i < t->n; i++)
				m->rcpts[t->indexes[i]].state = RCPT_DUE;
			m->tasks++; /* keeps m until the caller has dealt with it */
			task_end(q, t);
			m->tasks--;
		}
	}
}
