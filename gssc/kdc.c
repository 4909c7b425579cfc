/* What is said to the KDCs of a realm, by TCP (RFC 4120 7.2.2): the library says what, this says it, one after the other until one
 * answers.  They are those of krb5.conf, else those of the DNS (7.2.3.2). */
#include "gssc.h"
#include "smtp/smtp.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <profile.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KDC_PORT = 88, KDC_LIMIT_S = 5 /* for one of them */, DNS_LIMIT_MS = 10000, REPLY_MOST = 256 * 1024, LENGTH_N = 4, SRV_MOST = 20, ASKED_MOST = 4 };

struct kdc {
	struct talk *talk;
	char realm[REALM_MOST + 1];
	struct buffer request;
	struct lookup lookup;
	struct { uint64_t serial; enum dns_kind kind; } asked[ASKED_MOST]; /* of the DNS; serial 0: not */
	struct bufferevent *connection;
	size_t target;          /* of lookup, the next one */
	struct event *failing;  /* never from within kdc_ask */
	char why[REALM_MOST + 400];
};

/* ---- where they are ---- */

/* "HOST", "HOST:PORT", an address in brackets; what is no next hop (URLs of proxies) is passed by. */
static void put_hop(struct buffer *route, const char *host, size_t n, unsigned port)
{
	struct buffer hop;
	struct nexthop h;
	buffer_init(&hop, 400);
	buffer_printf(&hop, host[0] == '[' ? "%.*s" : "[%.*s]", (int)n, host);
	if (port != 0)
		buffer_printf(&hop, ":%u", port);
	if (buffer_ok(&hop) && nexthop_parse(buffer_span(&hop), &h) == 0 && h.kind != NEXTHOP_MX) {
		buffer_puts(route, route->n > 0 ? "," : "");
		buffer_put_span(route, buffer_span(&hop));
	}
	buffer_free(&hop);
}

static void put_configured(struct buffer *route, const char *text)
{
	const char *end = text[0] == '[' ? strchr(text, ']') : NULL, *colon = strchr(end == NULL ? text : end, ':');
	uint64_t port = 0;
	size_t n = end != NULL ? (size_t)(end + 1 - text) : colon != NULL ? (size_t)(colon - text) : strlen(text);
	if (colon == NULL || parse_u64(span_of(colon + 1), UINT16_MAX, &port) == 0)
		put_hop(route, text, n, (unsigned)port);
}

/* Of krb5.conf, as a route. */
static void put_all_configured(const struct gssc *g, const char *realm, struct buffer *route)
{
	const char *path[] = {"realms", realm, "kdc", NULL};
	profile_t profile;
	char **kdcs = NULL;
	if (krb5_get_profile(g->krb5, &profile) != 0)
		return;
	if (profile_get_values(profile, path, &kdcs) == 0) {
		for (size_t i = 0; kdcs[i] != NULL; i++)
			put_configured(route, kdcs[i]);
		profile_free_list(kdcs);
	}
	profile_release(profile);
}

static int add_ports(const struct gssc *g, const char *realm, struct port_list *ports)
{
	struct buffer route;
	struct nexthop h;
	bool equal, bad;
	int error = 0;
	buffer_init(&route, 64 * 1024);
	put_all_configured(g, realm, &route);
	for (struct span rest = buffer_span(&route); error == 0 && nexthop_next(&rest, &h, &equal, &bad);)
		if (h.port != 0)
			error = port_list_add(ports, h.port);
	buffer_free(&route);
	return error;
}

int kdc_ports(const struct gssc *g, struct port_list *ports)
{
	static const char *const path[] = {"realms", NULL};
	profile_t profile;
	char **realms = NULL;
	int error = port_list_add(ports, KDC_PORT);
	if (error != 0 || g->krb5 == NULL || krb5_get_profile(g->krb5, &profile) != 0)
		return error;
	if (profile_get_subsection_names(profile, (const char **)(uintptr_t)path, &realms) == 0) {
		for (size_t i = 0; realms[i] != NULL && error == 0; i++)
			error = add_ports(g, realms[i], ports);
		profile_free_list(realms);
	}
	profile_release(profile);
	return error;
}

/* ---- how it ends ---- */

static void kdc_free(struct kdc *k)
{
	if (k->connection != NULL)
		bufferevent_free(k->connection);
	if (k->failing != NULL)
		event_free(k->failing);
	lookup_free(&k->lookup);
	buffer_free(&k->request);
	free(k);
}

void kdc_end(struct talk *t)
{
	if (t->kdc != NULL)
		kdc_free(t->kdc);
	t->kdc = NULL;
}

static void on_failing(int fd, short what, void *context)
{
	struct kdc *k = context;
	struct talk *t = k->talk;
	char why[sizeof k->why];
	(void)fd;
	(void)what;
	(void)snprintf(why, sizeof why, "%s", k->why);
	kdc_end(t);
	talk_no_ticket(t, why, false);
}

static void fail(struct kdc *k, const char *why)
{
	(void)snprintf(k->why, sizeof k->why, "no KDC of %s: %s", k->realm, why);
	event_active(k->failing, EV_TIMEOUT, 0);
}

/* ---- the conversation ---- */

static void connect_next(struct kdc *k);

static void close_connection(struct kdc *k)
{
	if (k->connection != NULL)
		bufferevent_free(k->connection);
	k->connection = NULL;
}

static void on_reply(struct bufferevent *b, void *context)
{
	struct kdc *k = context;
	struct talk *t = k->talk;
	struct evbuffer *in = bufferevent_get_input(b);
	unsigned char length[LENGTH_N];
	if (evbuffer_copyout(in, length, LENGTH_N) < LENGTH_N)
		return;
	size_t n = (size_t)length[0] << 24 | (size_t)length[1] << 16 | (size_t)length[2] << 8 | length[3];
	if (n == 0 || n > REPLY_MOST) {
		(void)snprintf(k->why, sizeof k->why, "an answer of %zu bytes", n);
		close_connection(k);
		connect_next(k);
		return;
	}
	if (evbuffer_get_length(in) < LENGTH_N + n)
		return;
	const char *reply = (const char *)evbuffer_pullup(in, (ev_ssize_t)(LENGTH_N + n));
	struct bufferevent *own = k->connection; /* outlives k */
	k->connection = NULL;
	kdc_end(t);
	if (reply == NULL)
		talk_no_ticket(t, "not enough memory", false);
	else
		kerberos_take(t, (struct span){reply + LENGTH_N, n});
	bufferevent_free(own);
}

static void on_event(struct bufferevent *b, short what, void *context)
{
	struct kdc *k = context;
	(void)b;
	if ((what & BEV_EVENT_CONNECTED) != 0)
		return;
	(void)snprintf(k->why, sizeof k->why, "%s", (what & BEV_EVENT_TIMEOUT) != 0 ? "no answer" : (what & BEV_EVENT_EOF) != 0 ? "it hung up" : strerror(EVUTIL_SOCKET_ERROR()));
	close_connection(k);
	connect_next(k);
}

static bool connect_to(struct kdc *k, const struct lookup_target *to)
{
	static const struct timeval limit = {KDC_LIMIT_S, 0};
	struct sockaddr_storage addr = to->addr;
	k->connection = bufferevent_socket_new(k->talk->gssc->proc.base, -1, BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
	if (k->connection == NULL)
		return false;
	bufferevent_setcb(k->connection, on_reply, NULL, on_event, k);
	bufferevent_set_timeouts(k->connection, &limit, &limit);
	return bufferevent_write(k->connection, k->request.at, k->request.n) == 0 && bufferevent_enable(k->connection, EV_READ | EV_WRITE) == 0 &&
		bufferevent_socket_connect(k->connection, (struct sockaddr *)&addr, (int)to->addr_n) == 0;
}

static void connect_next(struct kdc *k)
{
	char last[300];
	while (k->target < k->lookup.targets_n) {
		if (connect_to(k, &k->lookup.targets[k->target++]))
			return;
		close_connection(k);
		(void)snprintf(k->why, sizeof k->why, "%s", strerror(errno));
	}
	(void)snprintf(last, sizeof last, "%.299s", k->why);
	fail(k, last);
}

static void found(struct lookup *l)
{
	struct kdc *k = l->context;
	if (l->state == LOOKUP_READY)
		connect_next(k);
	else
		fail(k, l->reason);
}

/* ---- the DNS ---- */

static bool ask_dns(struct kdc *k, enum dns_kind kind, const char *name)
{
	struct gssc *g = k->talk->gssc;
	for (size_t i = 0; i < ASKED_MOST && g->resolver != NULL; i++) {
		if (k->asked[i].serial != 0)
			continue;
		k->asked[i].serial = ++g->serial;
		k->asked[i].kind = kind;
		send_dns_query(g->resolver, (struct msg_dns_query){.serial = g->serial, .kind = (uint32_t)kind, .limit_ms = DNS_LIMIT_MS, .name = span_of(name)}, -1);
		return true;
	}
	return false;
}

static bool ask(struct lookup *l, enum dns_kind kind, const char *name)
{
	return ask_dns(l->context, kind, name);
}

/* Of the first priority that is left, by lot, in proportion to the weights (RFC 2782). */
static size_t draw(const struct dns_srv *srv, size_t n)
{
	uint32_t lot = 0, sum = 0;
	size_t best = 0;
	for (size_t i = 1; i < n; i++)
		if (srv[i].priority < srv[best].priority)
			best = i;
	for (size_t i = 0; i < n; i++)
		sum += srv[i].priority == srv[best].priority ? srv[i].weight + 1 : 0;
	(void)!fill_random(&lot, sizeof lot);
	lot %= sum;
	for (size_t i = 0; i < n; i++) {
		if (srv[i].priority != srv[best].priority)
			continue;
		if (lot < srv[i].weight + 1)
			return i;
		lot -= srv[i].weight + 1;
	}
	return best;
}

static void take_services(struct kdc *k, const struct msg_dns_answer *got)
{
	struct dns_srv srv[SRV_MOST];
	struct buffer route;
	size_t n = 0;
	if (got->status == DNS_TEMPFAIL || got->status == DNS_BOGUS) {
		fail(k, "the DNS does not say now where one is");
		return;
	}
	for (struct span rest = got->records; got->status == DNS_OK && n < SRV_MOST && dns_take_srv(&rest, &srv[n]);)
		n += srv[n].host.n > 0;
	buffer_init(&route, 64 * 1024);
	while (n > 0) {
		size_t i = draw(srv, n);
		put_hop(&route, srv[i].host.at, srv[i].host.n, srv[i].port);
		srv[i] = srv[--n];
	}
	if (route.n > 0 && buffer_ok(&route))
		lookup_begin(&k->lookup, buffer_span(&route));
	else
		fail(k, "neither krb5.conf nor the DNS names one");
	buffer_free(&route);
}

int kdc_on_dns(struct channel *c, struct message *m)
{
	HANDLE(c, m, dns_answer, got);
	struct gssc *g = c->program;
	for (struct talk *t = g->talks; t != NULL; t = t->next)
		for (size_t i = 0; t->kdc != NULL && i < ASKED_MOST; i++) {
			struct kdc *k = t->kdc;
			if (k->asked[i].serial != got.serial)
				continue;
			k->asked[i].serial = 0;
			if (k->asked[i].kind == DNS_SRV)
				take_services(k, &got);
			else
				lookup_answer(&k->lookup, k->asked[i].kind, &(struct dns_said){(enum dns_status)got.status, got.secure != 0, got.records, got.owner});
			return 0;
		}
	return 0; /* nobody waits for it any more */
}

void kdc_resolver_gone(struct gssc *g)
{
	g->resolver = NULL;
	for (struct talk *t = g->talks; t != NULL; t = t->next) {
		bool waits = false;
		for (size_t i = 0; t->kdc != NULL && i < ASKED_MOST; i++) {
			waits = waits || t->kdc->asked[i].serial != 0;
			t->kdc->asked[i].serial = 0;
		}
		if (waits)
			fail(t->kdc, "the resolver was replaced");
	}
}

/* ---- begin ---- */

static void locate(struct kdc *k)
{
	struct buffer route;
	char name[REALM_MOST + 20];
	buffer_init(&route, 64 * 1024);
	put_all_configured(k->talk->gssc, k->realm, &route);
	(void)snprintf(name, sizeof name, "_kerberos._tcp.%s", k->realm);
	if (route.n > 0 && buffer_ok(&route))
		lookup_begin(&k->lookup, buffer_span(&route));
	else if (!domain_is_valid(span_of(k->realm), false) || !ask_dns(k, DNS_SRV, name))
		fail(k, "krb5.conf names none, and the DNS can't be asked");
	buffer_free(&route);
}

bool kdc_ask(struct talk *t, struct span realm, struct span request)
{
	struct kdc *k = realm.n == 0 || realm.n > REALM_MOST ? NULL : calloc(1, sizeof *k);
	if (k == NULL)
		return false;
	*k = (struct kdc){.talk = t, .lookup = {.context = k, .ask = ask, .done = found, .default_port = KDC_PORT}};
	(void)snprintf(k->realm, sizeof k->realm, "%.*s", SPAN_ARG(realm));
	buffer_init(&k->request, REPLY_MOST);
	for (unsigned shift = 32; shift > 0; shift -= 8)
		buffer_putc(&k->request, (char)(request.n >> (shift - 8) & 255));
	buffer_put_span(&k->request, request);
	k->failing = event_new(t->gssc->proc.base, -1, 0, on_failing, k);
	if (k->failing == NULL || !buffer_ok(&k->request)) {
		kdc_free(k);
		return false;
	}
	t->kdc = k;
	locate(k);
	return true;
}
