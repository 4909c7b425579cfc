#include "reports.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int64_t now_s(void)
{
	return clock_wall_us() / 1000000;
}

static bool ask(struct domain_policy *d, const char *name)
{
	struct sts_agent *a = d->agent;
	struct query *q = a->resolver == NULL ? NULL : calloc(1, sizeof *q);
	if (q == NULL)
		return false;
	*q = (struct query){.serial = ++a->serial, .of = d, .next = a->queries};
	a->queries = q;
	send_dns_query(a->resolver, (struct msg_dns_query){.serial = q->serial, .kind = DNS_TXT, .limit_ms = DNS_LIMIT_MS, .name = span_of(name)}, -1);
	return true;
}

/* RFC 8461 3.1: what is not to be had from the DNS says nothing about a policy that is known. */
void check_begin(struct domain_policy *d)
{
	char name[300];
	d->phase = PHASE_RECORD;
	if (snprintf(name, sizeof name, "_mta-sts.%s", d->domain) > 253 || !ask(d, name))
		domain_rest(d);
}

/* No fetch for a while; a policy that is known holds on (RFC 8461 5.1). */
static void fail(struct domain_policy *d, enum session_result result, const char *detail)
{
	(void)snprintf(d->failure, sizeof d->failure, "the policy %s: %s", result == RESULT_STS_INVALID ? "is of no use" : "could not be fetched", detail);
	for (const struct asker *k = d->askers; k != NULL; k = k->next)
		tally_add(d->agent, &(struct seen){.server = k->server, .kind = KIND_STS, .result = result, .domain = span_of(d->domain), .host = span_of(d->resolve.host), .reason = span_of(detail)});
	d->retry_s = now_s() + RETRY_S;
	LOG(&d->agent->proc.log, policy_failed, NO_ID, F("domain", span_of(d->domain)), F("reason", span_of(d->failure)), F("holds", domain_holds(d) ? span_of(d->id) : SPAN_LIT("none")));
	domain_rest(d);
}

/* ---- the policy ---- */

static void take_policy(struct domain_policy *d, struct span text)
{
	struct sts_policy p;
	const char *why;
	if (sts_parse_policy(text, &p, &why) != 0) {
		buffer_free(&p.mx);
		fail(d, RESULT_STS_INVALID, why);
		return;
	}
	buffer_free(&d->mx);
	d->mx = p.mx;
	d->mode = p.mode;
	d->kept = true;
	d->fetched_s = now_s();
	d->until_s = d->fetched_s + p.max_age_s;
	d->retry_s = 0;
	d->failure[0] = '\0';
	(void)snprintf(d->id, sizeof d->id, "%s", d->fresh_id);
	LOG(&d->agent->proc.log, policy, NO_ID, F("domain", span_of(d->domain)), F("policy", span_of(d->id)), F("mode", span_of(sts_mode_name(d->mode))));
	store_write(d);
	domain_rest(d);
}

static void fetched(struct transfer *t, const char *failure)
{
	struct domain_policy *d = t->context;
	const char *type = NULL;
	long code = 0;
	if (failure != NULL) {
		char text[280];
		(void)snprintf(text, sizeof text, "%s", failure);
		enum session_result result = t->code == CURLE_PEER_FAILED_VERIFICATION ? RESULT_STS_WEBPKI_INVALID : RESULT_STS_FETCH_ERROR;
		fetch_end(t);
		fail(d, result, text);
		return;
	}
	(void)curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &code);
	(void)curl_easy_getinfo(t->easy, CURLINFO_CONTENT_TYPE, &type);
	struct span kind = span_of(type), media = span_trim(span_until(&kind, ';'));
	struct buffer body = t->body;
	t->body = (struct buffer){0};
	bool good = code == 200 && span_case_is(media, "text/plain");
	fetch_end(t);
	if (good)
		take_policy(d, buffer_span(&body));
	else
		fail(d, RESULT_STS_FETCH_ERROR, code == 200 ? "it is not text/plain (RFC 8461 3.2)" : "the server answered with something other than 200 (RFC 8461 3.3)");
	buffer_free(&body);
}

static void fetch(struct domain_policy *d)
{
	const struct authorities *trusted = &d->agent->authorities[d->authorities];
	if (d->resolve.addresses.n == 0) {
		fail(d, RESULT_STS_FETCH_ERROR, "its host has no address");
		return;
	}
	d->phase = PHASE_FETCH;
	(void)snprintf(d->url, sizeof d->url, "https://%s/.well-known/mta-sts.txt", d->resolve.host);
	d->transfer = (struct transfer){.context = d, .done = fetched, .agent = d->agent, .url = d->url, .host = d->resolve.host,
		.addresses = buffer_span(&d->resolve.addresses), .authorities = buffer_span(&trusted->pem)};
	int error = trusted->pem.n == 0 ? ENOENT : fetch_begin(&d->transfer);
	if (error == ENOENT) {
		fail(d, RESULT_STS_FETCH_ERROR, "outbound_tls_ca_file can't be read");
	} else if (error != 0) { /* our own want says nothing of the domain: whoever can cause it must not get weaker TLS */
		d->untold = true;
		domain_rest(d);
	}
}

/* ---- what the DNS says ---- */

/* The id of the one record that there may be (RFC 8461 3.1). */
static struct span find_id(struct span records)
{
	struct span record, id, found = {"", 0};
	unsigned n = 0;
	while (take_lspan(&records, &record))
		if (sts_parse_record(record, &id)) {
			n++;
			found = id;
		}
	return n == 1 ? found : (struct span){"", 0};
}

static void resolved(struct resolve *r)
{
	fetch(r->context);
}

static void take_record(struct domain_policy *d, struct span id)
{
	bool old = domain_holds(d) && span_is(id, d->id) && now_s() < d->fetched_s + (d->until_s - d->fetched_s) / 2;
	if (id.n == 0) {
		if (!domain_holds(d))
			d->retry_s = 0;
		domain_rest(d);
		return;
	}
	if (old || now_s() < d->retry_s) {
		domain_rest(d);
		return;
	}
	(void)snprintf(d->fresh_id, sizeof d->fresh_id, "%.*s", SPAN_ARG(id));
	d->phase = PHASE_ADDRESSES;
	d->resolve = (struct resolve){.context = d, .done = resolved, .agent = d->agent, .addresses = d->resolve.addresses};
	if (snprintf(d->resolve.host, sizeof d->resolve.host, "mta-sts.%s", d->domain) > 253) {
		fail(d, RESULT_STS_FETCH_ERROR, "its host's name would be too long");
		return;
	}
	resolve_begin(&d->resolve);
}

int check_on_answer(struct channel *ch, struct message *m)
{
	HANDLE(ch, m, dns_answer, got);
	struct sts_agent *a = ch->program;
	if (report_on_answer(a, &got) || resolve_on_answer(a, &got))
		return 0;
	for (struct query **p = &a->queries; *p != NULL; p = &(*p)->next) {
		struct query *q = *p;
		if (q->serial != got.serial)
			continue;
		struct domain_policy *d = q->of;
		*p = q->next;
		free(q);
		take_record(d, find_id(got.status == DNS_OK ? got.records : (struct span){"", 0}));
		return 0;
	}
	return 0;
}

void check_resolver_gone(struct sts_agent *a)
{
	reports_resolver_gone(a);
	resolve_resolver_gone(a);
	while (a->queries != NULL) {
		struct query *q = a->queries;
		struct domain_policy *d = q->of;
		a->queries = q->next;
		free(q);
		take_record(d, (struct span){"", 0});
	}
}
