#include "lookup/lookup_private.h"
#include "smtp/smtp.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

static void next_step(struct lookup *l);

static void note(struct lookup *l, const char *format, ...) PRINTF_LIKE(2, 3);
static void note(struct lookup *l, const char *format, ...)
{
	char text[900];
	va_list args;
	if (l->note == NULL)
		return;
	va_start(args, format);
	(void)vsnprintf(text, sizeof text, format, args);
	va_end(args);
	l->note(l, text);
}

/* The outcome so far: what is temporary hides what is for good, the first of each kind is told. */
static void fail(struct lookup *l, bool for_good, const char *enhanced, const char *reason)
{
	note(l, "%s", reason);
	if (l->state == LOOKUP_DEFERRED || (l->state == LOOKUP_FAILED && for_good))
		return;
	l->state = for_good ? LOOKUP_FAILED : LOOKUP_DEFERRED;
	(void)snprintf(l->enhanced, sizeof l->enhanced, "%s", enhanced);
	(void)snprintf(l->reason, sizeof l->reason, "%s", reason);
}

static void finish(struct lookup *l)
{
	if (l->targets_n > 0 && !l->final)
		l->state = LOOKUP_READY;
	l->done(l);
}

static void add_target(struct lookup *l, const char *name, const struct sockaddr_storage *sa, socklen_t n, uint32_t preference, struct tlsa_set *tlsa)
{
	if (l->targets_n >= LOOKUP_TARGETS_MOST)
		return;
	struct lookup_target *t = &l->targets[l->targets_n++];
	*t = (struct lookup_target){.addr = *sa, .addr_n = n, .preference = preference, .fallback = l->steps[l->step_at].fallback, .named = l->step_secure, .mx = l->steps[l->step_at].hop.kind == NEXTHOP_MX, .sts = l->step_sts,
		.sts_named = sts_names_host(buffer_span(&l->sts_mx), span_of(name)),
		.tlsa = tlsa_hold(tlsa)};
	(void)snprintf(t->name, sizeof t->name, "%s", name);
	(void)snprintf(t->domain, sizeof t->domain, "%s", l->steps[l->step_at].name);
}

static uint16_t port_of(const struct lookup *l)
{
	const struct nexthop *h = &l->steps[l->step_at].hop;
	return h->port != 0 ? h->port : l->default_port;
}

static void address_of(struct span raw, uint16_t port, struct sockaddr_storage *sa, socklen_t *n)
{
	memset(sa, 0, sizeof *sa);
	if (raw.n == 4) {
		struct sockaddr_in *v4 = (struct sockaddr_in *)sa;
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		memcpy(&v4->sin_addr, raw.at, 4);
		*n = sizeof *v4;
	} else {
		struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)sa;
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		memcpy(&v6->sin6_addr, raw.at, 16);
		*n = sizeof *v6;
	}
}

/* ---- hosts of one step ---- */

static int add_host(struct lookup *l, uint32_t preference, struct span name)
{
	struct lookup_host *more = realloc(l->hosts, (l->hosts_n + 1) * sizeof *more);
	uint32_t order = 0;
	if (more == NULL)
		return ENOMEM;
	l->hosts = more;
	(void)!fill_random(&order, sizeof order);
	more[l->hosts_n] = (struct lookup_host){.preference = preference, .order = order};
	(void)snprintf(more[l->hosts_n++].name, sizeof more->name, "%.*s", SPAN_ARG(name));
	return 0;
}

/* Preference first; equal ones in an order drawn by lot (RFC 5321 5.1). */
static int compare_hosts(const void *x, const void *y)
{
	const struct lookup_host *a = x, *b = y;
	if (a->preference != b->preference)
		return a->preference < b->preference ? -1 : 1;
	return a->order < b->order ? -1 : a->order > b->order;
}

static void step_loops(struct lookup *l)
{
	fail(l, true, "5.4.6", "mail for the destination loops back to this server");
}

/* All hosts of the step are done. */
static void end_hosts(struct lookup *l)
{
	if (l->targets_n == l->step_targets && l->tlsa_failed)
		fail(l, false, "4.7.5", "the next hop's TLSA records could not be looked up, and without them it can't be told whether TLS is due (DANE)");
	else if (l->targets_n == l->step_targets && l->host_tempfail)
		fail(l, false, "4.4.3", "the next hop's addresses could not be looked up");
	else if (l->targets_n == l->step_targets && l->hosts_n > 0)
		fail(l, true, "5.1.2", "the next hop has no address");
	l->step_at++;
	next_step(l);
}

static void next_host(struct lookup *l)
{
	while (l->host_at < l->hosts_n && l->targets_n < LOOKUP_TARGETS_MOST) {
		char name[256]; /* an answer that is there at once moves on in the list */
		(void)snprintf(name, sizeof name, "%s", l->hosts[l->host_at].name);
		buffer_clear(&l->v4);
		buffer_clear(&l->v6);
		l->host_secure = true;
		l->owner[0] = '\0';
		l->asking = 2;
		if (l->ask(l, DNS_AAAA, name) && l->ask(l, DNS_A, name))
			return;
		l->asking = 0;
		l->host_tempfail = true;
		l->host_at++;
	}
	end_hosts(l);
}

/* MX hosts as good as ourselves or worse are no way to go (RFC 5321 5.1). */
static void drop_from(struct lookup *l, uint32_t preference)
{
	size_t kept = l->step_targets;
	for (size_t i = l->step_targets; i < l->targets_n; i++) {
		if (l->targets[i].preference < preference)
			l->targets[kept++] = l->targets[i];
		else
			tlsa_drop(l->targets[i].tlsa);
	}
	l->targets_n = kept;
	l->hosts_n = l->host_at;
	if (l->targets_n == l->step_targets)
		step_loops(l);
}

/* In turns, the newer family first (RFC 8305 4). */
static void take_host(struct lookup *l, struct tlsa_set *tlsa)
{
	struct span v4 = buffer_span(&l->v4), v6 = buffer_span(&l->v6);
	const struct lookup_host h = l->hosts[l->host_at];
	struct sockaddr_storage sa;
	socklen_t n;
	bool newer = true;
	while (v4.n > 0 || v6.n > 0) {
		struct span *from = v4.n == 0 || (newer && v6.n > 0) ? &v6 : &v4;
		size_t size = from == &v6 ? 16 : 4;
		address_of((struct span){from->at, size}, port_of(l), &sa, &n);
		from->at += size;
		from->n -= size;
		newer = !newer;
		if (l->is_own != NULL && l->is_own(l, (const struct sockaddr *)&sa)) {
			note(l, "%s is this server: it and all that are no better are left out", h.name);
			drop_from(l, h.preference);
			end_hosts(l);
			return;
		}
		add_target(l, h.name, &sa, n, h.preference, tlsa);
	}
	l->host_at++;
	next_host(l);
}

/* ---- TLSA: RFC 7672 ---- */

static void tlsa_known(struct lookup *l, const struct dns_said *said);

static bool ask_tlsa(struct lookup *l, const char *base)
{
	enum { NAME_MOST = 253 /* RFC 1035 2.3.4, as text */ };
	char name[300];
	if (snprintf(name, sizeof name, "_%u._tcp.%s", port_of(l), base) > NAME_MOST) { /* there is no such name */
		tlsa_known(l, &(struct dns_said){.status = DNS_NXDOMAIN});
		return true;
	}
	l->asking = 1;
	if (l->ask(l, DNS_TLSA, name))
		return true;
	l->asking = 0;
	return false;
}

/* The host can't be trusted to have none: it is left out (RFC 7672 2.1.2). */
static void leave_host(struct lookup *l, const char *why)
{
	note(l, "%s: %s: left out", l->hosts[l->host_at].name, why);
	l->host_tempfail = l->tlsa_failed = true;
	if (l->left_out != NULL && l->steps[l->step_at].hop.kind == NEXTHOP_MX)
		l->left_out(l, l->steps[l->step_at].name, l->hosts[l->host_at].name, KIND_TLSA, RESULT_DNSSEC_INVALID);
	l->host_at++;
	next_host(l);
}

/* Both families of the present host are known.  Where its name and addresses are validated its TLSA records count: first below
 * the name that it is an alias of (RFC 7672 2.2.2). */
static void addresses_known(struct lookup *l)
{
	const struct lookup_host *h = &l->hosts[l->host_at];
	if (l->v4.n == 0 && l->v6.n == 0)
		note(l, "%s has no address%s", h->name, l->host_tempfail ? " for now" : "");
	if (!l->dane || !l->step_secure || !l->host_secure || (l->v4.n == 0 && l->v6.n == 0)) {
		take_host(l, NULL);
		return;
	}
	l->asked_owner = l->owner[0] != '\0' && !span_case_is(span_of(h->name), l->owner);
	if (!ask_tlsa(l, l->asked_owner ? l->owner : h->name))
		leave_host(l, "the resolver is away");
}

static void take_records(struct lookup *l, struct span records, const char *base)
{
	unsigned all, usable;
	struct tlsa_set *set = tlsa_make(records, base, &all, &usable);
	if (set == NULL) {
		leave_host(l, "not enough memory for its TLSA records");
		return;
	}
	note(l, "%s: %u TLSA record%s, %u of use", base, all, all == 1 ? "" : "s", usable);
	take_host(l, set);
	tlsa_drop(set);
}

static void tlsa_known(struct lookup *l, const struct dns_said *said)
{
	char base[256];
	(void)snprintf(base, sizeof base, "%s", l->asked_owner ? l->owner : l->hosts[l->host_at].name);
	switch (said->status) {
	case DNS_OK:
		if (said->secure)
			take_records(l, said->records, base);
		else
			take_host(l, NULL);
		return;
	case DNS_NXDOMAIN: case DNS_NODATA:
		if (!l->asked_owner) {
			take_host(l, NULL);
			return;
		}
		l->asked_owner = false; /* then below its own */
		if (!ask_tlsa(l, l->hosts[l->host_at].name))
			leave_host(l, "the resolver is away");
		return;
	case DNS_TEMPFAIL:
		leave_host(l, "its TLSA look-up failed for now");
		return;
	case DNS_BOGUS:
		leave_host(l, "its TLSA answer failed its DNSSEC validation");
		return;
	}
}

/* ---- MTA-STS: RFC 8461 ---- */

static void end_step(struct lookup *l, const char *enhanced, const char *reason)
{
	fail(l, false, enhanced, reason);
	l->step_at++;
	next_step(l);
}

/* Which of the step's hosts may be tried is the policy's to say. */
static void ask_sts(struct lookup *l)
{
	if (!l->sts) {
		next_host(l);
		return;
	}
	l->asking = 1;
	if (l->ask_sts(l, l->steps[l->step_at].name))
		return;
	l->asking = 0;
	end_step(l, "4.7.5", "the next hop's MTA-STS policy cannot be asked for now");
}

void lookup_sts(struct lookup *l, const struct sts_said *said)
{
	if (l->asking == 0)
		return;
	l->asking = 0;
	if (said->text.n > 0)
		note(l, "%.*s", SPAN_ARG(said->text));
	l->step_sts = said->mode;
	buffer_put_span(&l->sts_mx, said->mx);
	if (said->mode == STS_UNKNOWN) {
		end_step(l, "4.7.5", "the next hop's MTA-STS policy cannot be told now");
		return;
	}
	for (size_t i = 0; i < l->hosts_n && said->mode != STS_NONE; i++) {
		if (sts_names_host(said->mx, span_of(l->hosts[i].name)))
			continue;
		note(l, "%s is none of the hosts that the policy names%s", l->hosts[i].name, said->mode == STS_ENFORCE ? ": left out" : "");
		if (said->mode == STS_ENFORCE && l->left_out != NULL)
			l->left_out(l, l->steps[l->step_at].name, l->hosts[i].name, KIND_STS, RESULT_VALIDATION_FAILURE);
	}
	if (said->mode == STS_ENFORCE)
		l->hosts_n = lookup_keep_named(l, said->mx);
	if (l->hosts_n == 0)
		end_step(l, "4.7.5", "none of the next hop's MX hosts is one that its MTA-STS policy (enforce) names");
	else
		next_host(l);
}

/* ---- the answer to an MX question ---- */

static void take_mx(struct lookup *l, struct span records)
{
	struct dns_mx mx;
	uint32_t own = UINT32_MAX;
	size_t n = 0;
	bool null_mx = false;
	for (; dns_take_mx(&records, &mx); n++) {
		null_mx = mx.host.n == 0;
		note(l, "MX %u %.*s", mx.preference, SPAN_ARG(mx.host.n == 0 ? SPAN_LIT(".") : mx.host));
		if (span_case_is(mx.host, l->fqdn) && mx.preference < own)
			own = mx.preference;
		if (mx.host.n > 0 && add_host(l, mx.preference, mx.host) != 0)
			l->host_tempfail = true;
	}
	if (null_mx && n == 1) { /* RFC 7505: it is meant, no fallback changes it */
		fail(l, true, "5.1.10", "the domain takes no mail (null MX)");
		l->final = true;
		finish(l);
		return;
	}
	if (l->hosts_n > 0)
		qsort(l->hosts, l->hosts_n, sizeof *l->hosts, compare_hosts);
	while (l->hosts_n > 0 && l->hosts[l->hosts_n - 1].preference >= own)
		l->hosts_n--;
	if (l->hosts_n > LOOKUP_TARGETS_MOST)
		l->hosts_n = LOOKUP_TARGETS_MOST; /* an answer of any length costs so many questions */
	if (l->hosts_n == 0) {
		step_loops(l);
		l->step_at++;
		next_step(l);
		return;
	}
	ask_sts(l);
}

/* A bare address as smart host is tried as a name first (MISSION D6). */
static bool is_bare_address(struct lookup *l)
{
	struct sockaddr_storage sa;
	socklen_t n;
	const struct lookup_step *s = &l->steps[l->step_at];
	if (literal_to_sockaddr(span_of(s->name), port_of(l), &sa, &n) != 0)
		return false;
	note(l, "%s is no name: taken as an address", s->name);
	add_target(l, s->name, &sa, n, 0, NULL);
	return true;
}

static void no_mx(struct lookup *l, enum dns_status status)
{
	const struct lookup_step *s = &l->steps[l->step_at];
	if (is_bare_address(l)) {
		l->step_at++;
		next_step(l);
		return;
	}
	switch (status) {
	case DNS_OK:
		break;
	case DNS_NODATA: /* RFC 5321 5.1: the domain itself is its MX */
		note(l, "no MX: %s itself", s->name);
		if (add_host(l, 0, span_of(s->name)) == 0) {
			ask_sts(l);
			return;
		}
		fail(l, false, "4.3.0", "not enough memory");
		break;
	case DNS_NXDOMAIN: fail(l, true, "5.1.2", "the domain does not exist"); break;
	case DNS_BOGUS: fail(l, false, "4.7.5", "the MX answer failed its DNSSEC validation"); break;
	case DNS_TEMPFAIL: fail(l, false, "4.4.3", "the MX look-up failed for now"); break;
	}
	l->step_at++;
	next_step(l);
}

void lookup_answer(struct lookup *l, enum dns_kind kind, const struct dns_said *said)
{
	struct span raw, records = said->records;
	if (l->asking == 0)
		return;
	l->asking--;
	if (kind == DNS_MX) {
		l->step_secure = said->secure;
		if (said->status == DNS_OK)
			take_mx(l, records);
		else
			no_mx(l, said->status);
		return;
	}
	if (kind == DNS_TLSA) {
		tlsa_known(l, said);
		return;
	}
	while (said->status == DNS_OK && take_lspan(&records, &raw)) {
		if (raw.n == 4 && kind == DNS_A)
			buffer_put_span(&l->v4, raw);
		if (raw.n == 16 && kind == DNS_AAAA)
			buffer_put_span(&l->v6, raw);
	}
	if (said->status == DNS_OK && said->owner.n > 0)
		(void)snprintf(l->owner, sizeof l->owner, "%.*s", SPAN_ARG(said->owner));
	/* an answer that is forged or suppressed says nothing: whoever can do that to one family must not get weaker TLS for the other */
	if (said->status != DNS_BOGUS && said->status != DNS_TEMPFAIL)
		l->host_secure = l->host_secure && said->secure;
	l->host_tempfail = l->host_tempfail || said->status == DNS_TEMPFAIL || said->status == DNS_BOGUS;
	if (l->asking == 0)
		addresses_known(l);
}

/* ---- steps ---- */

static void next_step(struct lookup *l)
{
	l->hosts_n = l->host_at = 0;
	l->step_targets = l->targets_n;
	l->host_tempfail = l->tlsa_failed = false;
	l->step_sts = STS_NONE;
	buffer_clear(&l->sts_mx);
	l->step_secure = true; /* a name of the configuration; of an MX its answer says */
	if (l->step_at == l->steps_n) {
		finish(l);
		return;
	}
	const struct lookup_step *s = &l->steps[l->step_at];
	struct sockaddr_storage sa;
	socklen_t n;
	switch (s->hop.kind) {
	case NEXTHOP_ADDRESS:
		if (literal_to_sockaddr(span_of(s->name), port_of(l), &sa, &n) != 0)
			fail(l, true, "5.1.2", "the next hop's address is not good");
		else if (l->is_own != NULL && l->is_own(l, (const struct sockaddr *)&sa))
			step_loops(l);
		else
			add_target(l, s->name, &sa, n, 0, NULL);
		l->step_at++;
		next_step(l);
		return;
	case NEXTHOP_HOST:
		if (add_host(l, 0, span_of(s->name)) != 0)
			l->host_tempfail = true;
		next_host(l);
		return;
	case NEXTHOP_MX:
		l->asking = 1;
		if (l->ask(l, DNS_MX, s->name))
			return;
		l->asking = 0;
		fail(l, false, "4.4.3", "the resolver is away");
		l->step_at++;
		next_step(l);
		return;
	}
}

static void drop_targets(struct lookup *l)
{
	for (size_t i = 0; i < l->targets_n; i++)
		tlsa_drop(l->targets[i].tlsa);
	l->targets_n = 0;
}

static int prepare(struct lookup *l)
{
	l->state = LOOKUP_NEW;
	drop_targets(l);
	l->targets_n = l->steps_n = l->step_at = 0;
	l->asking = 0;
	l->final = false;
	l->enhanced[0] = l->reason[0] = '\0';
	if (l->steps == NULL) {
		l->steps = calloc(LOOKUP_STEPS_MOST, sizeof *l->steps);
		buffer_init(&l->v4, 4096);
		buffer_init(&l->v6, 16384);
		buffer_init(&l->sts_mx, STS_TEXT_MOST + 4 * STS_HOSTS_MOST);
	}
	if (l->targets == NULL)
		l->targets = calloc(LOOKUP_TARGETS_MOST, sizeof *l->targets);
	return l->steps == NULL || l->targets == NULL ? ENOMEM : 0;
}

int lookup_set_unix(struct lookup *l, struct span path)
{
	int error = prepare(l);
	if (error != 0)
		return error;
	struct lookup_target *t = &l->targets[l->targets_n++];
	struct sockaddr_un *sa = (struct sockaddr_un *)&t->addr;
	*t = (struct lookup_target){.addr_n = sizeof *sa};
	sa->sun_family = AF_UNIX;
	(void)snprintf(sa->sun_path, sizeof sa->sun_path, "%.*s", SPAN_ARG(path));
	(void)snprintf(t->name, sizeof t->name, "%.*s", SPAN_ARG(path));
	l->state = LOOKUP_READY;
	return 0;
}

void lookup_begin(struct lookup *l, struct span route)
{
	int error = prepare(l);
	if (error == 0)
		error = lookup_read_route(l, route);
	if (error != 0) {
		fail(l, error == EINVAL, error == EINVAL ? "5.1.2" : "4.3.0", error == EINVAL ? "the next hop's name is not good" : "not enough memory");
		l->final = true;
		finish(l);
		return;
	}
	next_step(l);
}

void lookup_abort(struct lookup *l, const char *reason)
{
	if (l->asking == 0)
		return;
	l->asking = 0;
	fail(l, false, "4.4.3", reason);
	l->targets_n = 0;
	finish(l);
}

void lookup_free(struct lookup *l)
{
	drop_targets(l);
	free(l->steps);
	free(l->targets);
	free(l->hosts);
	buffer_free(&l->v4);
	buffer_free(&l->v6);
	buffer_free(&l->sts_mx);
	l->steps = NULL;
	l->targets = NULL;
	l->hosts = NULL;
	l->hosts_n = 0;
}

void lookup_format_target(const struct lookup_target *t, char out[400])
{
	char text[INET6_ADDRSTRLEN] = "";
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)&t->addr;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&t->addr;
	bool four = t->addr.ss_family == AF_INET;
	if (t->addr.ss_family == AF_UNIX) {
		(void)snprintf(out, 400, "%s[unix]", t->name);
		return;
	}
	(void)inet_ntop(t->addr.ss_family, four ? (const void *)&v4->sin_addr : (const void *)&v6->sin6_addr, text, sizeof text);
	(void)snprintf(out, 400, "%s[%s]:%u", t->name, text, ntohs(four ? v4->sin_port : v6->sin6_port));
}
