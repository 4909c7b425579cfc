/* On-demand mail relay (RFC 2645): a client that has logged in takes the mail that is held for its domains over its own
 * connection, which a worker hands on.  While that lasts the mail's destination is "turn:NUMBER", at one agent. */
#include "qmgr.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_in(const struct turn *t, struct span domain)
{
	struct span rest = span_of(t->nodes), node;
	while ((node = span_word(&rest, " ")).n > 0)
		if (etrn_covers(node, domain))
			return true;
	return false;
}

const struct turn *turn_of(const struct qmgr *q, struct span domain)
{
	for (const struct turn *t = q->turns; t != NULL; t = t->next)
		if (is_in(t, domain))
			return t;
	return NULL;
}

static struct span domain_of(struct span node)
{
	return node.n > 0 && node.at[0] == '@' ? (struct span){node.at + 1, node.n - 1} : node;
}

/* Is any domain of both? */
static bool meet(struct span one, struct span other)
{
	return etrn_covers(one, domain_of(other)) || etrn_covers(other, domain_of(one));
}

static bool meets_turn(const struct turn *t, struct span node)
{
	struct span rest = span_of(t->nodes), taken;
	while ((taken = span_word(&rest, " ")).n > 0)
		if (meet(node, taken))
			return true;
	return false;
}

/* Nothing is handed out twice at a time. */
static bool is_taken(const struct qmgr *q, struct span nodes)
{
	struct span node;
	while ((node = span_word(&nodes, " ")).n > 0) {
		for (const struct turn *t = q->turns; t != NULL; t = t->next)
			if (meets_turn(t, node))
				return true;
		for (const struct opened *o = q->opened; o != NULL; o = o->next)
			if (o->until_ms > clock_mono_ms() && meet(node, span_of(o->node)))
				return true;
	}
	return false;
}

static struct turn *make_turn(struct qmgr *q, struct channel *worker, const struct msg_turn *asked)
{
	struct turn *t = calloc(1, sizeof *t);
	char *nodes = span_dup(asked->nodes);
	struct agent *a = agent_pick_smtp(q);
	if (t == NULL || nodes == NULL || a == NULL) {
		free(t);
		free(nodes);
		return NULL;
	}
	*t = (struct turn){.worker = worker, .serial = asked->serial, .number = ++q->turn_numbers, .nodes = nodes, .agent = a->channel, .next = q->turns};
	q->turns = t;
	return t;
}

static bool is_destination_of(const struct dest *d, const struct turn *t)
{
	return d->turn == t->number;
}

/* What is left waits until it is asked for again. */
static void end_turn(struct qmgr *q, struct turn *t)
{
	struct turn **p = &q->turns;
	while (*p != t)
		p = &(*p)->next;
	*p = t->next;
	for (size_t b = 0; b < BUCKETS; b++) {
		struct dest *next;
		for (struct dest *d = q->dests[b]; d != NULL; d = next) {
			d->users++; /* what ends here would take it along */
			if (is_destination_of(d, t)) {
				d->over = true;
				d->down = false;
				dest_defer_queued(q, d, ETRN_HELD);
			}
			next = d->next_hash;
			dest_release(q, d);
		}
	}
	free(t->nodes);
	free(t);
}

static bool has_mail(const struct row *row, struct span nodes)
{
	struct span node;
	while ((node = span_word(&nodes, " ")).n > 0)
		if (etrn_has_mail(row, node))
			return true;
	return false;
}

/* The worker says who it is; authd's proof and the configuration say whether that is so, and may be. */
static bool is_allowed(const struct qmgr *q, const struct channel *worker, const struct msg_turn *asked)
{
	struct span rest = asked->nodes, node;
	size_t n = 0;
	if (!login_is_proved(q->auth_key, worker->instance, q->proc.server, asked->login, asked->proof))
		return false;
	for (; (node = span_word(&rest, " ")).n > 0; n++)
		if (n == ETRN_NODES_MOST || !route_may_take(q->server, node, asked->login))
			return false;
	return n > 0;
}

/* Whose parameters hold for the connection: those of the first domain. */
static struct span section_of(const struct qmgr *q, struct span nodes)
{
	const struct domain *d = route_node_section(q->server, span_word(&nodes, " "));
	return span_of(d == NULL ? "" : d->name);
}

/* 0; EPERM: not for this login; ENOENT: there is no mail; EBUSY: it is being sent already; EAGAIN: not now. */
static int begin(struct qmgr *q, struct channel *worker, const struct msg_turn *asked, int fd)
{
	char text[32], nexthop[40];
	if (!is_allowed(q, worker, asked))
		return EPERM;
	if (is_taken(q, asked->nodes))
		return EBUSY;
	struct turn *t = make_turn(q, worker, asked);
	if (t == NULL)
		return EAGAIN;
	uint64_t n = wait_make_due(q, has_mail, asked->nodes);
	if (n == 0) {
		end_turn(q, t);
		return ENOENT;
	}
	(void)snprintf(nexthop, sizeof nexthop, "turn:%llu", (unsigned long long)t->number);
	(void)snprintf(text, sizeof text, "%llu", (unsigned long long)n);
	send_turned(t->agent, (struct msg_turned){.nexthop = span_of(nexthop), .domain = section_of(q, asked->nodes), .peer = asked->client, .tls = asked->tls}, fd);
	LOG(&q->proc.log, turn_started, NO_ID, F("client", asked->client), F("nodes", asked->nodes), F("messages", span_of(text)));
	return 0;
}

int turn_on_turn(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, turn, asked);
	if (m->fds_n != 1)
		return EBADMSG;
	int fd = m->fds[0], error = begin(ch->program, ch, &asked, fd);
	if (error == 0)
		m->fds[0] = -1; /* it has gone on */
	send_turn_answer(ch, (struct msg_turn_answer){.serial = asked.serial, .status = (uint32_t)error}, -1);
	return 0;
}

int turn_on_over(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, turn_over, over);
	struct qmgr *q = ch->program;
	struct turn *t = q->turns;
	while (t != NULL && (t->worker != ch || t->serial != over.serial))
		t = t->next;
	if (t != NULL)
		end_turn(q, t);
	return 0;
}

void turn_forget(struct qmgr *q, const struct channel *ch)
{
	struct turn *next;
	for (struct turn *t = q->turns; t != NULL; t = next) {
		next = t->next;
		if (t->worker == ch || t->agent == ch)
			end_turn(q, t);
	}
}
