/* What TLS reports are made of (RFC 8460): each session with a host of a domain, and what kept one from being made. */
#include "smtp_agent.h"

#include <arpa/inet.h>
#include <openssl/x509_vfy.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum { BACKLOG = 1024 * 1024 }; /* bytes that may wait for a slow sts: beyond, sessions are not counted */

static bool is_wanted(const struct hop *h, uint32_t server)
{
	return h->agent->sts != NULL && channel_backlog(h->agent->sts) < BACKLOG && agent_params(h->agent, server)->tls_report == TLS_REPORT_YES;
}

/* As a zone has them. */
static void put_tlsa(struct buffer *b, const struct tlsa_set *set)
{
	struct span rest = {set->records, set->n};
	struct dns_tlsa t;
	while (dns_take_tlsa(&rest, &t)) {
		buffer_printf(b, "%u %u %u ", t.usage, t.selector, t.matching);
		for (size_t i = 0; i < t.data.n; i++)
			buffer_printf(b, "%02x", (unsigned char)t.data.at[i]);
		buffer_putc(b, '\n');
	}
}

static void put_address(const struct sockaddr_storage *sa, char out[INET6_ADDRSTRLEN])
{
	const void *at = sa->ss_family == AF_INET ? (const void *)&((const struct sockaddr_in *)sa)->sin_addr : (const void *)&((const struct sockaddr_in6 *)sa)->sin6_addr;
	out[0] = '\0';
	if (sa->ss_family == AF_INET || sa->ss_family == AF_INET6)
		(void)inet_ntop(sa->ss_family, at, out, INET6_ADDRSTRLEN);
}

void report_left_out(struct lookup *l, const char *domain, const char *host, enum policy_kind kind, enum session_result why)
{
	struct hop *h = l->context;
	if (is_wanted(h, h->server))
		send_tls_result(h->agent->sts, (struct msg_tls_result){.server = h->server, .kind = (uint32_t)kind, .result = (uint32_t)why, .domain = span_of(domain), .tlsa = {"", 0},
			.host = span_of(host), .address = {"", 0}, .local = {"", 0}, .reason = {"", 0}}, -1);
}

void report_session(struct conn *c, enum session_result result, const char *reason)
{
	const struct lookup_target *t = &c->target;
	struct sockaddr_storage near = {.ss_family = AF_UNSPEC};
	socklen_t n = sizeof near;
	char address[INET6_ADDRSTRLEN], local[INET6_ADDRSTRLEN];
	struct buffer tlsa;
	enum tls_level level = policy_of(c);
	if (!t->mx || c->hop->turned || level == LEVEL_NONE || hop_out(c->hop)->outbound_tls == OUT_TLS_NONE || c->hop->demand == DEMAND_LESS || !is_wanted(c->hop, c->hop->server))
		return;
	enum policy_kind kind = t->tlsa != NULL || level == LEVEL_REFUSED ? KIND_TLSA : t->sts != STS_NONE ? KIND_STS : KIND_NONE;
	buffer_init(&tlsa, 32 * 1024);
	if (t->tlsa != NULL)
		put_tlsa(&tlsa, t->tlsa);
	(void)getsockname(c->fd, (struct sockaddr *)&near, &n);
	put_address(&near, local);
	put_address(&t->addr, address);
	send_tls_result(c->agent->sts, (struct msg_tls_result){.server = c->hop->server, .kind = (uint32_t)kind, .result = (uint32_t)result, .domain = span_of(t->domain), .tlsa = buffer_span(&tlsa),
		.host = span_of(t->name), .address = span_of(address), .local = span_of(local), .reason = span_of(reason)}, -1);
	buffer_free(&tlsa);
}

static enum session_result result_of(long verified)
{
	switch (verified) {
	case X509_V_ERR_CERT_HAS_EXPIRED: return RESULT_EXPIRED;
	case X509_V_ERR_HOSTNAME_MISMATCH: case X509_V_ERR_IP_ADDRESS_MISMATCH: return RESULT_HOST_MISMATCH;
	case X509_V_OK: case X509_V_ERR_DANE_NO_MATCH: case X509_V_ERR_UNSPECIFIED: return RESULT_VALIDATION_FAILURE;
	default: return RESULT_NOT_TRUSTED;
	}
}

/* In mode testing the session goes on whatever its certificate is (RFC 8461 5). */
void report_handshake(struct conn *c, bool done)
{
	bool tested = c->target.mx && c->target.sts == STS_TESTING && policy_of(c) == LEVEL_OPPORTUNISTIC;
	long verified = SSL_get_verify_result(c->ssl);
	if (done && tested && !c->target.sts_named)
		report_session(c, RESULT_VALIDATION_FAILURE, "the policy does not name the host");
	else if (done && tested && verified != X509_V_OK)
		report_session(c, result_of(verified), X509_verify_cert_error_string(verified));
	else if (done)
		report_session(c, RESULT_SUCCESS, "");
	else
		report_session(c, result_of(verified), tls_failure_text(c->ssl));
}
