/* How many connections a next hop has: qmgr's wish for it (MISSION D9), its parameter, and the agent's share of all of the
 * server's (MISSION B3).  A job without a free slot waits in line; an idle connection takes the next in line. */
#include "smtp_agent.h"

#include <stdlib.h>
#include <string.h>

static struct share *share_of(const struct hop *h)
{
	return &h->agent->shares[h->server];
}

static bool has_room(struct hop *h)
{
	int64_t limit = hop_out(h)->outbound_connection_limit_per_domain;
	if (h->allowed > 0 && h->conns - h->leaving >= h->allowed)
		return false;
	return (int64_t)h->conns < limit;
}

/* At the agent's share: an idle connection to somewhere else makes room. */
static void evict(struct agent *a, uint32_t server)
{
	for (size_t i = 0; i < HOP_BUCKETS; i++) {
		for (struct hop *h = a->hops[i]; h != NULL; h = h->next) {
			struct conn *c = h->server == server && !h->turned ? h->idle : NULL;
			if (c == NULL)
				continue;
			conn_quit_soon(c);
			return;
		}
	}
}

bool slot_take(struct job *j)
{
	struct hop *h = j->hop;
	struct share *s = share_of(h);
	bool full = s->most > 0 && s->conns >= s->most;
	if (j->slot)
		return true;
	if (!full && has_room(h)) {
		j->slot = true;
		h->conns++;
		s->conns++;
		return true;
	}
	j->next = NULL;
	*h->ready_end = j;
	h->ready_end = &j->next;
	if (full)
		evict(j->agent, h->server);
	return false;
}

void slot_pass(struct job *j, struct conn *c)
{
	c->slot = j->slot;
	j->slot = false;
}

static struct job *take_first(struct hop *h)
{
	struct job *j = h->ready;
	h->ready = j->next;
	if (h->ready == NULL)
		h->ready_end = &h->ready;
	j->next = NULL;
	return j;
}

void slot_next(struct hop *h)
{
	struct share *s = share_of(h);
	if (h->agent->stopping)
		return;
	h->users++;
	for (;;) {
		if (h->ready != NULL && h->idle != NULL) /* just used: as good as a fresh one */
			conn_take(h->idle, take_first(h));
		else if (h->ready != NULL && has_room(h) && (s->most == 0 || s->conns < s->most))
			job_start(take_first(h));
		else
			break;
	}
	hop_release(h->agent, h);
}

/* A place among all of the server's: whoever waits, of any next hop. */
static void next_of_all(struct agent *a, uint32_t server)
{
	for (size_t i = 0; i < HOP_BUCKETS; i++) {
		struct hop *next;
		for (struct hop *h = a->hops[i]; h != NULL; h = next) {
			next = h->next;
			if (h->server == server && h->ready != NULL)
				slot_next(h);
		}
	}
}

static void free_one(struct hop *h)
{
	struct share *s = share_of(h);
	bool was_full = s->most > 0 && s->conns >= s->most;
	struct agent *a = h->agent;
	uint32_t server = h->server;
	h->conns--;
	s->conns--;
	slot_next(h);
	if (was_full)
		next_of_all(a, server);
}

void slot_free_job(struct job *j)
{
	if (!j->slot)
		return;
	j->slot = false;
	free_one(j->hop);
}

void slot_free(struct conn *c)
{
	if (c->leaving)
		c->hop->leaving--;
	c->leaving = false;
	if (!c->slot)
		return;
	c->slot = false;
	free_one(c->hop);
}

void slot_leaving(struct conn *c)
{
	slot_remove_idle(c);
	if (c->leaving || !c->slot)
		return;
	c->leaving = true;
	c->hop->leaving++;
	slot_next(c->hop);
}

void slot_idle(struct conn *c)
{
	struct hop *h = c->hop;
	if (c->generation != h->agent->proc.generation && !h->turned) {
		conn_say_quit(c);
		return;
	}
	conn_state(c, CONN_IDLE, (h->turned ? TURNED_IDLE_MS : IDLE_MS) / 1000);
	c->next_idle = h->idle;
	h->idle = c;
	slot_next(h);
}

void slot_new_policy(struct agent *a)
{
	for (size_t i = 0; i < HOP_BUCKETS; i++)
		for (struct hop *h = a->hops[i], *next; h != NULL; h = next) {
			next = h->next;
			h->users++; /* while its connections go */
			while (h->idle != NULL && !h->turned)
				conn_quit_soon(h->idle);
			if (!h->resolving)
				h->fresh_until_ms = 0;
			hop_release(a, h);
		}
}

void slot_remove_idle(struct conn *c)
{
	struct conn **p = &c->hop->idle;
	while (*p != NULL && *p != c)
		p = &(*p)->next_idle;
	if (*p == c)
		*p = c->next_idle;
	c->next_idle = NULL;
}
