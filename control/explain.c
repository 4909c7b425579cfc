/* posthorn explain: the route from the configuration, the addresses from the DNS as it answers now. */
#include "control.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

/* One question to the resolver that is open. */
struct query {
	uint64_t serial;
	struct explanation *of;
	enum dns_kind kind;
	bool names; /* of the client */
	struct query *next;
};

/* One explanation under way; its client may go away before its end. */
struct explanation {
	struct control *control;
	uint64_t client;
	uint32_t server;
	struct explain e;
	struct lookup lookup;
	struct reverse names;
	struct buffer out;
	char *words;       /* e's spans point here */
	struct sockaddr_storage sa;
	uint64_t asked;    /* maps, sts: the question's number */
	enum map_question question;
	struct explanation *next;
};

static bool query(struct explanation *x, enum dns_kind kind, const char *name, bool names)
{
	struct control *c = x->control;
	struct query *q = c->resolver == NULL ? NULL : calloc(1, sizeof *q);
	if (q == NULL)
		return false;
	*q = (struct query){.serial = ++c->queries_serial, .of = x, .kind = kind, .names = names, .next = c->queries};
	c->queries = q;
	send_dns_query(c->resolver, (struct msg_dns_query){.serial = q->serial, .kind = (uint32_t)kind, .limit_ms = 30000, .name = span_of(name)}, -1);
	return true;
}

static bool ask(struct lookup *l, enum dns_kind kind, const char *name)
{
	return query(l->context, kind, name, false);
}

/* One policy after the other: of each step of the route. */
static bool ask_sts(struct lookup *l, const char *domain)
{
	struct explanation *x = l->context;
	struct control *c = x->control;
	if (c->sts == NULL)
		return false;
	x->asked = ++c->queries_serial;
	x->next = c->policies;
	c->policies = x;
	send_sts_query(c->sts, (struct msg_sts_query){.serial = x->asked, .server = x->server, .domain = span_of(domain)}, -1);
	return true;
}

int explain_on_policy(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, sts_answer, got);
	struct control *c = ch->program;
	if (got.mode > STS_UNKNOWN)
		return EBADMSG;
	for (struct explanation **p = &c->policies; *p != NULL; p = &(*p)->next) {
		struct explanation *x = *p;
		if (x->asked != got.serial)
			continue;
		*p = x->next;
		lookup_sts(&x->lookup, &(struct sts_said){(enum sts_mode)got.mode, got.mx, got.text});
		return 0;
	}
	return 0;
}

void explain_sts_gone(struct control *c)
{
	while (c->policies != NULL) {
		struct explanation *x = c->policies;
		c->policies = x->next;
		lookup_abort(&x->lookup, "the configuration is being read anew, or the process that knows MTA-STS policies begins anew");
	}
}

static bool ask_names(struct reverse *r, enum dns_kind kind, const char *name)
{
	return query(r->context, kind, name, true);
}

static bool is_own(const struct lookup *l, const struct sockaddr *sa)
{
	const struct explanation *x = l->context;
	return own_has(&x->control->own, &x->control->proc.config.servers[x->server], sa);
}

static void note(struct lookup *l, const char *text)
{
	struct explanation *x = l->context;
	buffer_printf(&x->e.notes, "%s\n", text);
}

static void forget(struct explanation *x)
{
	lookup_free(&x->lookup);
	reverse_free(&x->names);
	buffer_free(&x->out);
	free(x->words);
	free(x);
}

static void answer(struct explanation *x)
{
	struct client *cl = client_find(x->control, x->client);
	if (cl != NULL)
		client_row(cl, buffer_span(&x->out));
	cl = client_find(x->control, x->client);
	if (cl != NULL)
		client_finish(cl, 0, (struct span){"", 0});
}

static void done(struct lookup *l)
{
	struct explanation *x = l->context;
	explain_end(&x->e, l, NULL);
	answer(x);
	/* the look-up's own frames are still on the stack: the struct goes in the next turn */
	x->next = x->control->explained;
	x->control->explained = x;
	event_active(x->control->reap, 0, 0);
}

int explain_on_answer(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, dns_answer, got);
	struct control *c = ch->program;
	for (struct query **p = &c->queries; *p != NULL; p = &(*p)->next) {
		struct query *q = *p;
		if (q->serial != got.serial)
			continue;
		struct explanation *x = q->of;
		enum dns_kind kind = q->kind;
		bool names = q->names;
		*p = q->next;
		free(q);
		if (names)
			reverse_answer(&x->names, (enum dns_status)got.status, got.records);
		else
			lookup_answer(&x->lookup, kind, &(struct dns_said){(enum dns_status)got.status, got.secure != 0, got.records, got.owner});
		return 0;
	}
	return 0;
}

void explain_resolver_gone(struct control *c)
{
	while (c->queries != NULL) {
		struct query *q = c->queries;
		c->queries = q->next;
		if (q->names)
			reverse_answer(&q->of->names, DNS_TEMPFAIL, (struct span){"", 0});
		else
			lookup_abort(&q->of->lookup, "the configuration is being read anew, or the resolver begins anew");
		free(q);
	}
}

/* ---- a local address: where aliases lead it, whether it exists ---- */

static void end_local(struct explanation *x)
{
	explain_end(&x->e, NULL, NULL);
	answer(x);
	forget(x);
}

static void ask_maps(struct explanation *x, enum map_question q)
{
	struct control *c = x->control;
	char address[800];
	bool own = x->e.route.domain != NULL && x->e.route.domain->p.type == DOMAIN_LOCAL;
	struct span domain = own ? x->e.parsed.domain : span_of(x->e.server->p.default_domain);
	(void)snprintf(address, sizeof address, "%.*s@%.*s", SPAN_ARG(x->e.parsed.local), SPAN_ARG(domain));
	x->asked = ++c->queries_serial;
	x->question = q;
	x->next = c->asking;
	c->asking = x;
	send_map_query(c->maps, (struct msg_map_query){.serial = x->asked, .server = x->server, .question = q, .address = span_of(address)}, -1);
}

static void take_local(struct explanation *x, const struct msg_map_answer *got)
{
	static const char *const words[] = {[ANSWER_NONE] = "no: refused at RCPT with 550 5.1.1", [ANSWER_FOUND] = "yes", [ANSWER_ADDRESSES] = "yes", [ANSWER_ALIAS] = "yes",
		[ANSWER_FAILED] = "it cannot be told now: 451 4.3.0 at RCPT"};
	bool checked = local_of(x->e.server, x->e.route.domain)->recipient_check == 1;
	uint32_t status = got == NULL || got->status > ANSWER_FAILED ? (uint32_t)ANSWER_FAILED : got->status;
	struct span rule = got == NULL ? span_of("the configuration is being read anew") : got->rule;
	if (x->question == ASK_EXPANSION) {
		explain_aliases(&x->e, rule, got == NULL ? (struct span){"", 0} : got->value);
		if (x->control->maps != NULL) {
			ask_maps(x, ASK_RECIPIENT);
			return;
		}
	} else {
		explain_exists(&x->e, status == ANSWER_NONE && !checked ? "no: returned, as recipient_check = no" : words[status], rule);
	}
	end_local(x);
}

int explain_on_map(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, map_answer, got);
	struct control *c = ch->program;
	if (operator_answer(c, &got))
		return 0;
	for (struct explanation **p = &c->asking; *p != NULL; p = &(*p)->next) {
		struct explanation *x = *p;
		if (x->asked != got.serial)
			continue;
		*p = x->next;
		take_local(x, &got);
		return 0;
	}
	return 0;
}

void explain_maps_gone(struct control *c)
{
	while (c->asking != NULL) {
		struct explanation *x = c->asking;
		c->asking = x->next;
		take_local(x, NULL);
	}
}

void explain_end_all(struct control *c)
{
	struct channel *maps = c->maps;
	c->maps = NULL; /* nothing more is asked for those that end here */
	explain_maps_gone(c);
	c->maps = maps;
	explain_resolver_gone(c);
	explain_sts_gone(c);
	while (c->named != NULL) { /* what they would go on with is gone */
		struct explanation *x = c->named;
		c->named = x->next;
		struct client *cl = client_find(c, x->client);
		if (cl != NULL)
			client_finish(cl, EX_TEMPFAIL, SPAN_LIT("the configuration is being read anew"));
		forget(x);
	}
}

/* "FORMAT\tFROM\tCLIENT\tADDRESS", "-" where nothing was said. */
static int read_words(struct explanation *x, struct span text)
{
	x->words = span_dup(text);
	if (x->words == NULL)
		return ENOMEM;
	struct span rest = span_of(x->words), format = span_until(&rest, '\t');
	socklen_t n;
	x->e.json = span_is(format, "json");
	x->e.from = span_until(&rest, '\t');
	x->e.client_text = span_until(&rest, '\t');
	x->e.address = rest;
	if (span_is(x->e.from, "-"))
		x->e.from.n = 0;
	if (span_is(x->e.client_text, "-"))
		return 0;
	if (literal_to_sockaddr(x->e.client_text, 0, &x->sa, &n) != 0)
		return EINVAL;
	x->e.client = (const struct sockaddr *)&x->sa;
	return 0;
}

/* What is asked for, once the client's names are known where they count. */
static void run(struct explanation *x)
{
	struct control *c = x->control;
	struct buffer route;
	if (explain_begin(&x->e) != 0) {
		struct client *cl = client_find(c, x->client);
		if (cl != NULL)
			client_finish(cl, EX_DATAERR, buffer_span(&x->out));
		forget(x);
		return;
	}
	if (x->e.route.kind == ROUTE_LOCAL) {
		if (c->maps != NULL)
			ask_maps(x, ASK_EXPANSION);
		else
			end_local(x);
		return;
	}
	buffer_init(&route, 64 * 1024);
	route_put_text(&route, &x->e.route);
	(void)snprintf(x->lookup.fqdn, sizeof x->lookup.fqdn, "%s", x->e.server->p.fqdn);
	x->lookup.default_port = (uint16_t)outbound_of(x->e.server, x->e.route.domain)->outbound_port;
	x->lookup.dane = policy_asks_tlsa(outbound_of(x->e.server, x->e.route.domain), DEMAND_NONE);
	x->lookup.sts = policy_asks_sts(outbound_of(x->e.server, x->e.route.domain), DEMAND_NONE);
	lookup_begin(&x->lookup, buffer_span(&route));
	buffer_free(&route);
}

/* The look-up's own frames are still on the stack, and run may free it: it goes on in the next turn. */
static void named(struct reverse *r)
{
	struct explanation *x = r->context;
	x->next = x->control->named;
	x->control->named = x;
	event_active(x->control->reap, 0, 0);
}

void explain_run(struct client *cl, uint32_t server, struct span argument)
{
	struct control *c = cl->control;
	struct explanation *x = calloc(1, sizeof *x);
	int error = x == NULL ? ENOMEM : read_words(x, argument);
	if (error != 0) {
		if (x != NULL)
			free(x->words);
		free(x);
		client_finish(cl, error == EINVAL ? EX_USAGE : EX_OSERR, error == EINVAL ? SPAN_LIT("--client: an address is needed") : SPAN_LIT("not enough memory"));
		return;
	}
	x->control = c;
	x->client = cl->serial;
	x->server = server;
	buffer_init(&x->out, 128 * 1024);
	x->e.server = &c->proc.config.servers[server];
	x->e.out = &x->out;
	x->lookup = (struct lookup){.context = x, .ask = ask, .ask_sts = ask_sts, .done = done, .is_own = is_own, .note = note};
	x->names = (struct reverse){.context = x, .ask = ask_names, .done = named};
	if (explain_needs_names(&x->e)) {
		x->e.names = &x->names;
		if (reverse_begin(&x->names, x->e.client))
			return;
	}
	run(x);
}

void explain_reap(int fd, short what, void *context)
{
	struct control *c = context;
	(void)fd;
	(void)what;
	while (c->explained != NULL) {
		struct explanation *x = c->explained;
		c->explained = x->next;
		forget(x);
	}
	while (c->named != NULL) {
		struct explanation *x = c->named;
		c->named = x->next;
		run(x);
	}
}
