/* Next hops: who they are, their look-up. */
#include "smtp_agent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct hop **bucket_of(struct agent *a, uint32_t server, struct span nexthop)
{
	return &a->hops[crc32c(server, nexthop.at, nexthop.n) % HOP_BUCKETS];
}

static bool ask(struct lookup *l, enum dns_kind kind, const char *name);
static bool ask_sts(struct lookup *l, const char *domain);
static void done(struct lookup *l);
static bool is_own(const struct lookup *l, const struct sockaddr *addr);

static struct hop *make_hop(struct agent *a, uint32_t server, struct span nexthop, struct span domain)
{
	struct hop *h = calloc(1, sizeof *h);
	if (h == NULL)
		return NULL;
	*h = (struct hop){.agent = a, .nexthop = span_dup(nexthop), .domain = span_dup(domain), .server = server,
		.lookup = {.context = h, .ask = ask, .ask_sts = ask_sts, .done = done, .is_own = is_own, .left_out = report_left_out}};
	h->ready_end = &h->ready;
	struct span rest = span_of(h->nexthop);
	h->demand = demand_take(&rest);
	h->route = rest.at;
	h->turned = turn_is(nexthop);
	h->turned_fd = -1;
	h->lmtp = nexthop.n > 5 && memcmp(nexthop.at, "lmtp:", 5) == 0;
	if (h->nexthop != NULL && h->domain != NULL)
		return h;
	free(h->nexthop);
	free(h->domain);
	free(h);
	return NULL;
}

struct hop *hop_get(struct agent *a, uint32_t server, struct span nexthop, struct span domain)
{
	struct hop **bucket = bucket_of(a, server, nexthop), *h = *bucket;
	while (h != NULL && (h->server != server || !span_is(nexthop, h->nexthop) || (!h->turned && !span_is(domain, h->domain))))
		h = h->next;
	if (h == NULL) {
		h = make_hop(a, server, nexthop, domain);
		if (h == NULL)
			return NULL;
		h->next = *bucket;
		*bucket = h;
	}
	h->users++;
	return h;
}

/* The parameters for this next hop, of the configuration in force. */
const struct outbound_params *hop_out(struct hop *h)
{
	const struct process *p = &h->agent->proc;
	if (h->out == NULL || h->generation != p->generation) {
		const struct server *s = &p->config.servers[h->server];
		const struct domain *d = h->domain[0] == '\0' ? NULL : server_domain(s, span_of(h->domain));
		h->out = outbound_of(s, d);
		h->helo_only = d != NULL && d->p.ehlo == 0;
		h->generation = p->generation;
	}
	return h->out;
}

static bool is_remembered(const struct hop *h)
{
	int64_t now = clock_mono_ms();
	return now < h->no_tls_until_ms || now < h->fresh_until_ms || now < h->no_pipelining_until_ms || now < h->no_chunking_until_ms;
}

void hop_release(struct agent *a, struct hop *h)
{
	if (--h->users > 0 || h->idle != NULL || h->resolving || h->ready != NULL || is_remembered(h))
		return;
	struct hop **p = bucket_of(a, h->server, span_of(h->nexthop));
	while (*p != h)
		p = &(*p)->next;
	*p = h->next;
	lookup_free(&h->lookup);
	free(h->nexthop);
	free(h->domain);
	free(h);
}

/* ---- look-up ---- */

static struct query *add_query(struct hop *h)
{
	struct agent *a = h->agent;
	struct query *q = calloc(1, sizeof *q);
	if (q == NULL)
		return NULL;
	*q = (struct query){.serial = ++a->serial, .hop = h, .next = a->queries};
	a->queries = q;
	return q;
}

static bool ask_sts(struct lookup *l, const char *domain)
{
	struct hop *h = l->context;
	struct agent *a = h->agent;
	struct query *q = a->sts == NULL ? NULL : add_query(h);
	if (q == NULL)
		return false;
	q->sts = true;
	send_sts_query(a->sts, (struct msg_sts_query){.serial = q->serial, .server = h->server, .domain = span_of(domain)}, -1);
	return true;
}

static bool ask(struct lookup *l, enum dns_kind kind, const char *name)
{
	struct hop *h = l->context;
	struct agent *a = h->agent;
	struct query *q = a->resolver == NULL ? NULL : add_query(h);
	if (q == NULL)
		return false;
	q->kind = kind;
	send_dns_query(a->resolver, (struct msg_dns_query){.serial = q->serial, .kind = (uint32_t)kind, .limit_ms = DNS_LIMIT_MS, .name = span_of(name)}, -1);
	return true;
}

static bool is_own(const struct lookup *l, const struct sockaddr *sa)
{
	const struct hop *h = l->context;
	return own_has(&h->agent->own, &h->agent->proc.config.servers[h->server], sa);
}

static void done(struct lookup *l)
{
	struct hop *h = l->context;
	h->resolving = false;
	h->fresh_until_ms = clock_mono_ms() + (l->state == LOOKUP_DEFERRED ? 1000 : CACHE_MS);
	h->users++;
	while (h->waiting != NULL) {
		struct job *j = h->waiting;
		h->waiting = j->next;
		j->next = NULL;
		j->target_at = 0;
		job_start(j);
	}
	hop_release(h->agent, h);
}

/* Whose question it was; NULL: a forgotten one. */
static struct hop *take_query(struct agent *a, uint64_t serial, bool sts, enum dns_kind *kind)
{
	struct query **p = &a->queries;
	while (*p != NULL && ((*p)->serial != serial || (*p)->sts != sts))
		p = &(*p)->next;
	struct query *q = *p;
	if (q == NULL)
		return NULL;
	struct hop *h = q->hop;
	*kind = q->kind;
	*p = q->next;
	free(q);
	return h;
}

int hop_on_answer(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, dns_answer, answer);
	struct agent *a = ch->program;
	enum dns_kind kind;
	struct hop *h = take_query(a, answer.serial, false, &kind);
	if (h != NULL)
		lookup_answer(&h->lookup, kind, &(struct dns_said){(enum dns_status)answer.status, answer.secure != 0, answer.records, answer.owner});
	return 0;
}

int hop_on_policy(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, sts_answer, answer);
	struct agent *a = ch->program;
	enum dns_kind kind;
	if (answer.mode > STS_UNKNOWN)
		return EBADMSG;
	struct hop *h = take_query(a, answer.serial, true, &kind);
	if (h != NULL)
		lookup_sts(&h->lookup, &(struct sts_said){(enum sts_mode)answer.mode, answer.mx, answer.text});
	return 0;
}

void hop_resolver_gone(struct agent *a, bool sts)
{
	for (struct query **p = &a->queries; *p != NULL;) {
		struct query *q = *p;
		struct hop *h = q->hop;
		if (q->sts != sts) {
			p = &q->next;
			continue;
		}
		*p = q->next;
		free(q);
		lookup_abort(&h->lookup, sts ? "the process that knows MTA-STS policies is being replaced" : "the resolver is being replaced");
		p = &a->queries;
	}
}

/* Where LMTP is spoken: a socket of this machine, or a host without MX. */
static void resolve_lmtp(struct hop *h)
{
	struct span text = {h->nexthop + 5, strlen(h->nexthop) - 5};
	h->lookup.default_port = LMTP_PORT;
	if (text.n <= 5 || memcmp(text.at, "unix:", 5) != 0) {
		lookup_begin(&h->lookup, text);
		return;
	}
	if (lookup_set_unix(&h->lookup, (struct span){text.at + 5, text.n - 5}) != 0)
		h->lookup.state = LOOKUP_DEFERRED;
	done(&h->lookup);
}

void hop_resolve(struct agent *a, struct hop *h)
{
	if (h->resolving)
		return;
	h->resolving = true;
	(void)snprintf(h->lookup.fqdn, sizeof h->lookup.fqdn, "%s", agent_params(a, h->server)->fqdn);
	h->lookup.default_port = (uint16_t)hop_out(h)->outbound_port;
	h->lookup.dane = !h->lmtp && policy_asks_tlsa(hop_out(h), h->demand);
	h->lookup.sts = !h->lmtp && policy_asks_sts(hop_out(h), h->demand);
	if (h->lmtp)
		resolve_lmtp(h);
	else
		lookup_begin(&h->lookup, span_of(h->route));
}
