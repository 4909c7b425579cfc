/* A report's text (RFC 8460 4.4), and the mail that carries it (5.3). */
#include "reports.h"

#include <jansson.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zlib.h>

static void put_time(char out[24], int64_t s)
{
	time_t t = s;
	struct tm tm;
	(void)strftime(out, 24, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t, &tm));
}

static json_t *lines_of(const char *text)
{
	json_t *list = json_array();
	for (struct span rest = span_of(text); rest.n > 0;) {
		struct span line = span_until(&rest, '\n');
		(void)json_array_append_new(list, json_stringn(line.at, line.n));
	}
	return list;
}

static void set_text(json_t *o, const char *key, const char *value)
{
	if (value[0] != '\0')
		(void)json_object_set_new(o, key, json_string(value));
}

static json_t *detail_of(const struct detail *d)
{
	json_t *o = json_object();
	set_text(o, "result-type", session_result_name(d->result));
	set_text(o, "sending-mta-ip", d->local);
	set_text(o, "receiving-mx-hostname", d->host);
	set_text(o, "receiving-ip", d->address);
	(void)json_object_set_new(o, "failed-session-count", json_integer((json_int_t)d->n));
	set_text(o, "failure-reason-code", d->reason);
	return o;
}

static json_t *policy_of(const struct tally *t)
{
	json_t *policy = json_object(), *o = json_object(), *details = json_array();
	set_text(policy, "policy-type", policy_kind_name(t->kind));
	if (t->policy[0] != '\0')
		(void)json_object_set_new(policy, "policy-string", lines_of(t->policy));
	set_text(policy, "policy-domain", t->domain);
	if (t->hosts[0] != '\0')
		(void)json_object_set_new(policy, "mx-host", lines_of(t->hosts));
	(void)json_object_set_new(o, "policy", policy);
	(void)json_object_set_new(o, "summary", json_pack("{s:I,s:I}", "total-successful-session-count", (json_int_t)t->successes, "total-failure-session-count", (json_int_t)t->failures));
	for (const struct detail *d = t->details; d != NULL; d = d->next)
		(void)json_array_append_new(details, detail_of(d));
	if (t->details != NULL)
		(void)json_object_set_new(o, "failure-details", details);
	else
		json_decref(details);
	return o;
}

static char *text_of(struct report *r, const struct server *s)
{
	char begin[24], end[24], contact[300];
	json_t *policies = json_array();
	put_time(begin, r->day * DAY_S);
	put_time(end, r->day * DAY_S + DAY_S - 1);
	(void)snprintf(r->id, sizeof r->id, "%.10s_%s@%s", begin, r->domain, s->p.fqdn);
	(void)snprintf(contact, sizeof contact, "postmaster@%s", s->p.default_domain);
	for (size_t i = 0; i < TALLY_BUCKETS; i++)
		for (const struct tally *t = r->agent->tallies[i]; t != NULL; t = t->next)
			if (tally_is_of(t, r))
				(void)json_array_append_new(policies, policy_of(t));
	json_t *all = json_pack("{s:s,s:{s:s,s:s},s:s,s:s,s:o}", "organization-name", s->p.default_domain, "date-range", "start-datetime", begin, "end-datetime", end,
		"contact-info", contact, "report-id", r->id, "policies", policies);
	char *text = all == NULL ? NULL : json_dumps(all, JSON_COMPACT);
	json_decref(all);
	return text;
}

static int pack(struct span text, struct buffer *out)
{
	enum { GZIP = 15 + 16 };
	z_stream z = {.next_in = (Bytef *)(uintptr_t)text.at, .avail_in = (uInt)text.n};
	if (deflateInit2(&z, Z_BEST_COMPRESSION, Z_DEFLATED, GZIP, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		return ENOMEM;
	size_t most = deflateBound(&z, (uLong)text.n);
	int error = buffer_reserve(out, most);
	z.next_out = (Bytef *)(error == 0 ? out->at : NULL);
	z.avail_out = (uInt)most;
	if (error == 0 && deflate(&z, Z_FINISH) == Z_STREAM_END)
		out->n = z.total_out;
	else
		error = ENOMEM;
	(void)deflateEnd(&z);
	return error;
}

int report_make(struct report *r, const struct server *s)
{
	char *text = text_of(r, s);
	buffer_init(&r->packed, REPORT_MOST);
	int error = text == NULL || strlen(text) > REPORT_MOST ? ENOMEM : pack(span_of(text), &r->packed);
	free(text);
	return error;
}

static void put_base64(struct buffer *out, struct span s)
{
	enum { LINE = 57 };
	char line[LINE / 3 * 4 + 1];
	while (s.n > 0) {
		size_t n = s.n < LINE ? s.n : LINE;
		(void)EVP_EncodeBlock((unsigned char *)line, (const unsigned char *)s.at, (int)n);
		buffer_printf(out, "%s\n", line);
		s = span_from(s, n);
	}
}

/* As a file of maildrop.  From nobody, so that no report is made about it; in clear where it has to be: what it tells of may be
 * in its own way (RFC 8460 5.3, RFC 8689 5). */
void report_put_mail(const struct report *r, const struct server *s, struct span to, struct buffer *out)
{
	long long begin = (long long)r->day * DAY_S;
	buffer_printf(out, "X-Sender: <>\nX-Receiver: <%.*s>\nFrom: <postmaster@%s>\nTo: <%.*s>\n", SPAN_ARG(to), s->p.default_domain, SPAN_ARG(to));
	buffer_printf(out, "Subject: Report Domain: %s\n Submitter: %s\n Report-ID: <%s>\n", r->domain, s->p.default_domain, r->id);
	buffer_printf(out, "TLS-Report-Domain: %s\nTLS-Report-Submitter: %s\nTLS-Required: No\nAuto-Submitted: auto-generated\nMIME-Version: 1.0\n", r->domain, s->p.default_domain);
	buffer_printf(out, "Content-Type: multipart/report; report-type=\"tlsrpt\"; boundary=\"posthorn-%lld\"\n\n", begin);
	buffer_printf(out, "--posthorn-%lld\nContent-Type: text/plain; charset=us-ascii\n\nHow TLS went with the mail servers of %s, as seen by %s: RFC 8460.\n\n", begin, r->domain, s->p.fqdn);
	buffer_printf(out, "--posthorn-%lld\nContent-Type: application/tlsrpt+gzip\nContent-Transfer-Encoding: base64\n", begin);
	buffer_printf(out, "Content-Disposition: attachment;\n filename=\"%s!%s!%lld!%lld.json.gz\"\n\n", s->p.default_domain, r->domain, begin, begin + DAY_S - 1);
	put_base64(out, buffer_span(&r->packed));
	buffer_printf(out, "\n--posthorn-%lld--\n", begin);
}
