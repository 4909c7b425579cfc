/* Which reports are due, who wants them, how they get there: one at a time. */
#include "reports.h"
#include "smtp/smtp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void next_address(struct report *r);

static int64_t now_s(void)
{
	return clock_wall_us() / 1000000;
}

static const struct server *server_of(const struct report *r)
{
	const struct config *c = &r->agent->proc.config;
	for (uint32_t i = 0; i < c->servers_n; i++)
		if (strcmp(c->servers[i].name, r->server) == 0)
			return &c->servers[i];
	return NULL;
}

static void clear(struct report *r)
{
	free(r->rua);
	buffer_free(&r->packed);
	buffer_free(&r->resolve.addresses);
	*r = (struct report){.agent = r->agent};
}

/* The report has gone, nobody wants it, or it is too late: its counts are forgotten.  Else it is tried again. */
static void end(struct report *r, bool keep)
{
	struct sts_agent *a = r->agent;
	bool test = a->proc.config.service.test_mode == 1;
	if (keep && now_s() < (r->day + 1) * DAY_S + GIVE_UP_S)
		tally_put_off(a, r, now_s() + (test ? 1 : AGAIN_S));
	else
		tally_drop(a, r);
	clear(r);
	a->reporting = false;
	tallies_write(a);
	(void)event_add(a->report_next, &(struct timeval){.tv_sec = keep && test ? 1 : 0});
}

static bool ask(struct report *r, const char *name)
{
	struct sts_agent *a = r->agent;
	if (a->resolver == NULL)
		return false;
	r->query = ++a->serial;
	send_dns_query(a->resolver, (struct msg_dns_query){.serial = r->query, .kind = DNS_TXT, .limit_ms = DNS_LIMIT_MS, .name = span_of(name)}, -1);
	return true;
}

/* ---- by mail: through maildrop, like any program of this machine ---- */

static void send_mail(struct report *r, struct span to)
{
	struct sts_agent *a = r->agent;
	struct address parsed;
	struct buffer mail;
	char name[80];
	int error = address_parse(to, 0, &parsed) != 0 ? EINVAL : a->maildrop_fd < 0 ? ENOENT : 0;
	buffer_init(&mail, 2 * REPORT_MOST);
	if (error == 0)
		report_put_mail(r, server_of(r), to, &mail);
	(void)snprintf(name, sizeof name, "tls-report-%llx-%d", (unsigned long long)clock_wall_us(), (int)getpid());
	if (error == 0)
		error = buffer_ok(&mail) ? hand_in_file_at(a->maildrop_fd, name, buffer_span(&mail), 0640) : ENOMEM;
	if (error == 0)
		LOG(&a->proc.log, report_sent, NO_ID, F("domain", span_of(r->domain)), F("id", span_of(r->id)), F("to", to));
	else
		LOG(&a->proc.log, report_failed, NO_ID, F("domain", span_of(r->domain)), F("id", span_of(r->id)), F("to", to), F("reason", span_of(error == EINVAL ? "no address" : strerror(error))));
	r->mail_failed = r->mail_failed || (error != 0 && error != EINVAL);
	buffer_free(&mail);
}

/* ---- by HTTPS ---- */

static void posted(struct transfer *t, const char *failure)
{
	struct report *r = t->context;
	long code = 0;
	char text[300] = "";
	if (failure == NULL)
		(void)curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &code);
	if (failure != NULL)
		(void)snprintf(text, sizeof text, "%s", failure);
	else if (code / 100 != 2)
		(void)snprintf(text, sizeof text, "the server answered with %ld", code);
	fetch_end(t);
	if (text[0] == '\0')
		LOG(&r->agent->proc.log, report_sent, NO_ID, F("domain", span_of(r->domain)), F("id", span_of(r->id)), F("to", span_of(r->url)));
	else
		LOG(&r->agent->proc.log, report_failed, NO_ID, F("domain", span_of(r->domain)), F("id", span_of(r->id)), F("to", span_of(r->url)), F("reason", span_of(text)));
	r->post_failed = r->post_failed || text[0] != '\0';
	next_address(r);
}

static void post(struct report *r)
{
	const struct server *s = server_of(r);
	uint32_t i = authorities_of(r->agent, (uint32_t)(s - r->agent->proc.config.servers));
	r->transfer = (struct transfer){.context = r, .done = posted, .agent = r->agent, .url = r->url, .host = r->resolve.host, .addresses = buffer_span(&r->resolve.addresses),
		.authorities = buffer_span(&r->agent->authorities[i].pem), .post = buffer_span(&r->packed), .type = "Content-Type: application/tlsrpt+gzip"};
	if (r->resolve.addresses.n > 0 && fetch_begin(&r->transfer) == 0)
		return;
	LOG(&r->agent->proc.log, report_failed, NO_ID, F("domain", span_of(r->domain)), F("id", span_of(r->id)), F("to", span_of(r->url)), F("reason", r->resolve.addresses.n == 0 ? SPAN_LIT("its host has no address") : SPAN_LIT("not now")));
	r->post_failed = true;
	next_address(r);
}

static void resolved(struct resolve *r)
{
	post(r->context);
}

/* ---- the steps ---- */

static void next_address(struct report *r)
{
	enum rua_kind kind;
	struct span address, host;
	if (server_of(r) == NULL) {
		end(r, false);
		return;
	}
	while (r->addresses_n++ < RUAS_MOST && tlsrpt_next(&r->rua_left, &kind, &address, &host)) {
		if (kind == RUA_MAIL) {
			if (!r->mailed)
				send_mail(r, address);
			continue;
		}
		if (r->posted)
			continue;
		(void)snprintf(r->url, sizeof r->url, "%.*s", SPAN_ARG(address));
		r->resolve = (struct resolve){.context = r, .done = resolved, .agent = r->agent, .addresses = r->resolve.addresses};
		(void)snprintf(r->resolve.host, sizeof r->resolve.host, "%.*s", SPAN_ARG(host));
		resolve_begin(&r->resolve);
		return;
	}
	end(r, r->mail_failed || r->post_failed);
}

/* The one record that there may be (RFC 8460 3). */
static void take_record(struct report *r, enum dns_status status, struct span records)
{
	struct span record, rua, found = {"", 0};
	unsigned n = 0;
	while (status == DNS_OK && take_lspan(&records, &record))
		if (tlsrpt_parse_record(record, &rua)) {
			n++;
			found = rua;
		}
	const struct server *s = server_of(r);
	bool wanted = n == 1 && found.n > 0 && s != NULL && s->p.tls_report == TLS_REPORT_YES;
	if (wanted)
		r->rua = span_dup(found);
	if (!wanted || r->rua == NULL || report_make(r, s) != 0) {
		end(r, status == DNS_TEMPFAIL || status == DNS_BOGUS || wanted);
		return;
	}
	r->rua_left = span_of(r->rua);
	next_address(r);
}

bool report_on_answer(struct sts_agent *a, const struct msg_dns_answer *got)
{
	if (a->report->query == 0 || a->report->query != got->serial)
		return false;
	a->report->query = 0;
	take_record(a->report, (enum dns_status)got->status, got->records);
	return true;
}

void reports_resolver_gone(struct sts_agent *a)
{
	if (a->report->query == 0)
		return;
	a->report->query = 0;
	take_record(a->report, DNS_TEMPFAIL, (struct span){"", 0});
}

static int64_t spread(const struct sts_agent *a)
{
	return a->proc.config.service.test_mode == 1 ? 0 : a->report_spread_s;
}

/* The day is over, and its hour has come. */
void reports_due(struct sts_agent *a)
{
	int64_t now = now_s();
	char name[300];
	struct report *r = a->report;
	if (a->reporting)
		return;
	for (size_t i = 0; i < TALLY_BUCKETS; i++)
		for (const struct tally *t = a->tallies[i]; t != NULL; t = t->next) {
			if (now < (t->day + 1) * DAY_S + spread(a) || now < t->retry_s)
				continue;
			*r = (struct report){.agent = a, .day = t->day, .mailed = t->mailed, .posted = t->posted};
			(void)snprintf(r->server, sizeof r->server, "%s", t->server);
			(void)snprintf(r->domain, sizeof r->domain, "%s", t->domain);
			a->reporting = true;
			if (snprintf(name, sizeof name, "_smtp._tls.%s", r->domain) > 253)
				end(r, false);
			else if (!ask(r, name))
				end(r, true);
			return;
		}
}
