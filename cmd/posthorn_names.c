/* posthorn check: what the DNS says about a sending and receiving host. */
#include "cmd/posthorn_check.h"
#include "smtp/smtp.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <unbound-event.h>

enum { ANSWER_MS = 10000, ADDRESSES_MOST = 20, LABELS_MOST = 8 };

struct question {
	struct event_base *base;
	enum dns_kind kind;
	enum dns_status status;
	struct buffer *records;
	bool answered;
};

static void on_answer(void *context, int rcode, void *packet, int n, int sec, char *why_bogus, int was_ratelimited)
{
	struct question *q = context;
	size_t found = 0;
	unsigned header = 0;
	(void)why_bogus;
	(void)was_ratelimited;
	q->answered = true;
	q->status = DNS_TEMPFAIL;
	if (sec == 1)
		q->status = DNS_BOGUS;
	else if (rcode == 0 && n > 0 && dns_parse_answer((struct span){packet, (size_t)n}, q->kind, q->records, &found, &header, NULL) == 0)
		q->status = header == 3 ? DNS_NXDOMAIN : header != 0 ? DNS_TEMPFAIL : found == 0 ? DNS_NODATA : DNS_OK;
	(void)event_base_loopbreak(q->base);
}

enum dns_status check_ask(struct check *k, enum dns_kind kind, const char *name, struct buffer *records)
{
	struct question q = {.base = k->base, .kind = kind, .status = DNS_TEMPFAIL, .records = records};
	struct timeval limit = {.tv_sec = ANSWER_MS / 1000};
	int id = 0;
	buffer_init(records, 64 * 1024);
	if (name[0] == '\0' || strlen(name) > 253 || ub_resolve_event(k->dns, name, (int)kind, 1, &q, on_answer, &id) != 0)
		return DNS_TEMPFAIL;
	if (!q.answered) {
		(void)event_base_loopexit(k->base, &limit);
		(void)event_base_dispatch(k->base);
	}
	if (!q.answered)
		(void)ub_cancel(k->dns, id);
	return q.status;
}

size_t check_addresses(struct check *k, const char *name, unsigned char out[][16], size_t most)
{
	static const enum dns_kind kinds[] = {DNS_A, DNS_AAAA};
	size_t n = 0;
	for (size_t i = 0; i < COUNT_OF(kinds); i++) {
		struct buffer records;
		struct span one;
		(void)check_ask(k, kinds[i], name, &records);
		for (struct span rest = buffer_span(&records); n < most && take_lspan(&rest, &one);) {
			memcpy(out[n], "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12);
			memcpy(one.n == 4 ? out[n] + 12 : out[n], one.at, one.n);
			n++;
		}
		buffer_free(&records);
	}
	return n;
}

/* Of RFC 1918, RFC 6598, RFC 4193. */
static bool is_private(const unsigned char a[16])
{
	if (memcmp(a, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) != 0)
		return (a[0] & 0xfe) == 0xfc;
	return a[12] == 10 || (a[12] == 172 && (a[13] & 0xf0) == 16) || (a[12] == 192 && a[13] == 168) || (a[12] == 100 && (a[13] & 0xc0) == 64);
}

/* ---- FQDN and PTR ---- */

static bool check_fqdn(struct check *k)
{
	const char *fqdn = k->server->p.fqdn;
	unsigned char found[ADDRESSES_MOST][16];
	char text[INET6_ADDRSTRLEN];
	struct span tail = SPAN_LIT(".localdomain");
	if (strchr(fqdn, '.') == NULL || strncmp(fqdn, "localhost.", 10) == 0 || span_ends_case(span_of(fqdn), tail)) {
		check_say(k, CHECK_PROBLEM, "fqdn", "%s is no name that others know: set fqdn to this machine's name in the DNS", fqdn);
		return false;
	}
	size_t n = check_addresses(k, fqdn, found, ADDRESSES_MOST);
	if (n == 0) {
		check_say(k, CHECK_PROBLEM, "fqdn", "%s has no address in the DNS; many servers refuse mail from a host that greets by such a name", fqdn);
		return false;
	}
	for (size_t i = 0; i < n; i++)
		if (check_is_own(k, found[i])) {
			check_print_address(found[i], text);
			check_say(k, CHECK_OK, "fqdn", "%s leads to %s, which is this machine's", fqdn, text);
			return true;
		}
	check_print_address(found[0], text);
	check_say(k, CHECK_WARNING, "fqdn", "%s leads to %s, which is no address of this machine: right only behind a NAT or a proxy", fqdn, text);
	return true;
}

static void reverse_name(const unsigned char a[16], char out[80])
{
	size_t n = 0;
	if (memcmp(a, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0) {
		(void)snprintf(out, 80, "%u.%u.%u.%u.in-addr.arpa", a[15], a[14], a[13], a[12]);
		return;
	}
	for (size_t i = 16; i-- > 0 && n < 70;)
		n += (size_t)snprintf(out + n, 80 - n, "%x.%x.", a[i] & 15u, a[i] >> 4);
	(void)snprintf(out + n, 80 - n, "ip6.arpa");
}

static bool leads_to(struct check *k, const char *name, const unsigned char address[16])
{
	unsigned char found[ADDRESSES_MOST][16];
	size_t n = check_addresses(k, name, found, ADDRESSES_MOST);
	for (size_t i = 0; i < n; i++)
		if (memcmp(found[i], address, 16) == 0)
			return true;
	return false;
}

/* v: what it is when there is none. */
static void check_ptr_of(struct check *k, const unsigned char address[16], enum verdict v)
{
	struct buffer records;
	char text[INET6_ADDRSTRLEN], query[80], name[256] = "";
	struct span one;
	check_print_address(address, text);
	reverse_name(address, query);
	enum dns_status status = check_ask(k, DNS_PTR, query, &records);
	for (struct span rest = buffer_span(&records); take_lspan(&rest, &one);) {
		if (one.n > 255 || (name[0] != '\0' && !span_case_is(one, k->server->p.fqdn)))
			continue;
		(void)snprintf(name, sizeof name, "%.*s", SPAN_ARG(one)); /* of several, the FQDN if it is there */
	}
	buffer_free(&records);
	if (status != DNS_OK && status != DNS_NXDOMAIN && status != DNS_NODATA)
		check_say(k, CHECK_UNKNOWN, "ptr", "%s: the DNS gives no answer", text);
	else if (name[0] == '\0')
		check_say(k, v, "ptr", "%s has no name (PTR record): many servers refuse its mail; who owns the address sets it, as a rule the provider", text);
	else if (!leads_to(k, name, address))
		check_say(k, v, "ptr", "%s has the name %s, which does not lead back to it", text, name);
	else if (!span_case_is(span_of(name), k->server->p.fqdn))
		check_say(k, CHECK_WARNING, "ptr", "%s has the name %s, not the server's fqdn %s", text, name, k->server->p.fqdn);
	else
		check_say(k, CHECK_OK, "ptr", "%s has the name %s, which leads back to it", text, name);
}

static void check_ptr(struct check *k)
{
	const struct server_params *p = &k->server->p;
	bool relayed = p->smart_host[0] != '\0' && p->smart_host_direct_first == 0;
	size_t public = 0;
	for (size_t i = 0; i < k->own_n; i++)
		if (!is_private(k->own[i])) {
			public++;
			check_ptr_of(k, k->own[i], relayed ? CHECK_WARNING : CHECK_PROBLEM);
		}
	if (public == 0)
		check_say(k, relayed ? CHECK_OK : CHECK_WARNING, "ptr", "this machine has no public address%s", relayed ? "; mail leaves through smart_host" : ": by which one others see it, and what its name is, is not known here");
}

/* ---- MX ---- */

enum mx_answer { MX_HERE, MX_ELSEWHERE, MX_NONE, MX_UNKNOWN };

static enum mx_answer mx_of(struct check *k, const char *domain, char first[256])
{
	struct buffer records;
	struct dns_mx mx;
	unsigned char found[ADDRESSES_MOST][16];
	enum dns_status status = check_ask(k, DNS_MX, domain, &records);
	enum mx_answer answer = status == DNS_OK || status == DNS_NODATA || status == DNS_NXDOMAIN ? MX_NONE : MX_UNKNOWN;
	size_t hosts = 0;
	for (struct span rest = buffer_span(&records); dns_take_mx(&rest, &mx) && answer != MX_HERE && hosts < ADDRESSES_MOST; hosts++) {
		char host[256];
		(void)snprintf(host, sizeof host, "%.*s", (int)(mx.host.n > 255 ? 255 : mx.host.n), mx.host.at);
		size_t n = check_addresses(k, host, found, ADDRESSES_MOST);
		if (answer != MX_ELSEWHERE)
			(void)snprintf(first, 256, "%s", host);
		answer = MX_ELSEWHERE;
		for (size_t i = 0; i < n; i++)
			if (check_is_own(k, found[i]))
				answer = MX_HERE;
		if (answer == MX_HERE || span_case_is(span_of(host), k->server->p.fqdn)) {
			answer = MX_HERE;
			(void)snprintf(first, 256, "%s", host);
		}
	}
	if (status == DNS_NODATA) { /* RFC 5321 5.1: its addresses */
		size_t n = check_addresses(k, domain, found, ADDRESSES_MOST);
		(void)snprintf(first, 256, "%s", domain);
		answer = n > 0 ? MX_ELSEWHERE : MX_NONE;
		for (size_t i = 0; i < n; i++)
			answer = check_is_own(k, found[i]) ? MX_HERE : answer;
	}
	buffer_free(&records);
	return answer;
}

static void check_mx(struct check *k, const char *what, const char *domain)
{
	char host[256] = "";
	bool takes = check_takes_mail(k->server);
	if (strchr(domain, '.') == NULL || strncmp(domain, "*.", 2) == 0 || span_ends_case(span_of(domain), SPAN_LIT(".localdomain")))
		return;
	enum mx_answer a = mx_of(k, domain, host);
	if (a == MX_UNKNOWN)
		check_say(k, CHECK_UNKNOWN, what, "%s: the DNS gives no answer", domain);
	else if (a == MX_HERE)
		check_say(k, takes ? CHECK_OK : CHECK_PROBLEM, what, "mail for %s comes to %s, this machine%s", domain, host,
			takes ? "" : ", but the server listens on loopback only: set listen");
	else if (a == MX_ELSEWHERE)
		check_say(k, CHECK_WARNING, what, "mail for %s goes to %s, which is not this machine%s", domain, host,
			strcmp(what, "masquerade") == 0 ? ": that is where replies go" : "");
	else
		check_say(k, takes || strcmp(what, "masquerade") == 0 ? CHECK_PROBLEM : CHECK_WARNING, what, "%s has neither MX nor address: nobody can send mail, replies or reports there", domain);
}

/* ---- SPF and DMARC ---- */

/* Records of a name that begin so; the first one to *out. */
static size_t texts_of(struct check *k, const char *name, const char *begin, char out[1024], enum dns_status *status)
{
	struct buffer records;
	struct span one;
	size_t n = 0, length = strlen(begin);
	*status = check_ask(k, DNS_TXT, name, &records);
	for (struct span rest = buffer_span(&records); take_lspan(&rest, &one);) {
		if (one.n < length || strncasecmp(one.at, begin, length) != 0 || (one.n > length && one.at[length] != ' ' && one.at[length] != ';'))
			continue;
		if (n++ == 0)
			(void)snprintf(out, 1024, "%.*s", (int)(one.n > 1023 ? 1023 : one.n), one.at);
	}
	buffer_free(&records);
	return n;
}

static void check_spf(struct check *k, const char *domain)
{
	char text[1024] = "";
	enum dns_status status;
	size_t n = texts_of(k, domain, "v=spf1", text, &status);
	bool open = false;
	struct span rest = span_of(text);
	for (struct span word; (word = span_word(&rest, " ")).n > 0;)
		open = open || span_case_is(word, "+all") || span_case_is(word, "all");
	if (status == DNS_TEMPFAIL || status == DNS_BOGUS)
		check_say(k, CHECK_UNKNOWN, "spf", "%s: the DNS gives no answer", domain);
	else if (n == 0)
		check_say(k, CHECK_WARNING, "spf", "%s says by no SPF record who may send for it: a TXT record such as \"v=spf1 mx -all\"", domain);
	else if (n > 1)
		check_say(k, CHECK_PROBLEM, "spf", "%s has %zu SPF records; receivers take that for an error (RFC 7208 4.5)", domain, n);
	else if (open)
		check_say(k, CHECK_PROBLEM, "spf", "%s lets everybody send for it: %s", domain, text);
	else
		check_say(k, CHECK_OK, "spf", "%s: %s", domain, text);
}

/* Of the domain, or of one above it: receivers look at the organization's. */
static void check_dmarc(struct check *k, const char *domain)
{
	char text[1024] = "", name[300];
	enum dns_status status = DNS_OK;
	unsigned labels = 0;
	for (const char *at = domain; at != NULL && strchr(at, '.') != NULL && labels < LABELS_MOST; labels++) {
		(void)snprintf(name, sizeof name, "_dmarc.%s", at);
		if (texts_of(k, name, "v=DMARC1", text, &status) > 0) {
			check_say(k, CHECK_OK, "dmarc", "%s: %s", name, text);
			return;
		}
		if (status == DNS_TEMPFAIL || status == DNS_BOGUS)
			break;
		at = strchr(at, '.') + 1;
	}
	if (status == DNS_TEMPFAIL || status == DNS_BOGUS)
		check_say(k, CHECK_UNKNOWN, "dmarc", "%s: the DNS gives no answer", domain);
	else
		check_say(k, CHECK_WARNING, "dmarc", "%s has no DMARC record: a TXT record _dmarc.%s such as \"v=DMARC1; p=none; rua=mailto:postmaster@%s\"", domain, domain, domain);
}

void check_names(struct check *k)
{
	const struct server *s = k->server;
	const char *domain = s->p.default_domain;
	if (check_fqdn(k))
		check_ptr(k);
	if (strchr(domain, '.') == NULL || span_ends_case(span_of(domain), SPAN_LIT(".localdomain"))) {
		check_say(k, CHECK_WARNING, "mx", "default_domain %s is no name that others know: replies to mail of this machine's users do not come back", domain);
	} else {
		check_mx(k, "mx", domain);
		check_spf(k, domain);
		check_dmarc(k, domain);
	}
	for (size_t i = 0; i < s->domains_n; i++)
		if (s->domains[i].p.type != DOMAIN_REMOTE)
			check_mx(k, "mx", s->domains[i].name);
	if (s->p.masquerade_domain[0] != '\0')
		check_mx(k, "masquerade", s->p.masquerade_domain);
}
