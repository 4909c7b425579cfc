#include "sts_agent.h"
#include "tls/tls.h"

#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STATUS_MOST = 32 * 1024, CERTIFICATES_MOST = 1000, CLOCKS_DIFFER_S = 300, LEAST_S = 60, NO_END_S = 3600, WEEK_S = 7 * 86400 };

/* A certificate whose authority can be asked. */
struct status {
	struct sts_agent *agent;
	unsigned char id[TLS_CERTIFICATE_ID];
	X509 *leaf, *issuer;
	struct resolve resolve;
	struct transfer transfer;
	char url[1000];
	struct buffer request, response; /* response: empty: none that holds */
	int64_t next_s, until_s;         /* when it is asked; how long the response holds */
	bool busy, gone;                 /* gone: no longer one of ours, to be freed when it is not busy */
	struct status *next;
};

static int64_t now_s(void)
{
	return clock_wall_us() / 1000000;
}

static void status_free(struct status *s)
{
	X509_free(s->leaf);
	X509_free(s->issuer);
	buffer_free(&s->request);
	buffer_free(&s->response);
	buffer_free(&s->resolve.addresses);
	free(s);
}

/* ---- what workers are told ---- */

static void tell(const struct status *s, struct channel *worker)
{
	send_staple(worker, (struct msg_staple){.certificate = {(const char *)s->id, sizeof s->id}, .response = buffer_span(&s->response)}, -1);
}

void status_tell(struct sts_agent *a, struct channel *worker)
{
	for (const struct status *s = a->statuses; s != NULL; s = s->next)
		if (s->response.n > 0)
			tell(s, worker);
}

static void tell_all(const struct status *s)
{
	for (struct channel *w = s->agent->workers; w != NULL; w = w->next)
		tell(s, w);
}

/* ---- one question ---- */

static void rest(struct status *s, int64_t next_s)
{
	s->busy = false;
	s->next_s = next_s;
	if (s->gone)
		status_free(s);
}

static void fail(struct status *s, const char *why)
{
	char subject[200];
	(void)X509_NAME_oneline(X509_get_subject_name(s->leaf), subject, sizeof subject);
	LOG(&s->agent->proc.log, status_failed, NO_ID, F("certificate", span_of(subject)), F("url", span_of(s->url)), F("reason", span_of(why)));
	ERR_clear_error();
	rest(s, now_s() + RETRY_S);
}

static int64_t seconds_until(const ASN1_GENERALIZEDTIME *t)
{
	int days = 0, seconds = 0;
	return t == NULL || ASN1_TIME_diff(&days, &seconds, NULL, t) != 1 ? 0 : (int64_t)days * 86400 + seconds;
}

/* Signed by the authority or by whom it names for that, of this certificate, of now, and good.  NULL, or what is wrong with it. */
static const char *judge(struct status *s, OCSP_BASICRESP *basic, OCSP_CERTID *id)
{
	int what, reason;
	ASN1_GENERALIZEDTIME *revoked, *from, *until;
	STACK_OF(X509) *chain = sk_X509_new_null();
	X509_STORE *store = X509_STORE_new();
	bool good = chain != NULL && store != NULL && sk_X509_push(chain, s->issuer) > 0 && X509_STORE_add_cert(store, s->issuer) == 1 &&
		X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN) == 1 && OCSP_basic_verify(basic, chain, store, 0) == 1;
	sk_X509_free(chain);
	X509_STORE_free(store);
	if (!good)
		return "its signature is not the authority's";
	if (OCSP_resp_find_status(basic, id, &what, &reason, &revoked, &from, &until) != 1)
		return "it is about another certificate";
	if (what != V_OCSP_CERTSTATUS_GOOD)
		return what == V_OCSP_CERTSTATUS_REVOKED ? "the certificate is revoked" : "the authority does not know the certificate";
	if (OCSP_check_validity(from, until, CLOCKS_DIFFER_S, until == NULL ? WEEK_S : -1) != 1)
		return "it is out of date";
	int64_t left = until == NULL ? NO_END_S : seconds_until(until);
	s->until_s = now_s() + left;
	return NULL;
}

static const char *take_response(struct status *s, struct span der)
{
	const unsigned char *at = (const unsigned char *)der.at;
	OCSP_RESPONSE *r = d2i_OCSP_RESPONSE(NULL, &at, (long)der.n);
	OCSP_BASICRESP *basic = r == NULL || OCSP_response_status(r) != OCSP_RESPONSE_STATUS_SUCCESSFUL ? NULL : OCSP_response_get1_basic(r);
	OCSP_CERTID *id = OCSP_cert_to_id(NULL, s->leaf, s->issuer);
	const char *why = id == NULL ? "not enough memory" : basic == NULL ? "it is no OCSP response that says something" : judge(s, basic, id);
	OCSP_CERTID_free(id);
	OCSP_BASICRESP_free(basic);
	OCSP_RESPONSE_free(r);
	return why;
}

static void fetched(struct transfer *t, const char *failure)
{
	struct status *s = t->context;
	char why[300] = "", subject[200];
	long code = 0;
	(void)curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &code);
	const char *fault = failure != NULL ? failure : code != 200 ? "the server answered with something other than 200" : take_response(s, buffer_span(&t->body));
	if (fault != NULL)
		(void)snprintf(why, sizeof why, "%s", fault);
	if (fault == NULL) {
		buffer_clear(&s->response);
		buffer_put_span(&s->response, buffer_span(&t->body));
	}
	fetch_end(t);
	if (fault != NULL) {
		fail(s, why);
		return;
	}
	(void)X509_NAME_oneline(X509_get_subject_name(s->leaf), subject, sizeof subject);
	LOG(&s->agent->proc.log, status, NO_ID, F("certificate", span_of(subject)));
	tell_all(s);
	int64_t left = (s->until_s - now_s()) / 2;
	rest(s, now_s() + (left < LEAST_S ? LEAST_S : left > REFRESH_S ? REFRESH_S : left));
}

static void resolved(struct resolve *r)
{
	struct status *s = r->context;
	s->transfer = (struct transfer){.context = s, .done = fetched, .agent = s->agent, .url = s->url, .host = s->resolve.host, .plain = true, .addresses = buffer_span(&s->resolve.addresses),
		.post = buffer_span(&s->request), .type = "Content-Type: application/ocsp-request"};
	if (s->resolve.addresses.n == 0)
		fail(s, "its host has no address");
	else if (fetch_begin(&s->transfer) != 0)
		fail(s, "not enough memory, or too much is being fetched");
}

static void ask(struct status *s)
{
	s->busy = true;
	s->resolve.agent = s->agent;
	s->resolve.context = s;
	s->resolve.done = resolved;
	resolve_begin(&s->resolve);
}

/* ---- our certificates ---- */

/* Where its authority answers: http: on port 80 alone. */
static bool take_url(struct status *s)
{
	STACK_OF(OPENSSL_STRING) *urls = X509_get1_ocsp(s->leaf);
	char *host = NULL, *port = NULL, *path = NULL;
	int tls = 0;
	bool good = false;
	for (int i = 0; urls != NULL && i < sk_OPENSSL_STRING_num(urls) && !good; i++) {
		const char *url = sk_OPENSSL_STRING_value(urls, i);
		good = strlen(url) < sizeof s->url && OCSP_parse_url(url, &host, &port, &path, &tls) == 1 && !tls && strcmp(port, "80") == 0 && strlen(host) <= 253;
		if (good) {
			(void)snprintf(s->url, sizeof s->url, "%s", url);
			(void)snprintf(s->resolve.host, sizeof s->resolve.host, "%s", host);
		}
		OPENSSL_free(host);
		OPENSSL_free(port);
		OPENSSL_free(path);
		host = port = path = NULL;
	}
	X509_email_free(urls);
	ERR_clear_error();
	return good;
}

static bool make_request(struct status *s)
{
	OCSP_REQUEST *q = OCSP_REQUEST_new();
	OCSP_CERTID *id = OCSP_cert_to_id(NULL, s->leaf, s->issuer);
	unsigned char *der = NULL;
	bool good = q != NULL && id != NULL && OCSP_request_add0_id(q, id) != NULL;
	if (!good)
		OCSP_CERTID_free(id);
	int n = good ? i2d_OCSP_REQUEST(q, &der) : 0;
	if (n > 0)
		buffer_put(&s->request, der, (size_t)n);
	OPENSSL_free(der);
	OCSP_REQUEST_free(q);
	return n > 0 && buffer_ok(&s->request);
}

static X509 *find_issuer(BIO *rest_of_chain, X509 *leaf)
{
	X509 *x;
	while ((x = tls_read_certificate(rest_of_chain)) != NULL && X509_check_issued(x, leaf) != X509_V_OK)
		X509_free(x);
	ERR_clear_error();
	return x;
}

int status_on_offer(struct channel *c, struct message *m)
{
	HANDLE(c, m, key_offer, said);
	struct sts_agent *a = c->program;
	BIO *bio = said.chain.n > 1024 * 1024 ? NULL : BIO_new_mem_buf(said.chain.at, (int)said.chain.n);
	struct status *s = bio == NULL ? NULL : calloc(1, sizeof *s);
	if (s != NULL) {
		*s = (struct status){.agent = a, .leaf = tls_read_certificate(bio)};
		s->issuer = s->leaf == NULL ? NULL : find_issuer(bio, s->leaf);
		buffer_init(&s->request, 4096);
		buffer_init(&s->response, STATUS_MOST);
		if (s->issuer == NULL || tls_certificate_id(s->leaf, s->id) != 0 || !take_url(s) || !make_request(s)) {
			status_free(s); /* its authority answers no questions, or is not in the chain */
		} else {
			s->next = a->fresh_statuses;
			a->fresh_statuses = s;
		}
	}
	ERR_clear_error();
	BIO_free(bio);
	return 0;
}

static struct status *take_known(struct sts_agent *a, const struct status *like)
{
	for (struct status **p = &a->statuses; *p != NULL; p = &(*p)->next) {
		struct status *s = *p;
		if (memcmp(s->id, like->id, sizeof s->id) != 0)
			continue;
		*p = s->next;
		return s;
	}
	return NULL;
}

static void drop(struct status *s)
{
	if (s->response.n > 0) {
		buffer_clear(&s->response);
		tell_all(s);
	}
	if (s->busy)
		s->gone = true; /* what is under way ends it */
	else
		status_free(s);
}

int status_on_offers_end(struct channel *c, struct message *m)
{
	HANDLE(c, m, key_offers_end, end);
	struct sts_agent *a = c->program;
	struct status *kept = NULL;
	(void)end;
	while (a->fresh_statuses != NULL) {
		struct status *fresh = a->fresh_statuses, *known = take_known(a, fresh);
		a->fresh_statuses = fresh->next;
		if (known != NULL) {
			status_free(fresh);
			fresh = known;
		}
		fresh->next = kept;
		kept = fresh;
	}
	while (a->statuses != NULL) {
		struct status *s = a->statuses;
		a->statuses = s->next;
		drop(s);
	}
	a->statuses = kept;
	status_sweep(a);
	return 0;
}

/* What its predecessor had begun to say. */
void status_keyd_new(struct sts_agent *a)
{
	while (a->fresh_statuses != NULL) {
		struct status *s = a->fresh_statuses;
		a->fresh_statuses = s->next;
		status_free(s);
	}
}

void status_sweep(struct sts_agent *a)
{
	int64_t now = now_s();
	for (struct status *s = a->statuses, *next; s != NULL; s = next) {
		next = s->next;
		if (s->response.n > 0 && now >= s->until_s) { /* no client takes it any more */
			buffer_clear(&s->response);
			tell_all(s);
		}
		if (!s->busy && now >= s->next_s)
			ask(s);
	}
}
