/* What a client demands of a server's certificate. */
#include "dns/dns.h"
#include "tls/tls.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>

static int demand_names(SSL *ssl, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		X509_VERIFY_PARAM *p = SSL_get0_param(ssl);
		if (X509_VERIFY_PARAM_set1_ip_asc(p, names[i]) == 1)
			continue;
		ERR_clear_error();
		if (SSL_add1_host(ssl, names[i]) != 1)
			return EINVAL;
	}
	return 0;
}

int tls_demand_names(SSL *ssl, const char *const *names, size_t n)
{
	/* RFC 6125 6.4: names are those of the extension; no wildcard within a label */
	SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
	SSL_set_verify(ssl, SSL_VERIFY_PEER, NULL);
	return n == 0 ? EINVAL : demand_names(ssl, names, n);
}

int tls_demand_dane(SSL *ssl, const char *base, struct span records, const char *const *names, size_t n)
{
	struct dns_tlsa t;
	int usable = 0;
	if (SSL_dane_enable(ssl, base) != 1)
		return EINVAL;
	/* RFC 7672 3.1.1: of DANE-EE neither names nor dates matter */
	(void)SSL_dane_set_flags(ssl, DANE_FLAG_NO_DANE_EE_NAMECHECKS);
	SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	while (dns_take_tlsa(&records, &t))
		usable += SSL_dane_tlsa_add(ssl, t.usage, t.selector, t.matching, (const unsigned char *)t.data.at, t.data.n) == 1;
	ERR_clear_error();
	SSL_set_verify(ssl, SSL_VERIFY_PEER, NULL);
	return usable == 0 ? ENOENT : demand_names(ssl, names, n);
}

int tls_trust_file(SSL_CTX *context, const char *path)
{
	int done = SSL_CTX_load_verify_file(context, path);
	ERR_clear_error();
	return done == 1 ? 0 : ENOENT;
}

const char *tls_failure_text(const SSL *ssl)
{
	long result = SSL_get_verify_result(ssl);
	return result != X509_V_OK ? X509_verify_cert_error_string(result) : tls_error_text();
}
